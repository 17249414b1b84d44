"""The policy exact: the item with the timestamp tick + offset."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.policies.match import MatchStatus, StreamMatch, mark_edges
from mmpack.sync.policies.policy import INSTANT_KINDS, JudgedBy, SyncPolicy
from mmpack.sync.policies.rule import MatchRule


def match_exact(
    stream: AlignedStream, rule: MatchRule, ticks_ns: NDArray[np.int64], tick_period_ns: int
) -> StreamMatch:
    """Matches each tick to the item whose timestamp equals tick + offset."""
    target_ns = ticks_ns + rule.offset_ns
    first = np.minimum(np.searchsorted(stream.t_ns, target_ns), len(stream.t_ns) - 1)
    hit = stream.t_ns[first] == target_ns
    status = mark_edges(np.where(hit, MatchStatus.OK, MatchStatus.MISSING), ~hit, stream, target_ns)
    zero = np.zeros(len(target_ns), np.int64)
    return StreamMatch(
        stream=stream,
        rule=rule,
        first=first,
        count=hit.astype(np.int64),
        items=stream.items,
        aligned_ns=target_ns,
        residual_ns=zero,
        status=status.astype(np.uint8),
        judged_ns=zero,
    )


EXACT = SyncPolicy(
    name="exact",
    match=match_exact,
    judged_by=JudgedBy.EQUALITY,
    kinds=INSTANT_KINDS,
    plot_label="timestamp is the tick",
)
