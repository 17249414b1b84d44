"""The nearest item, one to one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.alignment.offsets import nearest_index
from mmpack.sync.policies.match import MatchStatus, StreamMatch, mark_edges
from mmpack.sync.policies.rule import MatchRule


def match_nearest(
    stream: AlignedStream, rule: MatchRule, ticks_ns: NDArray[np.int64], tick_period_ns: int
) -> StreamMatch:
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
    status = np.where(distance > rule.tolerance_ns, MatchStatus.OUT_OF_TOLERANCE, MatchStatus.OK)
    status = np.where(taken, status, MatchStatus.MISSING)
    status = mark_edges(status, ~taken, stream, wanted)
    return StreamMatch(
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
