"""The policy overlap: texts that overlap the window of a slice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.policies.match import MatchStatus, StreamMatch
from mmpack.sync.policies.policy import JudgedBy, SyncPolicy
from mmpack.sync.policies.rule import MatchRule


def match_overlap(
    stream: AlignedStream, rule: MatchRule, ticks_ns: NDArray[np.int64], tick_period_ns: int
) -> StreamMatch:
    """Matches each tick to the texts whose [start, end) overlaps [tick + offset − before, tick + offset + after).

    With `rule.once` a text is matched only to the first slice that it overlaps.
    """
    low, high = ticks_ns + rule.offset_ns - rule.before_ns, ticks_ns + rule.offset_ns + rule.after_ns
    ends = stream.t_ns if stream.end_ns is None else np.maximum(stream.end_ns, stream.t_ns)
    # A text of zero length still counts at its start.
    first_tick = np.searchsorted(high, stream.t_ns, side="right")
    last_tick = np.maximum(np.searchsorted(low, ends, side="left") - 1, first_tick)
    last_tick = np.minimum(last_tick, len(ticks_ns) - 1)
    begin = low[np.minimum(first_tick, len(ticks_ns) - 1)]
    has_tick = (first_tick < len(ticks_ns)) & ((ends > begin) | (stream.t_ns >= begin))
    matched = np.flatnonzero(has_tick)
    num_ticks = np.where(rule.once, 1, last_tick - first_tick + 1)[matched]  # per matched text
    texts = np.repeat(matched, num_ticks)
    tick_in_text = np.arange(len(texts)) - np.repeat(np.cumsum(num_ticks) - num_ticks, num_ticks)
    ticks = first_tick[texts] + tick_in_text
    order = np.lexsort((texts, ticks))
    ticks, texts = ticks[order], texts[order]
    first = np.searchsorted(ticks, np.arange(len(ticks_ns)), side="left")
    count = np.searchsorted(ticks, np.arange(len(ticks_ns)), side="right") - first
    status = np.where(count > 0, MatchStatus.OK, MatchStatus.MISSING if rule.required else MatchStatus.EMPTY)
    aligned = ticks_ns.copy()
    has_text = count > 0
    aligned[has_text] = stream.t_ns[texts[first[has_text]]]
    zero = np.zeros(len(ticks_ns), np.int64)
    return StreamMatch(
        stream=stream,
        rule=rule,
        first=first,
        count=count,
        items=stream.items[texts],
        aligned_ns=aligned,
        residual_ns=zero,
        status=status.astype(np.uint8),
        judged_ns=zero,
    )


OVERLAP = SyncPolicy(
    name="overlap",
    match=match_overlap,
    judged_by=JudgedBy.TEXT,
    kinds=frozenset({"text"}),
    default_kinds=frozenset({"text"}),
    kinds_message="policy = 'overlap' is only valid for text streams",
    plot_label="texts that overlap the slice",
)
