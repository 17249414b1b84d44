"""The policy hold: the latest item at or before tick + offset."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.policies.match import MatchStatus, StreamMatch
from mmpack.sync.policies.policy import INSTANT_KINDS, JudgedBy, SyncPolicy
from mmpack.sync.policies.rule import MatchRule


def match_hold(
    stream: AlignedStream, rule: MatchRule, ticks_ns: NDArray[np.int64], tick_period_ns: int
) -> StreamMatch:
    """Matches each tick to the latest item at or before tick + offset, with the rows of its timestamp or burst.

    An item older than the limit of the rule has the status STALE.
    """
    target_ns = ticks_ns + rule.offset_ns
    stop = np.searchsorted(stream.t_ns, target_ns, side="right")
    has_value = stop > 0
    last = np.maximum(stop - 1, 0)
    first = stream.group_starts[np.searchsorted(stream.group_starts, last, side="right") - 1]
    residual = stream.t_ns[last] - target_ns
    is_stale = has_value & (-residual > rule.limit_ns)
    status = np.where(is_stale, MatchStatus.STALE, MatchStatus.OK)
    status = np.where(has_value, status, MatchStatus.EDGE)
    past_end = is_stale & (target_ns > stream.t_ns[-1] + stream.period_ns)
    status = np.where(past_end, MatchStatus.EDGE, status)
    usable = has_value & ~is_stale
    return StreamMatch(
        stream=stream,
        rule=rule,
        first=first,
        count=np.where(usable, stop - first, 0),
        items=stream.items,
        aligned_ns=np.where(usable, stream.t_ns[last], target_ns),
        residual_ns=np.where(usable, residual, 0),
        status=status.astype(np.uint8),
        judged_ns=np.where(has_value, -residual, 0),
    )


HOLD = SyncPolicy(
    name="hold",
    match=match_hold,
    judged_by=JudgedBy.AGE,
    kinds=INSTANT_KINDS - {"camera"},
    default_kinds=frozenset({"can", "action", "radar"}),
)
