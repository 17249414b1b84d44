"""Plot of a synchronisation: residuals by stream, and a timeline with gaps and quarantined slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from mmpack.clock import format_ns
from mmpack.show.figure_style import BLUE, ORANGE, RED, hide_spines, make_figure, set_heading
from mmpack.sync.policies.match import MatchStatus
from mmpack.sync.policies.policy import JudgedBy
from mmpack.sync.policies.registry import POLICIES

_OK, _BAD, _EDGE, _FINDING = BLUE, RED, "#b0b0b0", ORANGE
# More marks than pixels would only cost time.
_MAX_MARKS = 4000


def plot_sync(table: pa.Table, report: dict[str, Any]) -> Figure:
    """Plots a synchronisation: left, a histogram of the residuals of each stream; right, the items of each stream over time.

    Args:
        table: content of sync.parquet, one row per tick and stream.
        report: synchronisation report of all recordings.
    """
    names = list(report["streams"])
    rows = max(len(names), 1)
    tracks = {name: _select_track(table, name) for name in names}
    figure = make_figure(15, 1.2 + 0.62 * rows)
    grid = figure.add_gridspec(rows, 2, width_ratios=(1, 2.2))
    timeline = figure.add_subplot(grid[:, 1])
    for row, name in enumerate(names):
        _plot_histogram(figure.add_subplot(grid[row, 0]), name, tracks[name], report["streams"][name])
    _plot_timeline(timeline, tracks, report["recordings"])
    passed, ticks = report["passed"], report["ticks"]
    set_heading(figure, f"{passed} of {ticks} slices in sync, {ticks - passed} quarantined")
    return figure


class _StreamTrack(NamedTuple):
    """The rows of one stream in all recordings, one element per tick."""

    recording: NDArray[np.str_]
    tick_ns: NDArray[np.int64]
    residual_ns: NDArray[np.int64]
    has_items: NDArray[np.bool_]
    status: NDArray[np.int64]


def _select_track(table: pa.Table, name: str) -> _StreamTrack:
    part = table.filter(pc.field("stream") == name)
    status_values = {status.name.lower(): int(status) for status in MatchStatus}
    return _StreamTrack(
        np.asarray(part["recording"].cast(pa.string()).to_pylist()),
        part["tick_ns"].to_numpy(),
        part["residual_ns"].to_numpy(),
        part["count"].to_numpy() > 0,
        np.array([status_values[text] for text in part["status"].cast(pa.string()).to_pylist()], np.int64),
    )


def _plot_histogram(axes: Axes, name: str, track: _StreamTrack, report: dict[str, Any]) -> None:
    residual = track.residual_ns[track.has_items] / 1e6
    tolerance = report["tolerance_ns"] / 1e6
    axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    axes.set_yticks([])
    axes.tick_params(labelsize=7)
    hide_spines(axes, "top", "right", "left")
    # A shard set may have been built with a policy that this installation does not have.
    policy = POLICIES.get(report["policy"])
    if policy is None or policy.plot_label or not len(residual):
        label = "unknown policy" if policy is None else policy.plot_label or "no matches"
        axes.text(0.5, 0.5, label, transform=axes.transAxes, ha="center", fontsize=8)
        axes.set_xticks([])
        return
    if policy.judged_by is JudgedBy.AGE:
        axes.hist(-residual, bins=60, color=_OK)
        axes.set_xlabel("age, ms", fontsize=7, labelpad=0)
        axes.set_yticks([])
        return
    reach = max(np.abs(residual).max(), min(tolerance, 2.0)) * 1.08
    bins = np.linspace(-reach, reach, 81)
    inside = np.abs(residual) <= tolerance
    axes.hist(
        [residual[inside], residual[~inside]], bins=list(bins), color=[_OK, _BAD], stacked=True, log=True
    )
    for edge in (-tolerance, tolerance):
        if abs(edge) <= reach:
            axes.axvline(edge, color=_BAD, linewidth=0.8, linestyle="--")
    axes.set_yticks([])
    axes.yaxis.set_minor_locator(NullLocator())
    worst = f"p99 {format_ns(report['residual_p99_ns'])}, max {format_ns(report['residual_max_ns'])}"
    axes.text(1.0, 0.95, worst, transform=axes.transAxes, ha="right", va="top", fontsize=7)
    axes.set_xlabel("residual, ms (counts on a log scale)", fontsize=7, labelpad=0)


def _plot_timeline(axes: Axes, tracks: dict[str, _StreamTrack], recordings: Sequence[dict[str, Any]]) -> None:
    start = 0.0
    for number, recording in enumerate(recordings, 1):
        first_ns = recording["first_tick_ns"]
        for row, track in enumerate(tracks.values()):
            is_selected = track.recording == recording["recording"]
            seconds = start + (track.tick_ns[is_selected] - first_ns) / 1e9
            _plot_track(axes, row, seconds, track.status[is_selected])
        quarantined = [start + (entry["t_ns"] - first_ns) / 1e9 for entry in recording["quarantine"]]
        if quarantined:
            axes.plot(
                quarantined, np.full(len(quarantined), -0.75), "v", color=_BAD, markersize=5, clip_on=False
            )
        _plot_findings(axes, list(tracks), recording, start)
        # The names of many recordings would overlap, so they are numbered in the order of the report.
        label = recording["recording"] if len(recordings) < 4 else str(number)
        axes.text(start, -1.0, label, fontsize=7, va="bottom")
        start += (recording["last_tick_ns"] - first_ns) / 1e9 * 1.02 + 0.5
    axes.set_ylim(len(tracks) - 0.3, -1.0)
    axes.set_yticks(range(len(tracks)), list(tracks), fontsize=8)
    axes.set_xlabel(
        "time, s (recordings one after the other)" if len(recordings) > 1 else "time, s", fontsize=8
    )
    axes.tick_params(axis="x", labelsize=7)
    axes.set_title(
        "blue: matched   red: not matched   grey: edge   orange ●: problem in the timestamps   ▼ quarantined slice",
        fontsize=9,
        loc="left",
        pad=14,
    )
    hide_spines(axes, "top", "right")


def _plot_findings(axes: Axes, names: Sequence[str], report: dict[str, Any], start: float) -> None:
    for finding in report["findings"]:
        if (
            finding["severity"] == "problem"
            and finding["stream"] in names
            and finding["kind"] != "out_of_tolerance"
        ):
            seconds = [start + (time_ns - report["first_tick_ns"]) / 1e9 for time_ns in finding["times_ns"]]
            height = np.full(len(seconds), names.index(finding["stream"]) - 0.3)
            axes.plot(seconds, height, "o", color=_FINDING, markersize=4)


def _plot_track(axes: Axes, row: int, seconds: NDArray[np.float64], status: NDArray[np.int64]) -> None:
    matched = seconds[status == MatchStatus.OK]
    matched = matched[:: max(1, len(matched) // _MAX_MARKS)]
    axes.plot(matched, np.full(len(matched), row), "|", color=_OK, markersize=9, markeredgewidth=0.8)
    failing = ~np.isin(status, [MatchStatus.OK, MatchStatus.EDGE, MatchStatus.EMPTY])
    for colour, is_marked in ((_EDGE, status == MatchStatus.EDGE), (_BAD, failing)):
        marked = seconds[is_marked]
        if len(marked):
            axes.plot(
                marked, np.full(len(marked), row), "|", color=colour, markersize=13, markeredgewidth=1.6
            )
