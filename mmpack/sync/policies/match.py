"""StreamMatch and MatchStatus, the result of a sync policy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.policies.rule import MatchRule


class MatchStatus(IntEnum):
    """The status of one stream at one tick."""

    OK = 0
    MISSING = 1
    OUT_OF_TOLERANCE = 2
    GAP = 3
    STALE = 4
    COVERAGE = 5
    EDGE = 6
    EMPTY = 7  # no item, and the stream is optional


@dataclass(frozen=True, kw_only=True)
class StreamMatch:
    """The match of one stream to all T ticks.

    Attributes:
        stream: the aligned stream.
        rule: match rule of the stream.
        first: int64, shape (T,), index in `items` of the first item of each tick; for audio the index of the first
            audio sample.
        count: int64, shape (T,), number of items (audio samples) of each tick.
        items: int64, indices of items in file order, addressed by `first` and `count`; empty for audio.
        aligned_ns: int64, shape (T,), timestamp of the first item of each tick on the reference's clock; for a tick
            without items the time at which an item was expected.
        residual_ns: int64, shape (T,), aligned_ns − tick − offset; 0 where a value is computed for the tick itself
            or spans an interval.
        status: uint8, shape (T,), values of :class:`MatchStatus`.
        judged_ns: int64, shape (T,), quantity that decides the status: |residual|, gap between neighbours, age, or
            missing time; 0 where the policy has none.
    """

    stream: AlignedStream
    rule: MatchRule
    first: NDArray[np.int64]
    count: NDArray[np.int64]
    items: NDArray[np.int64]
    aligned_ns: NDArray[np.int64]
    residual_ns: NDArray[np.int64]
    status: NDArray[np.uint8]
    judged_ns: NDArray[np.int64]

    @property
    def name(self) -> str:
        """The name of the stream."""
        return self.stream.name

    @property
    def has_item(self) -> NDArray[np.bool_]:
        """The mask of ticks that have an item, whatever their status; bool, shape (T,)."""
        return self.count > 0


def mark_edges(
    status: NDArray[np.int64], absent: NDArray[np.bool_], stream: AlignedStream, ticks_ns: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Returns `status` with EDGE for absent items before the first or after the last timestamp of the stream."""
    is_outside = (ticks_ns < stream.t_ns[0]) | (ticks_ns > stream.t_ns[-1])
    return np.where(absent & is_outside, MatchStatus.EDGE, status)
