"""A forecast as a picture: shares over the run, and how often each data set has been seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from mmpack.mixture.forecast import DIMINISHING_EPOCHS, MixtureForecast, format_tokens
from mmpack.mixture.weights import SCALE

# Okabe and Ito's colours (distinct to the colour-blind), then lighter ones.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8f8fd1", "#b5a642", "#7a9e7e")
_OTHERS, _INK = "#c9c9c9", "#333333"
_POINTS = 400
# A phase narrower than this part of the run would not be seen.
_NARROW = 0.02


def plot_forecast(forecast: MixtureForecast, path: Path) -> None:
    """Writes a PNG: above, the shares of data sets over tokens, phases marked; below, epochs seen.

    Tokens are on a logarithmic axis if a phase would be too narrow to see on a linear one. Nine data sets, those
    with the largest shares of a phase, have colours; all others are grey.

    Raises:
        OSError: the file cannot be written.
    """
    edges = np.unique(forecast.phase_edges)
    end = max(int(edges[-1]), 1)
    widths = np.diff(edges)
    logarithmic = widths.size > 1 and widths.min() < _NARROW * end
    start = int(edges[1]) / 10 if logarithmic else 0.0
    figure = Figure(figsize=(12, 7.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1.15, 1))
    upper.set_xlim(start, end)
    if logarithmic:
        upper.set_xscale("log")
    order = _plot_order(forecast)
    colours = {i: _COLOURS[n] if n < len(_COLOURS) else _OTHERS for n, i in enumerate(order)}
    _draw_shares(upper, forecast, order, start)
    _draw_epochs(lower, forecast, colours, start, logarithmic)
    _mark_phases((upper, lower), forecast)
    names = forecast.quota_curve.schedule.datasets
    handles = [
        upper.fill_between([], [], color=colours[i], label=_legend(forecast, i, names[i]))
        for i in order[: len(_COLOURS)]
    ]
    if len(order) > len(_COLOURS):
        label = f"{len(order) - len(_COLOURS)} others"
        handles.append(upper.fill_between([], [], color=_OTHERS, label=label))
    # As they lie on each other: the largest is at the bottom.
    upper.legend(
        handles=handles[::-1], loc="center left", bbox_to_anchor=(1.005, 0.5), frameon=False, fontsize=9
    )
    lower.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_tokens(value)))
    lower.xaxis.set_minor_formatter(NullFormatter())
    lower.set_xlabel("tokens of the run" + (" (log)" if logarithmic else ""), fontsize=9)
    phases = len(forecast.quota_curve.schedule.phases)
    title = f"{format_tokens(end)} tokens of {_format_count(len(order), 'data set')} in {_format_count(phases, 'phase')}"
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    figure.savefig(path, dpi=110)


def _plot_order(forecast: MixtureForecast) -> list[int]:
    """Data sets that are seen, those to be coloured first; both parts by tokens, most first."""
    seen = [i for i in np.argsort(-forecast.total_tokens, kind="stable").tolist() if forecast.total_tokens[i]]
    most = forecast.shares.max(axis=0, initial=0)
    coloured = set(sorted(seen, key=lambda i: -most[i])[: len(_COLOURS)])
    return sorted(seen, key=lambda i: i not in coloured)


def _format_count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _legend(forecast: MixtureForecast, dataset: int, name: str) -> str:
    epochs = f"{forecast.total_epochs[dataset]:.2f}".rstrip("0").rstrip(".")
    shown = name if len(name) <= 24 else f"{name[:23]}…"
    return f"{shown}\n{format_tokens(float(forecast.total_tokens[dataset]))}, {epochs} {'epoch' if epochs == '1' else 'epochs'}"


def _draw_shares(axes: Axes, forecast: MixtureForecast, order: list[int], start: float) -> None:
    course, end = forecast.quota_curve, int(forecast.phase_edges[-1])
    # A segment of one token is narrower than a line and would only flicker.
    seen = np.flatnonzero((course.start_tokens < end) & (np.diff(course.segment_edges) > 1))
    if not seen.size:
        seen = np.arange(len(course.start_tokens))
    left = np.maximum(course.start_tokens[seen], start)
    places = np.append(left, end)
    shares = 100 * course.weights[np.append(seen, seen[-1])] / SCALE
    bottom = np.zeros(len(places))
    for number, dataset in enumerate(order):
        top = bottom + shares[:, dataset]
        shown = number < len(_COLOURS)
        colour = _COLOURS[number] if shown else _OTHERS
        axes.fill_between(places, bottom, top, step="post", color=colour, linewidth=0)
        if shown:
            axes.step(places, top, where="post", color="white", linewidth=0.6)
        bottom = top
    axes.set_ylim(0, 100)
    axes.set_ylabel("share of the tokens, %", fontsize=9)
    _hide_spines(axes)


def _draw_epochs(
    axes: Axes, forecast: MixtureForecast, colours: dict[int, str], start: float, logarithmic: bool
) -> None:
    end = int(forecast.phase_edges[-1])
    low = max(int(start), 1)
    grid = np.geomspace(low, end, _POINTS) if logarithmic else np.linspace(0, end, _POINTS)
    spent = dict(forecast.quota_curve.exhausted)
    stops = [tokens for tokens in (*forecast.phase_edges.tolist(), *spent.values()) if start <= tokens <= end]
    places = sorted({int(place) for place in grid} | set(stops))
    due = np.array([[part / SCALE for part in forecast.quota_curve.tokens_at(place)] for place in places])
    finals = forecast.total_epochs[list(colours)]
    for dataset in sorted(colours, key=lambda i: colours[i] != _OTHERS):
        epochs = due[:, dataset] / forecast.sizes[dataset]
        grey = colours[dataset] == _OTHERS
        axes.plot(places, epochs, color=colours[dataset], linewidth=1 if grey else 1.8)
        if start <= spent.get(dataset, end + 1) <= end:
            seen = epochs[places.index(spent[dataset])]
            axes.plot(spent[dataset], seen, "o", color=colours[dataset], mec=_INK, ms=6, zorder=4)
    if finals.size and finals.max() > 30 * finals.min():
        axes.set_yscale("log")
        axes.set_ylim(finals.min() / 20, finals.max() * 1.6)
        axes.yaxis.set_major_locator(LogLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0, max(1e-9, 1.08 * float(finals.max(initial=0))))
        axes.yaxis.set_major_locator(MaxNLocator(6))
    if axes.get_ylim()[1] > DIMINISHING_EPOCHS:
        axes.axhline(DIMINISHING_EPOCHS, color=_INK, linewidth=0.7, linestyle=":")
        axes.text(
            1.012,
            DIMINISHING_EPOCHS,
            f"⋯  {DIMINISHING_EPOCHS} epochs: gains fade",
            transform=axes.get_yaxis_transform(),
            fontsize=8,
            va="center",
            color=_INK,
        )
    if any(tokens <= end for tokens in spent.values()):
        axes.text(
            1.012,
            0.03,
            "●  repeat cap reached",
            transform=axes.transAxes,
            fontsize=8,
            color=_INK,
            va="center",
        )
    axes.set_ylabel("epochs seen", fontsize=9)
    _hide_spines(axes)


def _mark_phases(both: tuple[Axes, Axes], forecast: MixtureForecast) -> None:
    upper, _ = both
    phases = forecast.quota_curve.schedule.phases
    edges = forecast.phase_edges.astype(float)
    for axes in both:
        for edge in edges[1:-1]:
            axes.axvline(edge, color=_INK, linewidth=1)
    left = upper.get_xlim()[0]
    for name, start, stop in zip(phases, edges, edges[1:], strict=False):
        if stop <= start:
            continue
        begin = max(start, left)
        middle = np.sqrt(begin * stop) if upper.get_xscale() == "log" else (begin + stop) / 2
        upper.annotate(
            name,
            (middle, 1.01),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=9.5,
            color=_INK,
        )


def _hide_spines(axes: Axes) -> None:
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
