"""The six policies: which items of a stream belong to each tick, how far off they are, and why some are
missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from mmpack.clock import first_sample_at_or_after, samples_to_ns
from mmpack.sync.align import Aligned, follow
from mmpack.sync.config import Rule
from mmpack.sync.offsets import nearest_index


class Status(IntEnum):
    """What became of one stream at one tick."""

    OK = 0
    MISSING = 1
    OUT_OF_TOLERANCE = 2
    GAP = 3
    STALE = 4
    COVERAGE = 5
    EDGE = 6
    EMPTY = 7  # nothing there, and nothing had to be


@dataclass(frozen=True)
class Match:
    """One stream against all T ticks.

    Attributes:
        stream: the aligned stream.
        rule: how it was matched.
        first: int64, shape (T,). Where the tick's items start in `items` (for audio: the first sample).
        count: int64, shape (T,). How many items (samples) the tick has; 0 where there are none.
        items: int64. Item numbers in file order that `first` and `count` address; empty for audio, whose
            items are samples.
        aligned_ns: int64, shape (T,). Stamp of the tick's (first) item on the reference's clock; of the tick
            where it has none.
        residual_ns: int64, shape (T,). aligned_ns − tick − offset; 0 where a value is computed for the tick
            itself.
        status: uint8, shape (T,), of :class:`Status`.
        measure_ns: int64, shape (T,). What the status was judged by: |residual|, gap between neighbours, age,
            or missing time.
    """

    stream: Aligned
    rule: Rule
    first: NDArray[np.int64]
    count: NDArray[np.int64]
    items: NDArray[np.int64]
    aligned_ns: NDArray[np.int64]
    residual_ns: NDArray[np.int64]
    status: NDArray[np.uint8]
    measure_ns: NDArray[np.int64]

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.stream.name

    @property
    def found(self) -> NDArray[np.bool_]:
        """bool, shape (T,): ticks that have an item, good or bad, to measure a residual on."""
        return self.count > 0


def match(stream: Aligned, rule: Rule, ticks_ns: NDArray[np.int64], tick_period_ns: int) -> Match:
    """`stream` matched to the ticks by its rule's policy.

    Args:
        stream: cleaned stamps on the reference's clock.
        rule: its settings.
        ticks_ns: int64, shape (T,), ascending.
        tick_period_ns: median distance of ticks.
    """
    return _POLICIES[rule.policy](stream, rule, ticks_ns, tick_period_ns)


def _nearest(stream: Aligned, rule: Rule, ticks_ns: NDArray[np.int64], tick_period_ns: int) -> Match:
    """The nearest item, one-to-one: an item serves one tick only, the one it lies nearest to."""
    wanted = ticks_ns + rule.offset_ns
    found = nearest_index(stream.t_ns, wanted)
    residual = stream.t_ns[found] - wanted
    distance = np.abs(residual)
    # Beyond half a period it is another tick's item, or nobody's.
    reach = min(period for period in (tick_period_ns, stream.period_ns or tick_period_ns) if period) // 2
    taken = distance <= max(reach, rule.tolerance_ns)
    # One-to-one: of several ticks that share a nearest item the closest keeps it, the earlier one in a tie.
    order = np.lexsort((np.arange(len(found)), distance, found))
    again = np.concatenate([[False], found[order][1:] == found[order][:-1]])
    taken[order[again]] = False
    status = np.where(distance > rule.tolerance_ns, Status.OUT_OF_TOLERANCE, Status.OK)
    status = np.where(taken, status, Status.MISSING)
    status = _mark_edges(status, ~taken, stream, wanted)
    return Match(
        stream,
        rule,
        found,
        taken.astype(np.int64),
        stream.items,
        np.where(taken, stream.t_ns[found], wanted),
        np.where(taken, residual, 0),
        status.astype(np.uint8),
        distance,
    )


def _exact(stream: Aligned, rule: Rule, ticks_ns: NDArray[np.int64], tick_period_ns: int) -> Match:
    """An item at the very stamp, or none."""
    wanted = ticks_ns + rule.offset_ns
    place = np.searchsorted(stream.t_ns, wanted)
    inside = np.minimum(place, len(stream.t_ns) - 1)
    hit = stream.t_ns[inside] == wanted
    status = _mark_edges(np.where(hit, Status.OK, Status.MISSING), ~hit, stream, wanted)
    zero = np.zeros(len(wanted), np.int64)
    return Match(
        stream, rule, inside, hit.astype(np.int64), stream.items, wanted, zero, status.astype(np.uint8), zero
    )


def _interpolate(stream: Aligned, rule: Rule, ticks_ns: NDArray[np.int64], tick_period_ns: int) -> Match:
    """The two neighbours of tick + offset, close enough together for a line between them to mean something."""
    wanted = ticks_ns + rule.offset_ns
    right = np.searchsorted(stream.t_ns, wanted, side="left")
    exact = (right < len(stream.t_ns)) & (stream.t_ns[np.minimum(right, len(stream.t_ns) - 1)] == wanted)
    left = np.where(exact, right, right - 1)
    between = (left >= 0) & (right < len(stream.t_ns))
    low, high = np.maximum(left, 0), np.minimum(right, len(stream.t_ns) - 1)
    gap = stream.t_ns[high] - stream.t_ns[low]
    status = np.where(gap > rule.limit_ns, Status.GAP, Status.OK)
    status = np.where(between, status, Status.EDGE)
    usable = between & (gap <= rule.limit_ns)
    count = np.where(usable, np.where(exact, 1, 2), 0)
    zero = np.zeros(len(wanted), np.int64)
    return Match(stream, rule, low, count, stream.items, wanted, zero, status.astype(np.uint8), gap)


def _hold(stream: Aligned, rule: Rule, ticks_ns: NDArray[np.int64], tick_period_ns: int) -> Match:
    """The latest item at or before tick + offset with the rows of its stamp or burst, unless it is too old."""
    wanted = ticks_ns + rule.offset_ns
    stop = np.searchsorted(stream.t_ns, wanted, side="right")
    known = stop > 0
    last = np.maximum(stop - 1, 0)
    first = stream.heads[np.searchsorted(stream.heads, last, side="right") - 1]
    residual = stream.t_ns[last] - wanted
    stale = known & (-residual > rule.limit_ns)
    status = np.where(stale, Status.STALE, Status.OK)
    status = np.where(known, status, Status.EDGE)
    past_end = stale & (wanted > stream.t_ns[-1] + stream.period_ns)
    status = np.where(past_end, Status.EDGE, status)
    usable = known & ~stale
    return Match(
        stream,
        rule,
        first,
        np.where(usable, stop - first, 0),
        stream.items,
        np.where(usable, stream.t_ns[last], wanted),
        np.where(usable, residual, 0),
        status.astype(np.uint8),
        np.where(known, -residual, 0),
    )


def _window(stream: Aligned, rule: Rule, ticks_ns: NDArray[np.int64], tick_period_ns: int) -> Match:
    """Everything in [tick + offset − before, tick + offset + after)."""
    wanted = ticks_ns + rule.offset_ns
    low, high = wanted - rule.before_ns, wanted + rule.after_ns
    if stream.stream.kind == "audio":
        return _audio_window(stream, rule, low, high)
    first = np.searchsorted(stream.t_ns, low, side="left")
    stop = np.searchsorted(stream.t_ns, high, side="left")
    count = stop - first
    # The longest stretch without a row, the window's own ends included.
    bounded = np.concatenate([stream.t_ns, [np.iinfo(np.int64).max]])
    steps = np.concatenate([np.diff(stream.t_ns), [0]])
    inner = np.array(
        [steps[a : max(a, b - 1)].max(initial=0) for a, b in zip(first, stop, strict=True)], np.int64
    )
    lead = np.minimum(bounded[first], high) - low
    trail = high - np.where(count > 0, stream.t_ns[np.maximum(stop - 1, 0)], low)
    gap = np.maximum(inner, np.maximum(lead, trail))
    limit = max(rule.limit_ns, 3 * stream.period_ns)
    status = np.where(gap > limit, Status.COVERAGE, Status.OK)
    outside = (high <= stream.t_ns[0]) | (low > stream.t_ns[-1])
    status = np.where(outside, Status.EDGE, np.where(count == 0, Status.MISSING, status))
    # A window that only reaches past the first or last row is at an edge; nothing was lost in it.
    cut = (
        (inner <= limit) & ((lead <= limit) | (first == 0)) & ((trail <= limit) | (stop == len(stream.t_ns)))
    )
    status = np.where((status == Status.COVERAGE) & cut, Status.EDGE, status)
    at = np.minimum(first, len(stream.t_ns) - 1)
    aligned = np.where(count > 0, stream.t_ns[at], low)
    zero = np.zeros(len(wanted), np.int64)
    return Match(stream, rule, first, count, stream.items, aligned, zero, status.astype(np.uint8), gap)


def _audio_window(stream: Aligned, rule: Rule, low: NDArray[np.int64], high: NDArray[np.int64]) -> Match:
    """Samples whose stamps lie in [low, high), within one segment; all of them have to be there.

    Samples are counted on the stream's own clock: that is the one their rate is true on.
    """
    timeline = stream.stream.timeline
    rate_hz, starts = timeline.rate_hz, timeline.t_ns
    asked = low
    low, high = stream.to_own_clock(low), stream.to_own_clock(high)
    segment = np.clip(np.searchsorted(starts, low, side="right") - 1, 0, len(starts) - 1)
    origin = starts[segment]
    begin = first_sample_at_or_after(low - origin, rate_hz, 0)
    end = first_sample_at_or_after(high - origin, rate_hz, 0)
    held = timeline.samples[segment]
    first, stop = np.clip(begin, 0, held), np.clip(end, 0, held)
    count = stop - first
    lost = (end - begin) - count
    status = np.where(lost > 0, Status.COVERAGE, Status.OK)
    last_end = starts[-1] + samples_to_ns(int(timeline.samples[-1]), rate_hz, 0)
    outside = (low < starts[0]) | (high > last_end + 10**9 // rate_hz)
    status = np.where((lost > 0) & outside, Status.EDGE, status)
    usable = status == Status.OK
    aligned = follow(stream.route, origin + samples_to_ns(first, rate_hz, 0))
    return Match(
        stream,
        rule,
        timeline.first_sample[segment] + first,
        np.where(usable, count, 0),
        np.empty(0, np.int64),
        np.where(usable, aligned, asked),
        # How far the first sample lies into the window: less than one sample by construction.
        np.where(usable, aligned - asked, 0),
        status.astype(np.uint8),
        lost * 10**9 // rate_hz,
    )


def _overlap(stream: Aligned, rule: Rule, ticks_ns: NDArray[np.int64], tick_period_ns: int) -> Match:
    """Texts whose [start, end) meets [tick − before, tick + after); with `once`, only in the first slice that
    they meet.
    """
    low, high = ticks_ns + rule.offset_ns - rule.before_ns, ticks_ns + rule.offset_ns + rule.after_ns
    ends = stream.t_ns if stream.end_ns is None else np.maximum(stream.end_ns, stream.t_ns)
    # A text of no length still exists at its start.
    first_tick = np.searchsorted(high, stream.t_ns, side="right")
    last_tick = np.maximum(np.searchsorted(low, ends, side="left") - 1, first_tick)
    last_tick = np.minimum(last_tick, len(ticks_ns) - 1)
    begin = low[np.minimum(first_tick, len(ticks_ns) - 1)]
    meets = (first_tick < len(ticks_ns)) & ((ends > begin) | (stream.t_ns >= begin))
    spoken = np.flatnonzero(meets)
    lasts = np.where(rule.once, 1, last_tick - first_tick + 1)[spoken]  # ticks that each text is put into
    numbers = np.repeat(spoken, lasts)
    later = np.arange(len(numbers)) - np.repeat(np.cumsum(lasts) - lasts, lasts)
    ticks = first_tick[numbers] + later
    order = np.lexsort((numbers, ticks))
    ticks, numbers = ticks[order], numbers[order]
    first = np.searchsorted(ticks, np.arange(len(ticks_ns)), side="left")
    count = np.searchsorted(ticks, np.arange(len(ticks_ns)), side="right") - first
    status = np.where(count > 0, Status.OK, Status.MISSING if rule.required else Status.EMPTY)
    aligned = ticks_ns.copy()
    has = count > 0
    aligned[has] = stream.t_ns[numbers[first[has]]]
    zero = np.zeros(len(ticks_ns), np.int64)
    return Match(
        stream, rule, first, count, stream.items[numbers], aligned, zero, status.astype(np.uint8), zero
    )


def _mark_edges(
    status: NDArray[np.int64], absent: NDArray[np.bool_], stream: Aligned, wanted: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Absent items before a stream begins or after it ends are edges, not losses."""
    outside = (wanted < stream.t_ns[0]) | (wanted > stream.t_ns[-1])
    return np.where(absent & outside, Status.EDGE, status)


_POLICIES: dict[str, Callable[[Aligned, Rule, NDArray[np.int64], int], Match]] = {
    "exact": _exact,
    "nearest": _nearest,
    "interpolate": _interpolate,
    "hold": _hold,
    "window": _window,
    "overlap": _overlap,
}
