"""Plain, slow ways to what the package computes fast, and checks all packings pass."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from mmpack.packing import Packing


def check_packing(packing: Packing, lengths: NDArray[np.integer]) -> None:
    """Every item in exactly one row, no row empty or over capacity, numbers true."""
    assert packing.ids.dtype == packing.offsets.dtype == np.int64
    assert sorted(packing.ids.tolist()) == list(range(len(lengths)))
    assert packing.offsets[0] == 0
    assert packing.offsets[-1] == len(lengths)
    assert (np.diff(packing.offsets) > 0).all()
    for row in range(packing.rows):
        assert int(lengths[packing.row(row)].sum()) <= packing.capacity
    assert packing.tokens == int(np.sum(lengths, dtype=np.int64))
    assert packing.excess_rows >= 0
    assert 0 <= packing.fill <= packing.fill_bound <= 1


def best_fit_decreasing(lengths: list[int], capacity: int) -> int:
    """Rows of the textbook's best fit decreasing."""
    holes: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [hole for hole in holes if hole >= length]
        if fitting:
            holes.remove(min(fitting))
        holes.append((min(fitting) if fitting else capacity) - length)
    return len(holes)


def fewest_rows(lengths: list[int], capacity: int) -> int:
    """Rows of an optimal packing, by trying; for a few items."""

    @cache
    def fewest(left: tuple[int, ...]) -> int:
        if not left:
            return 0
        head, others = left[0], left[1:]
        best = len(left)
        for chosen in range(1 << len(others)):
            beside = [other for bit, other in enumerate(others) if chosen >> bit & 1]
            if head + sum(beside) <= capacity:
                rest = tuple(other for bit, other in enumerate(others) if not chosen >> bit & 1)
                best = min(best, 1 + fewest(rest))
        return best

    return fewest(tuple(sorted((length for length in lengths if length), reverse=True)))
