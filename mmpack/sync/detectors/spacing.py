"""Detects gaps, bursts and near-duplicates from the steps between timestamps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mmpack.clock import format_ns
from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.detectors.finding import MIN_ITEMS, Finding, is_series, limit_times

# A step longer than this many periods is a gap; one lost item gives a step of 2 periods.
_GAP_FACTOR = 1.8
# Two items of a regular sensor are never closer than this share of the period.
_NEAR_FACTOR = 0.2
# Smallest number of consecutive short steps that is a burst.
_BURST_LENGTH = 3


def detect_spacing(stream: AlignedStream) -> Iterator[Finding]:
    """Yields the findings gap, burst and near_duplicate of a series, judged by its median step and the spread."""
    if not is_series(stream):
        return
    name, period = stream.name, stream.period_ns
    t_ns, items = stream.t_ns[stream.group_starts], stream.items[stream.group_starts]
    steps = np.diff(t_ns)
    if len(steps) < MIN_ITEMS:
        return
    # A step across discarded items is divided by the number of items it covers. Between two bursts the items are the
    # rows of one burst, so the step is not divided.
    is_bursty = len(stream.group_starts) < len(np.unique(stream.t_ns))
    num_items = np.ones(len(steps)) if is_bursty else np.maximum(np.diff(items), 1)
    gaps = np.flatnonzero(steps / num_items > max_regular_step_ns(steps, period))
    if len(gaps):
        longest = int(steps[gaps].max())
        yield Finding(
            kind="gap",
            severity="problem",
            stream=name,
            count=len(gaps),
            text=f"{len(gaps)} gaps; the longest is {format_ns(longest)}, the usual step is {format_ns(period)}",
            times_ns=limit_times(t_ns[gaps]),
        )
    is_close = (steps < _NEAR_FACTOR * period) & (_spread(steps, period) < 0.2 * period)
    ranges = true_ranges(is_close)
    bursts = [(start, stop) for start, stop in ranges if stop - start >= _BURST_LENGTH]
    singles = [(start, stop) for start, stop in ranges if stop - start < _BURST_LENGTH]
    if bursts:
        yield Finding(
            kind="burst",
            severity="problem",
            stream=name,
            count=len(bursts),
            text=f"{len(bursts)} bursts of items with almost equal timestamps: the items were buffered, so these are not "
            "capture times",
            times_ns=limit_times(t_ns[[start for start, _ in bursts]]),
        )
    if singles:
        yield Finding(
            kind="near_duplicate",
            severity="problem",
            stream=name,
            count=len(singles),
            text=f"{len(singles)} items are less than {format_ns(int(_NEAR_FACTOR * period))} after the previous item",
            times_ns=limit_times(t_ns[[start + 1 for start, _ in singles]]),
        )


def true_ranges(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Returns (start, stop) of each range of consecutive True values; `stop` is exclusive."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def detect_audio_gaps(stream: AlignedStream) -> Iterator[Finding]:
    """Yields the finding gap of an audio stream with more than one segment."""
    if stream.stream.kind == "audio" and len(stream.t_ns) > 1:
        yield Finding(
            kind="gap",
            severity="problem",
            stream=stream.name,
            count=len(stream.t_ns) - 1,
            text=f"the audio has {len(stream.t_ns) - 1} gaps",
            times_ns=limit_times(stream.t_ns[1:]),
        )


def max_regular_step_ns(steps: NDArray[np.int64], period_ns: int) -> float:
    """Returns the longest step that is no gap: by the period, or by the spread of the steps if that allows more."""
    return max(_GAP_FACTOR * period_ns, period_ns + 10 * _spread(steps, period_ns))


def _spread(steps: NDArray[np.int64], period_ns: int) -> float:
    """Returns the median absolute deviation from the period, scaled to the standard deviation of normal noise."""
    return 1.4826 * float(np.median(np.abs(steps - period_ns)))
