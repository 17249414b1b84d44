"""The policy nearest: the nearest item, one to one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.alignment.offsets import nearest_index
from mmpack.sync.policies.match import MatchStatus, StreamMatch, mark_edges
from mmpack.sync.policies.policy import INSTANT_KINDS, JudgedBy, SyncPolicy
from mmpack.sync.policies.rule import MatchRule


def match_nearest(
    stream: AlignedStream, rule: MatchRule, ticks_ns: NDArray[np.int64], tick_period_ns: int
) -> StreamMatch:
    """Matches each tick to the item nearest to tick + offset; an item serves only the tick that it is nearest to."""
    target_ns = ticks_ns + rule.offset_ns
    nearest = nearest_index(stream.t_ns, target_ns)
    residual = stream.t_ns[nearest] - target_ns
    distance = np.abs(residual)
    # An item further away than half a period belongs to another tick or to none.
    reach = min(period for period in (tick_period_ns, stream.period_ns or tick_period_ns) if period) // 2
    has_item = distance <= max(reach, rule.tolerance_ns)
    # If several ticks share a nearest item, the closest tick gets it, and of two equally close ticks the earlier.
    order = np.lexsort((np.arange(len(nearest)), distance, nearest))
    repeats = np.concatenate([[False], nearest[order][1:] == nearest[order][:-1]])
    has_item[order[repeats]] = False
    status = np.where(distance > rule.tolerance_ns, MatchStatus.OUT_OF_TOLERANCE, MatchStatus.OK)
    status = np.where(has_item, status, MatchStatus.MISSING)
    status = mark_edges(status, ~has_item, stream, target_ns)
    return StreamMatch(
        stream=stream,
        rule=rule,
        first=nearest,
        count=has_item.astype(np.int64),
        items=stream.items,
        aligned_ns=np.where(has_item, stream.t_ns[nearest], target_ns),
        residual_ns=np.where(has_item, residual, 0),
        status=status.astype(np.uint8),
        judged_ns=distance,
    )


NEAREST = SyncPolicy(
    name="nearest",
    match=match_nearest,
    judged_by=JudgedBy.RESIDUAL,
    kinds=INSTANT_KINDS,
    default_kinds=frozenset({"camera", "lidar", "event"}),
)
