"""The six policies: which items of a stream belong to each tick, how far off they are, and why some are
missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.policies.rule import MatchRule


class MatchStatus(IntEnum):
    """What became of one stream at one tick."""

    OK = 0
    MISSING = 1
    OUT_OF_TOLERANCE = 2
    GAP = 3
    STALE = 4
    COVERAGE = 5
    EDGE = 6
    EMPTY = 7  # nothing there, and nothing had to be


@dataclass(frozen=True)
class StreamMatch:
    """One stream against all T ticks.

    Attributes:
        stream: the aligned stream.
        rule: how it was matched.
        first: int64, shape (T,). Where the tick's items start in `items` (for audio: the first sample).
        count: int64, shape (T,). How many items (samples) the tick has; 0 where there are none.
        items: int64. Item numbers in file order that `first` and `count` address; empty for audio, whose
            items are samples.
        aligned_ns: int64, shape (T,). Stamp of the tick's (first) item on the reference's clock; of the tick
            where it has none.
        residual_ns: int64, shape (T,). aligned_ns − tick − offset; 0 where a value is computed for the tick
            itself.
        status: uint8, shape (T,), of :class:`MatchStatus`.
        measure_ns: int64, shape (T,). What the status was judged by: |residual|, gap between neighbours, age,
            or missing time.
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
        """The stream's name."""
        return self.stream.name

    @property
    def has_item(self) -> NDArray[np.bool_]:
        """bool, shape (T,): ticks that have an item, good or bad, to measure a residual on."""
        return self.count > 0


def mark_edges(
    status: NDArray[np.int64], absent: NDArray[np.bool_], stream: AlignedStream, ticks_ns: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Absent items before a stream begins or after it ends are edges, not losses."""
    outside = (ticks_ns < stream.t_ns[0]) | (ticks_ns > stream.t_ns[-1])
    return np.where(absent & outside, MatchStatus.EDGE, status)
