"""Learns nominal offsets from a recording as robust medians; a build stores them in its manifest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.alignment.ticks import Ticks, consensus_ticks

# Medians of medians converge in the first round; two more rounds are a margin.
_ROUNDS = 3


def learn_offset(ticks_ns: NDArray[np.int64], stream: AlignedStream, period_ns: int) -> int:
    """Returns the robust median of item time minus nearest tick, in ns, in [−period/2, period/2); 0 without items.

    An item half a period from the ticks is as often nearest to the tick before as to the tick after. Distances are
    therefore taken modulo the period around one of them, not around zero: if half of the items are half a period early
    and half of them half a period late, the mean of the two middle distances would be zero.
    """
    nearest = ticks_ns[nearest_index(ticks_ns, stream.t_ns)]
    distance = stream.t_ns - nearest
    distance = distance[np.abs(distance) <= period_ns]
    if not len(distance):
        return 0
    centre = int(np.sort(distance)[len(distance) // 2])
    wrapped = _wrap_to_period(distance - centre, period_ns)
    return int(_wrap_to_period(np.array([centre + int(np.median(wrapped))]), period_ns)[0])


def learn_group_offsets(
    group: Sequence[AlignedStream], explicit_ns: Sequence[int | None]
) -> tuple[list[int], Ticks]:
    """Learns the offsets of a group relative to its own consensus.

    Members with an explicit offset keep it. Without any explicit offset the median of the offsets is set to zero,
    which puts the tick at the middle of the timestamps.

    Args:
        group: members, all with the same rate.
        explicit_ns: explicit offset of each member in ns, or None.

    Returns:
        (offset of each member in ns, consensus ticks).
    """
    period_ns = int(np.median([member.period_ns for member in group]))
    anchored = [index for index, offset in enumerate(explicit_ns) if offset is not None]
    # The member with the most items has lost the fewest, so it is the best initial estimate of the ticks.
    first = anchored[0] if anchored else max(range(len(group)), key=lambda index: len(group[index].t_ns))
    origin = group[first].t_ns - (explicit_ns[first] or 0)
    offsets = [
        learn_offset(origin, member, period_ns) if offset is None else offset
        for member, offset in zip(group, explicit_ns, strict=True)
    ]
    for _ in range(_ROUNDS):
        if not anchored:
            middle = sorted(offsets)
            shift = (middle[(len(middle) - 1) // 2] + middle[len(middle) // 2]) // 2
            offsets = [offset - shift for offset in offsets]
        ticks = consensus_ticks(group, offsets)
        for index, member in enumerate(group):
            if explicit_ns[index] is None:
                offsets[index] += learn_offset(ticks.t_ns + offsets[index], member, period_ns)
    return offsets, consensus_ticks(group, offsets)


def nearest_index(sorted_ns: NDArray[np.int64], t_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns for each of `t_ns` the index of the nearest of `sorted_ns` (ascending, not empty); of two equally
    near ones the earlier.
    """
    right = np.clip(np.searchsorted(sorted_ns, t_ns), 1, max(len(sorted_ns) - 1, 1))
    right = np.minimum(right, len(sorted_ns) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(t_ns - sorted_ns[left] <= sorted_ns[right] - t_ns, left, right)


def _wrap_to_period(distance_ns: NDArray[np.int64], period_ns: int) -> NDArray[np.int64]:
    """Returns the distances modulo the period, in [−period/2, period/2)."""
    half = period_ns // 2
    return (distance_ns + half) % max(period_ns, 1) - half
