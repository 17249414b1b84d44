"""Plot of a mixture forecast: shares and epochs of the data sets over the tokens of the training run."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from mmpack.mixture.forecast import DIMINISHING_EPOCHS, MixtureForecast, format_tokens
from mmpack.mixture.weights import SCALE
from mmpack.show.figure_style import hide_spines, make_figure, set_heading

# The colours of Okabe and Ito, which colour-blind people can distinguish, then lighter ones.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8f8fd1", "#b5a642", "#7a9e7e")
_OTHER_COLOUR, _INK = "#c9c9c9", "#333333"
_POINTS = 400
# A phase with a smaller share of the training run is too narrow on a linear axis.
_MIN_PHASE_SHARE = 0.02


def plot_forecast(forecast: MixtureForecast) -> Figure:
    """Plots a forecast: above, the shares of the data sets over tokens, with the phases; below, the epochs of each data set.

    The token axis is logarithmic if a phase would be too narrow on a linear axis. The nine data sets with the largest
    share in any phase have colours; all others are grey.
    """
    edges = np.unique(forecast.phase_edges)
    end = max(int(edges[-1]), 1)
    widths = np.diff(edges)
    logarithmic = widths.size > 1 and widths.min() < _MIN_PHASE_SHARE * end
    start = int(edges[1]) / 10 if logarithmic else 0.0
    figure = make_figure(12, 7.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1.15, 1))
    upper.set_xlim(start, end)
    if logarithmic:
        upper.set_xscale("log")
    order = _plot_order(forecast)
    colours = {i: _COLOURS[n] if n < len(_COLOURS) else _OTHER_COLOUR for n, i in enumerate(order)}
    _plot_shares(upper, forecast, order, start)
    _plot_epochs(lower, forecast, colours, start, logarithmic)
    _mark_phases((upper, lower), forecast)
    names = forecast.quota_curve.schedule.datasets
    handles = [
        upper.fill_between([], [], color=colours[i], label=_format_legend(forecast, i, names[i]))
        for i in order[: len(_COLOURS)]
    ]
    if len(order) > len(_COLOURS):
        label = f"{len(order) - len(_COLOURS)} others"
        handles.append(upper.fill_between([], [], color=_OTHER_COLOUR, label=label))
    # The legend has the order of the stacked areas: the largest data set is at the bottom.
    upper.legend(
        handles=handles[::-1], loc="center left", bbox_to_anchor=(1.005, 0.5), frameon=False, fontsize=9
    )
    lower.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_tokens(value)))
    lower.xaxis.set_minor_formatter(NullFormatter())
    lower.set_xlabel("tokens of the training run" + (" (log)" if logarithmic else ""), fontsize=9)
    phases = len(forecast.quota_curve.schedule.phases)
    title = f"{format_tokens(end)} tokens of {_format_count(len(order), 'data set')} in {_format_count(phases, 'phase')}"
    set_heading(figure, title)
    return figure


def _plot_order(forecast: MixtureForecast) -> list[int]:
    """Returns the indices of the data sets with tokens: first those with a colour, then the others.

    Both parts are in descending order of tokens.
    """
    used = [i for i in np.argsort(-forecast.total_tokens, kind="stable").tolist() if forecast.total_tokens[i]]
    max_shares = forecast.shares.max(axis=0, initial=0)
    coloured = set(sorted(used, key=lambda i: -max_shares[i])[: len(_COLOURS)])
    return sorted(used, key=lambda i: i not in coloured)


def _format_count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _format_legend(forecast: MixtureForecast, dataset: int, name: str) -> str:
    epochs = f"{forecast.total_epochs[dataset]:.2f}".rstrip("0").rstrip(".")
    label = name if len(name) <= 24 else f"{name[:23]}…"
    return f"{label}\n{format_tokens(float(forecast.total_tokens[dataset]))}, {epochs} {'epoch' if epochs == '1' else 'epochs'}"


def _plot_shares(axes: Axes, forecast: MixtureForecast, order: list[int], start: float) -> None:
    curve, end = forecast.quota_curve, int(forecast.phase_edges[-1])
    # A segment of one token is narrower than a line and would not be visible.
    visible = np.flatnonzero((curve.start_tokens < end) & (np.diff(curve.segment_edges) > 1))
    if not visible.size:
        visible = np.arange(len(curve.start_tokens))
    starts = np.maximum(curve.start_tokens[visible], start)
    tokens = np.append(starts, end)
    shares = 100 * curve.weights[np.append(visible, visible[-1])] / SCALE
    bottom = np.zeros(len(tokens))
    for index, dataset in enumerate(order):
        top = bottom + shares[:, dataset]
        has_colour = index < len(_COLOURS)
        colour = _COLOURS[index] if has_colour else _OTHER_COLOUR
        axes.fill_between(tokens, bottom, top, step="post", color=colour, linewidth=0)
        if has_colour:
            axes.step(tokens, top, where="post", color="white", linewidth=0.6)
        bottom = top
    axes.set_ylim(0, 100)
    axes.set_ylabel("share of the tokens, %", fontsize=9)
    _simplify_axes(axes)


def _plot_epochs(
    axes: Axes, forecast: MixtureForecast, colours: dict[int, str], start: float, logarithmic: bool
) -> None:
    end = int(forecast.phase_edges[-1])
    low = max(int(start), 1)
    grid = np.geomspace(low, end, _POINTS) if logarithmic else np.linspace(0, end, _POINTS)
    exhausted = dict(forecast.quota_curve.exhausted)
    stops = [
        tokens for tokens in (*forecast.phase_edges.tolist(), *exhausted.values()) if start <= tokens <= end
    ]
    points = sorted({int(tokens) for tokens in grid} | set(stops))
    quotas = np.array(
        [[quota / SCALE for quota in forecast.quota_curve.tokens_at(tokens)] for tokens in points]
    )
    final_epochs = forecast.total_epochs[list(colours)]
    for dataset in sorted(colours, key=lambda i: colours[i] != _OTHER_COLOUR):
        epochs = quotas[:, dataset] / forecast.sizes[dataset]
        is_grey = colours[dataset] == _OTHER_COLOUR
        axes.plot(points, epochs, color=colours[dataset], linewidth=1 if is_grey else 1.8)
        if start <= exhausted.get(dataset, end + 1) <= end:
            cap = epochs[points.index(exhausted[dataset])]
            axes.plot(exhausted[dataset], cap, "o", color=colours[dataset], mec=_INK, ms=6, zorder=4)
    if final_epochs.size and final_epochs.max() > 30 * final_epochs.min():
        axes.set_yscale("log")
        axes.set_ylim(final_epochs.min() / 20, final_epochs.max() * 1.6)
        axes.yaxis.set_major_locator(LogLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0, max(1e-9, 1.08 * float(final_epochs.max(initial=0))))
        axes.yaxis.set_major_locator(MaxNLocator(6))
    if axes.get_ylim()[1] > DIMINISHING_EPOCHS:
        axes.axhline(DIMINISHING_EPOCHS, color=_INK, linewidth=0.7, linestyle=":")
        axes.text(
            1.012,
            DIMINISHING_EPOCHS,
            f"⋯  {DIMINISHING_EPOCHS} epochs: little gain",
            transform=axes.get_yaxis_transform(),
            fontsize=8,
            va="center",
            color=_INK,
        )
    if any(tokens <= end for tokens in exhausted.values()):
        axes.text(
            1.012,
            0.03,
            "●  max_epochs reached",
            transform=axes.transAxes,
            fontsize=8,
            color=_INK,
            va="center",
        )
    axes.set_ylabel("epochs", fontsize=9)
    _simplify_axes(axes)


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
        visible_start = max(start, left)
        is_log = upper.get_xscale() == "log"
        middle = np.sqrt(visible_start * stop) if is_log else (visible_start + stop) / 2
        upper.annotate(
            name,
            (middle, 1.01),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=9.5,
            color=_INK,
        )


def _simplify_axes(axes: Axes) -> None:
    axes.tick_params(labelsize=8)
    hide_spines(axes, "top", "right")
