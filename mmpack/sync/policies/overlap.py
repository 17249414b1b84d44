"""Texts that overlap the slice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.policies.match import MatchStatus, StreamMatch
from mmpack.sync.policies.rule import MatchRule


def match_overlap(
    stream: AlignedStream, rule: MatchRule, ticks_ns: NDArray[np.int64], tick_period_ns: int
) -> StreamMatch:
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
    status = np.where(count > 0, MatchStatus.OK, MatchStatus.MISSING if rule.required else MatchStatus.EMPTY)
    aligned = ticks_ns.copy()
    has = count > 0
    aligned[has] = stream.t_ns[numbers[first[has]]]
    zero = np.zeros(len(ticks_ns), np.int64)
    return StreamMatch(
        stream, rule, first, count, stream.items[numbers], aligned, zero, status.astype(np.uint8), zero
    )
