"""The item at the timestamp."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.policies.match import MatchStatus, StreamMatch, mark_edges
from mmpack.sync.policies.rule import MatchRule


def match_exact(
    stream: AlignedStream, rule: MatchRule, ticks_ns: NDArray[np.int64], tick_period_ns: int
) -> StreamMatch:
    """An item at the very stamp, or none."""
    wanted = ticks_ns + rule.offset_ns
    place = np.searchsorted(stream.t_ns, wanted)
    inside = np.minimum(place, len(stream.t_ns) - 1)
    hit = stream.t_ns[inside] == wanted
    status = mark_edges(np.where(hit, MatchStatus.OK, MatchStatus.MISSING), ~hit, stream, wanted)
    zero = np.zeros(len(wanted), np.int64)
    return StreamMatch(
        stream, rule, inside, hit.astype(np.int64), stream.items, wanted, zero, status.astype(np.uint8), zero
    )
