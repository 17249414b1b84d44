"""Simple, slow reference implementations, and checks that every packing must pass."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from mmpack.packing import Packing


def check_packing(packing: Packing, lengths: NDArray[np.integer]) -> None:
    """Checks that every item is in exactly one row, that no row is empty or over capacity, and that all counts are right."""
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
    """Returns the number of rows of the textbook version of best fit decreasing."""
    gaps: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [gap for gap in gaps if gap >= length]
        if fitting:
            gaps.remove(min(fitting))
        gaps.append((min(fitting) if fitting else capacity) - length)
    return len(gaps)


def count_optimal_rows(lengths: list[int], capacity: int) -> int:
    """Returns the number of rows of an optimal packing by exhaustive search; for a few items only."""

    @cache
    def optimal(left: tuple[int, ...]) -> int:
        if not left:
            return 0
        head, others = left[0], left[1:]
        best = len(left)
        for chosen in range(1 << len(others)):
            same_row = [other for bit, other in enumerate(others) if chosen >> bit & 1]
            if head + sum(same_row) <= capacity:
                rest = tuple(other for bit, other in enumerate(others) if not chosen >> bit & 1)
                best = min(best, 1 + optimal(rest))
        return best

    return optimal(tuple(sorted((length for length in lengths if length), reverse=True)))
