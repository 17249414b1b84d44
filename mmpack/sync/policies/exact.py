"""The policy exact: the item with the timestamp tick + offset."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.policies.match import MatchStatus, StreamMatch, mark_edges
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
        stream,
        rule,
        first,
        hit.astype(np.int64),
        stream.items,
        target_ns,
        zero,
        status.astype(np.uint8),
        zero,
    )
