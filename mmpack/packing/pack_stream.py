"""Lengths that come one by one: rows out of a bounded pool."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import numpy as np

from mmpack.errors import DataError
from mmpack.packing.pack import check_capacity, check_range, length_error

T = TypeVar("T")

#: Search steps per row. A pool has few lengths, so a row seldom takes a tenth of it.
_ROW_STEPS = 20_000


class PackStream(Generic[T]):
    """An iterator of rows (lists of items) over an iterator of items; made by :func:`pack_stream`."""

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
        self._size = pool
        self._taken = 0
        self._pool = LengthPool(capacity)
        self._waiting: OrderedDict[int, tuple[T, int]] = OrderedDict()  # by number, oldest first
        self._same: defaultdict[int, deque[int]] = defaultdict(deque)  # by length: numbers, oldest first

    def __iter__(self) -> Iterator[list[T]]:
        return self

    def __next__(self) -> list[T]:
        while len(self._waiting) < self._size:
            try:
                item = next(self._items)
            except StopIteration:
                break
            self._put(item)
        if not self._waiting:
            raise StopIteration
        oldest = self._waiting[next(iter(self._waiting))][1]
        return [self._out(length) for length in self._pool.next_row(oldest, _ROW_STEPS)]

    def _put(self, item: T) -> None:
        length = self._length(item)
        if not isinstance(length, int | np.integer):
            raise DataError(f"length is {length!r}, not an integer", where=f"item {self._taken}")
        if not 0 <= length <= self._capacity:
            raise length_error(f"item {self._taken}", int(length), self._capacity)
        self._pool.add(int(length))
        self._same[int(length)].append(self._taken)
        self._waiting[self._taken] = item, int(length)
        self._taken += 1

    def _out(self, length: int) -> T:
        numbers = self._same[length]
        number = numbers.popleft()
        if not numbers:
            del self._same[length]
        return self._waiting.pop(number)[0]

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on from here.

        Returns:
            `capacity`, `pool`; `taken`, how many items were read; `waiting`, those of them that are in no row yet, oldest
            first. The items themselves are in it: it can be saved as they can.
        """
        return {
            "capacity": self._capacity,
            "pool": self._size,
            "taken": self._taken,
            "waiting": [item for item, _ in self._waiting.values()],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state: the rows to come are those that would have come.

        The stream must be new, and its items must start with number `state["taken"]`, the first that was not read.

        Raises:
            DataError: the stream has read items, or the state is from another capacity or pool.
        """
        if self._taken:
            raise DataError("the stream has read items already", hint="Load a state into a new stream.")
        for name, own in (("capacity", self._capacity), ("pool", self._size)):
            if state[name] != own:
                raise DataError(
                    f"the state has {name} {state[name]}, the stream {own}", hint=f"Use the same {name}."
                )
        self._taken = state["taken"] - len(state["waiting"])
        for item in state["waiting"]:
            self._put(item)


def pack_stream(
    items: Iterable[T],
    capacity: int,
    *,
    pool: int = 1000,
    length: Callable[[T], int] = len,  # type: ignore[assignment]
) -> PackStream[T]:
    """Pack items as they come.

    At most `pool` items wait. Every row has the oldest of them, so an item waits for at most `pool` rows. If that is
    short, the longest item that fits joins it; then the row is completed as in :func:`mmpack.packing.pack`. Of
    items of equal length the oldest goes first. Nothing is random.

    A pool should hold several rows: with few items in it, rows stay less full.

    Args:
        items: read one by one, never more than `pool` ahead of the rows.
        capacity: token places of a row.
        pool: items that may wait.
        length: tokens of an item, 0 to `capacity`.

    Returns:
        An iterator of rows, each a list of items; see :meth:`PackStream.state_dict` for saving it in mid-stream.

    Raises:
        DataError: while iterating: a length is not an integer, negative, or longer than a row; the item is named by
            its number.
        ConfigError: capacity or pool is out of range.
    """
    return PackStream(items, capacity, pool=pool, length=length)
