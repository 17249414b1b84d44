"""The policy interpolate: the two neighbours of tick + offset."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.policies.match import MatchStatus, StreamMatch
from mmpack.sync.policies.policy import JudgedBy, SyncPolicy
from mmpack.sync.policies.rule import MatchRule


def match_interpolate(
    stream: AlignedStream, rule: MatchRule, ticks_ns: NDArray[np.int64], tick_period_ns: int
) -> StreamMatch:
    """Matches each tick to the two neighbours of tick + offset, or to one item with exactly that timestamp.

    Neighbours further apart than the limit of the rule have the status GAP.
    """
    target_ns = ticks_ns + rule.offset_ns
    right = np.searchsorted(stream.t_ns, target_ns, side="left")
    exact = (right < len(stream.t_ns)) & (stream.t_ns[np.minimum(right, len(stream.t_ns) - 1)] == target_ns)
    left = np.where(exact, right, right - 1)
    between = (left >= 0) & (right < len(stream.t_ns))
    low, high = np.maximum(left, 0), np.minimum(right, len(stream.t_ns) - 1)
    gap = stream.t_ns[high] - stream.t_ns[low]
    status = np.where(gap > rule.limit_ns, MatchStatus.GAP, MatchStatus.OK)
    status = np.where(between, status, MatchStatus.EDGE)
    usable = between & (gap <= rule.limit_ns)
    count = np.where(usable, np.where(exact, 1, 2), 0)
    zero = np.zeros(len(target_ns), np.int64)
    return StreamMatch(
        stream=stream,
        rule=rule,
        first=low,
        count=count,
        items=stream.items,
        aligned_ns=target_ns,
        residual_ns=zero,
        status=status.astype(np.uint8),
        judged_ns=gap,
    )


INTERPOLATE = SyncPolicy(
    name="interpolate",
    match=match_interpolate,
    judged_by=JudgedBy.COMPUTED,
    kinds=frozenset({"imu", "can", "action", "numeric"}),
    default_kinds=frozenset({"imu", "numeric"}),
    kinds_message="{kind} stream has no values to interpolate",
    plot_label="interpolated at the tick",
)
