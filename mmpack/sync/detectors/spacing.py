"""Gaps, bursts, near-duplicates."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mmpack.clock import format_ns
from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.detectors.finding import MIN_ITEMS, Finding, limit_times

# A step this many times the period is a gap; one item lost gives 2.
_GAP_FACTOR = 1.8
# Steps below this share of the period are too close to be two items of a regular sensor.
_NEAR_FACTOR = 0.2
_BURST_LENGTH = 3


def detect_spacing(stream: AlignedStream) -> Iterator[Finding]:
    """Gaps, bursts and near-duplicates, judged against the stream's own median step and its spread."""
    name, period = stream.name, stream.period_ns
    t_ns, items = stream.t_ns[stream.group_starts], stream.items[stream.group_starts]
    steps = np.diff(t_ns)
    if len(steps) < MIN_ITEMS:
        return
    # A step across an item that was set aside is not longer for that; across a burst's rows it is one step
    # all the same.
    is_bursty = len(stream.group_starts) < len(np.unique(stream.t_ns))
    skipped = np.ones(len(steps)) if is_bursty else np.maximum(np.diff(items), 1)
    gaps = np.flatnonzero(steps / skipped > max_regular_step_ns(steps, period))
    if len(gaps):
        longest = int(steps[gaps].max())
        yield Finding(
            "gap",
            "fault",
            name,
            len(gaps),
            f"{len(gaps)} gaps, the longest {format_ns(longest)} where {format_ns(period)} is usual",
            limit_times(t_ns[gaps]),
        )
    close = (steps < _NEAR_FACTOR * period) & (_spread(steps, period) < 0.2 * period)
    runs = true_ranges(close)
    bursts = [(start, stop) for start, stop in runs if stop - start >= _BURST_LENGTH]
    singles = [(start, stop) for start, stop in runs if stop - start < _BURST_LENGTH]
    if bursts:
        yield Finding(
            "burst",
            "fault",
            name,
            len(bursts),
            f"{len(bursts)} bursts of items stamped together: they were buffered, the stamps are not capture times",
            limit_times(t_ns[[start for start, _ in bursts]]),
        )
    if singles:
        yield Finding(
            "near_duplicate",
            "fault",
            name,
            len(singles),
            f"{len(singles)} items closer than {format_ns(int(_NEAR_FACTOR * period))} to the one before",
            limit_times(t_ns[[start + 1 for start, _ in singles]]),
        )


def true_ranges(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """[start, stop) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def detect_audio_gaps(stream: AlignedStream) -> Iterator[Finding]:
    if len(stream.t_ns) > 1:
        yield Finding(
            "gap",
            "fault",
            stream.name,
            len(stream.t_ns) - 1,
            f"the samples have {len(stream.t_ns) - 1} holes",
            limit_times(stream.t_ns[1:]),
        )


def max_regular_step_ns(steps: NDArray[np.int64], period_ns: int) -> float:
    """The longest step that is no gap: by the period, or by the steps' own spread where that is wider."""
    return max(_GAP_FACTOR * period_ns, period_ns + 10 * _spread(steps, period_ns))


def _spread(steps: NDArray[np.int64], period_ns: int) -> float:
    """Median distance from the period, scaled to be the standard deviation of normal noise."""
    return 1.4826 * float(np.median(np.abs(steps - period_ns)))
