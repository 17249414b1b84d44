"""The lengths that wait in a stream, and the next row out of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mmpack.packing import bitset
from mmpack.packing.exact_fit import add_length, complete_row, remove_length


class LengthPool:
    """Lengths in [0, capacity], each as often as it was added."""

    def __init__(self, capacity: int) -> None:
        self._left = np.zeros(capacity + 1, np.int64)
        self._have = bitset.make_bitset(capacity + 1)
        self._row = np.empty(16, np.int64)
        self._items = 0

    def add(self, length: int) -> None:
        """Put a length in."""
        _add(self._left, self._have, length)
        self._items += 1

    def next_row(self, head: int, limit: int) -> list[int]:
        """Take out a row with `head` in it: its lengths. All that are 0 go along."""
        if self._items > self._row.size:
            self._row = np.empty(2 * self._items, np.int64)
        size = _next_row(self._left, self._have, self._row, head, limit)
        self._items -= size
        return self._row[:size].tolist()


@njit(cache=True)
def _add(remaining: Any, have: Any, length: int) -> None:
    if length > 0:
        add_length(remaining, have, length)
    else:
        remaining[0] += 1


@njit(cache=True, nogil=True)
def _next_row(remaining: Any, have: Any, row: NDArray[np.int64], head: int, limit: int) -> int:
    """Write the lengths of the next row to `row`; returns how many."""
    size = 0
    hole = remaining.size - 1
    if head > 0:
        remove_length(remaining, have, head)
        row[0] = head
        size, hole = 1, hole - head
    # Two or three items that complete the row exactly are preferred to one that is longer. That is right beside a
    # long item; beside a short one it would leave the long items, which are hardest to place, to the end.
    longest = bitset.previous_member(have, hole)
    if longest > head:
        remove_length(remaining, have, longest)
        row[size] = longest
        size, hole = size + 1, hole - longest
    hole, size, _ = complete_row(remaining, have, hole, row, size, limit)
    while remaining[0] > 0:
        remaining[0] -= 1
        row[size] = 0
        size += 1
    return size
