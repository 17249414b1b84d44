"""The latest item."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.policies.match import MatchStatus, StreamMatch
from mmpack.sync.policies.rule import MatchRule


def match_hold(
    stream: AlignedStream, rule: MatchRule, ticks_ns: NDArray[np.int64], tick_period_ns: int
) -> StreamMatch:
    """The latest item at or before tick + offset with the rows of its stamp or burst, unless it is too old."""
    wanted = ticks_ns + rule.offset_ns
    stop = np.searchsorted(stream.t_ns, wanted, side="right")
    known = stop > 0
    last = np.maximum(stop - 1, 0)
    first = stream.group_starts[np.searchsorted(stream.group_starts, last, side="right") - 1]
    residual = stream.t_ns[last] - wanted
    stale = known & (-residual > rule.limit_ns)
    status = np.where(stale, MatchStatus.STALE, MatchStatus.OK)
    status = np.where(known, status, MatchStatus.EDGE)
    past_end = stale & (wanted > stream.t_ns[-1] + stream.period_ns)
    status = np.where(past_end, MatchStatus.EDGE, status)
    usable = known & ~stale
    return StreamMatch(
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
