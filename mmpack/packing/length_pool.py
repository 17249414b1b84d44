"""The waiting lengths of a stream, and the next row made from them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mmpack.packing import bitset
from mmpack.packing.exact_fit import add_length, complete_row, remove_length


class LengthPool:
    """A multiset of lengths in [0, capacity].

    Args:
        capacity: number of positions of a row.
    """

    def __init__(self, capacity: int) -> None:
        self._remaining = np.zeros(capacity + 1, np.int64)
        self._available = bitset.make_bitset(capacity + 1)
        self._row = np.empty(16, np.int64)
        self._items = 0

    def add(self, length: int) -> None:
        """Adds a length."""
        _add(self._remaining, self._available, length)
        self._items += 1

    def next_row(self, head: int, max_steps: int) -> list[int]:
        """Removes the lengths of a row that contains `head`, and returns them; all lengths of 0 are among them.

        Args:
            head: a length in the pool.
            max_steps: largest number of search steps.
        """
        if self._items > self._row.size:
            self._row = np.empty(2 * self._items, np.int64)
        size = _next_row(self._remaining, self._available, self._row, head, max_steps)
        self._items -= size
        return self._row[:size].tolist()


@njit(cache=True)
def _add(remaining: Any, available: Any, length: int) -> None:
    if length > 0:
        add_length(remaining, available, length)
    else:
        remaining[0] += 1


@njit(cache=True, nogil=True)
def _next_row(remaining: Any, available: Any, row: NDArray[np.int64], head: int, max_steps: int) -> int:
    """Writes the lengths of the next row to `row` and returns their number."""
    size = 0
    gap = remaining.size - 1
    if head > 0:
        remove_length(remaining, available, head)
        row[0] = head
        size, gap = 1, gap - head
    # complete_row prefers two or three items that fill the gap exactly to one longer item. That is right for a long head.
    # For a short head it would leave the long items, which are the hardest to place, to the end.
    longest = bitset.previous_member(available, gap)
    if longest > head:
        remove_length(remaining, available, longest)
        row[size] = longest
        size, gap = size + 1, gap - longest
    gap, size, _ = complete_row(remaining, available, gap, row, size, max_steps)
    while remaining[0] > 0:
        remaining[0] -= 1
        row[size] = 0
        size += 1
    return size
