"""The sync report as a picture: residuals by stream, and a timeline that shows gaps and what was set aside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmpack.sync.match import Status
from mmpack.sync.slicer import SyncResult

_OK, _BAD, _EDGE = "#3b7dd8", "#d1495b", "#b0b0b0"
# More marks than pixels only cost time.
_MAX_MARKS = 4000


def draw(results: Sequence[SyncResult], path: Path) -> None:
    """Writes a PNG: left a histogram of residuals for each stream, right each stream's items along time.

    Args:
        results: recordings, pooled by stream name on the left, one after the other on the right.
        path: the PNG to write.
    """
    names = list(dict.fromkeys(name for result in results for name in result.matches))
    rows = max(len(names), 1)
    figure = Figure(figsize=(15, 1.2 + 0.62 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, 2, width_ratios=(1, 2.2))
    timeline = figure.add_subplot(grid[:, 1])
    for row, name in enumerate(names):
        _histogram(figure.add_subplot(grid[row, 0]), name, results)
    _timeline(timeline, names, results)
    ticks = sum(len(result.passed) for result in results)
    passed = sum(int(result.passed.sum()) for result in results)
    figure.suptitle(f"{passed} of {ticks} slices in sync, {ticks - passed} set aside", fontsize=12, x=0.01, ha="left")
    figure.savefig(path, dpi=110)


def _histogram(axes: Axes, name: str, results: Sequence[SyncResult]) -> None:
    found = [result.matches[name] for result in results if name in result.matches]
    residual = np.concatenate([match.residual_ns[match.found] for match in found]) / 1e6
    tolerance = max(match.rule.tolerance_ns for match in found) / 1e6
    axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    axes.set_yticks([])
    axes.tick_params(labelsize=7)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    policy = found[0].rule.policy
    if policy not in ("nearest", "hold") or not len(residual):
        words = {
            "exact": "is the tick",
            "interpolate": "computed at the tick",
            "window": "all of a window",
            "overlap": "texts of the slice",
        }
        axes.text(0.5, 0.5, words.get(policy, "nothing matched"), transform=axes.transAxes, ha="center", fontsize=8)
        axes.set_xticks([])
        return
    if policy == "hold":
        axes.hist(-residual, bins=60, color=_OK, log=True)
        axes.set_xlabel("age, ms", fontsize=7, labelpad=0)
        return
    reach = max(np.abs(residual).max(), min(tolerance, 2.0)) * 1.08
    bins = np.linspace(-reach, reach, 81)
    inside = np.abs(residual) <= tolerance
    axes.hist([residual[inside], residual[~inside]], bins=bins, color=[_OK, _BAD], stacked=True, log=True)
    for edge in (-tolerance, tolerance):
        if abs(edge) <= reach:
            axes.axvline(edge, color=_BAD, linewidth=0.8, linestyle="--")
    axes.set_xlabel("residual, ms", fontsize=7, labelpad=0)


def _timeline(axes: Axes, names: Sequence[str], results: Sequence[SyncResult]) -> None:
    start = 0.0
    for result in results:
        seconds = (result.ticks.t_ns - result.ticks.t_ns[0]) / 1e9
        for row, name in enumerate(names):
            if name in result.matches:
                _lane(axes, row, start + seconds, result.matches[name].status)
        aside = start + seconds[~result.passed]
        if len(aside):
            axes.plot(aside, np.full(len(aside), -0.75), "v", color=_BAD, markersize=5, clip_on=False)
        axes.text(start, len(names) - 0.35, result.recording.name, fontsize=7, va="top")
        start += float(seconds[-1]) * 1.02 + 0.5
    axes.set_ylim(len(names) - 0.3, -1.0)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("time, s (recordings one after the other)" if len(results) > 1 else "time, s", fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_title("blue: matched   red: fails   grey: edge   ▼ slice set aside", fontsize=9, loc="left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _lane(axes: Axes, row: int, seconds: np.ndarray, status: np.ndarray) -> None:
    step = max(1, len(seconds) // _MAX_MARKS)
    fine = seconds[status == Status.OK][::step]
    axes.plot(fine, np.full(len(fine), row), "|", color=_OK, markersize=9, markeredgewidth=0.8)
    for colour, wrong in ((_EDGE, (status == Status.EDGE)), (_BAD, _failing(status))):
        where = seconds[wrong]
        if len(where):
            axes.plot(where, np.full(len(where), row), "|", color=colour, markersize=13, markeredgewidth=1.6)


def _failing(status: np.ndarray) -> np.ndarray:
    return ~np.isin(status, [Status.OK, Status.EDGE, Status.EMPTY])
