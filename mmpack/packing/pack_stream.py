"""Packing of items that arrive one by one, with a bounded pool of waiting items."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import numpy as np

from mmpack.errors import DataError
from mmpack.packing.pack import check_capacity, check_range, length_error

T = TypeVar("T")

#: Largest number of search steps per row. A pool has few lengths, so a row seldom needs a tenth of them.
_MAX_ROW_STEPS = 20_000


class PackStream(Generic[T]):
    """An iterator of rows (lists of items) over an iterator of items; :func:`pack_stream` creates it."""

    def __init__(
        self,
        items: Iterable[T],
        capacity: int,
        *,
        pool: int = 1000,
        length: Callable[[T], int] = len,  # type: ignore[assignment]
    ) -> None:
        from mmpack.packing.length_pool import LengthPool

        check_capacity(capacity)
        check_range("pool", pool, 1, 1 << 31)
        self._items = iter(items)
        self._length = length
        self._capacity = capacity
        self._max_waiting = pool
        self._num_read = 0
        self._pool = LengthPool(capacity)
        self._waiting: OrderedDict[int, tuple[T, int]] = OrderedDict()  # by item number, oldest first
        self._numbers_by_length: defaultdict[int, deque[int]] = defaultdict(deque)  # oldest first

    def __iter__(self) -> Iterator[list[T]]:
        return self

    def __next__(self) -> list[T]:
        while len(self._waiting) < self._max_waiting:
            try:
                item = next(self._items)
            except StopIteration:
                break
            self._add(item)
        if not self._waiting:
            raise StopIteration
        oldest = self._waiting[next(iter(self._waiting))][1]
        return [self._remove_oldest(length) for length in self._pool.next_row(oldest, _MAX_ROW_STEPS)]

    def _add(self, item: T) -> None:
        length = self._length(item)
        if not isinstance(length, int | np.integer):
            raise DataError(f"length is {length!r}, not an integer", where=f"item {self._num_read}")
        if not 0 <= length <= self._capacity:
            raise length_error(f"item {self._num_read}", int(length), self._capacity)
        self._pool.add(int(length))
        self._numbers_by_length[int(length)].append(self._num_read)
        self._waiting[self._num_read] = item, int(length)
        self._num_read += 1

    def _remove_oldest(self, length: int) -> T:
        numbers = self._numbers_by_length[length]
        number = numbers.popleft()
        if not numbers:
            del self._numbers_by_length[length]
        return self._waiting.pop(number)[0]

    def state_dict(self) -> dict[str, Any]:
        """Returns the state that is needed to resume the stream at this point.

        Returns:
            `capacity` and `pool`; `taken`: number of items that were read; `waiting`: those of them that are in no row yet,
            oldest first. The state contains the items themselves, so it can be saved if the items can be saved.
        """
        return {
            "capacity": self._capacity,
            "pool": self._max_waiting,
            "taken": self._num_read,
            "waiting": [item for item, _ in self._waiting.values()],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes from a saved state: the next rows are the rows that would have followed it.

        The stream must be new, and its items must start with item number `state["taken"]` (counted from 0), the first item
        that was not read.

        Raises:
            DataError: the stream has read items, or the state has another capacity or pool.
        """
        if self._num_read:
            raise DataError("the stream has already read items", hint="Load the state into a new stream.")
        for name, current in (("capacity", self._capacity), ("pool", self._max_waiting)):
            if state[name] != current:
                raise DataError(
                    f"the state has {name} {state[name]}, the stream has {current}",
                    hint=f"Use the same {name}.",
                )
        self._num_read = state["taken"] - len(state["waiting"])
        for item in state["waiting"]:
            self._add(item)


def pack_stream(
    items: Iterable[T],
    capacity: int,
    *,
    pool: int = 1000,
    length: Callable[[T], int] = len,  # type: ignore[assignment]
) -> PackStream[T]:
    """Packs items in the order in which they arrive.

    At most `pool` items wait. Every row contains the oldest waiting item, so an item waits for at most `pool` rows. If items
    longer than the oldest one fit into the rest of the row, the longest of them is added; then the row is completed as in
    :func:`mmpack.packing.pack`. Of items of equal length the oldest is taken first. Nothing is random.

    A pool should hold the items of several rows: rows are less full if the pool is small.

    Args:
        items: items, read one by one; at most `pool` items are read that are not in a row yet.
        capacity: number of positions of a row.
        pool: largest number of waiting items.
        length: function that returns the number of tokens of an item, 0 to `capacity`.

    Returns:
        An iterator of rows, each a list of items; :meth:`PackStream.state_dict` saves it in mid-stream.

    Raises:
        DataError: while iterating, a length is not an integer, is negative, or is longer than a row; the message names the
            number of the item, counted from 0.
        ConfigError: capacity or pool is out of range.
    """
    return PackStream(items, capacity, pool=pool, length=length)
