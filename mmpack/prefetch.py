"""Making things ahead of time in threads: in order, a bounded number, and never left hanging."""

from __future__ import annotations

import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, Self, TypeVar

T = TypeVar("T")
R = TypeVar("R")

#: What closing waits at most for things in the making; their threads end by themselves after.
JOIN_TIMEOUT_S = 10.0


class _Slot(Generic[R]):
    """The place of one result."""

    __slots__ = ("done", "error", "result")

    def __init__(self) -> None:
        self.done = False
        self.result: R | None = None
        self.error: BaseException | None = None


class _PrefetchQueue(Generic[T, R]):
    """What threads and consumer share. It does not know the consumer, which so can be forgotten and closed."""

    def __init__(self, make: Callable[[T], R], items: Iterator[T], depth: int) -> None:
        self._make = make
        self._items = items
        self._depth = depth
        self._pulling = threading.Lock()
        # A re-entrant lock: a garbage collection may close the line in a thread that holds it.
        self._changed = threading.Condition(threading.RLock())
        self._slots: deque[_Slot[R]] = deque()
        self._exhausted = False
        self._closed = False

    def run_worker(self) -> None:
        while (pulled := self._pull()) is not None:
            slot, item = pulled
            try:
                self._finish_slot(slot, result=self._make(item))
            except BaseException as error:
                self._finish_slot(slot, error=error)
            del pulled, slot, item  # nothing is kept while waiting for room

    def _pull(self) -> tuple[_Slot[R], T] | None:
        """The next item and its place; None at the end. One thread at a time: items and places are in one order."""
        with self._pulling:
            with self._changed:
                while len(self._slots) >= self._depth and not self._closed:
                    self._changed.wait()
                if self._closed or self._exhausted:
                    return None
            slot: _Slot[R] = _Slot()
            try:
                item = next(self._items)
            except StopIteration:
                self._end(None)
                return None
            except BaseException as error:
                slot.error, slot.done = error, True
                self._end(slot)
                return None
            with self._changed:
                self._slots.append(slot)
            return slot, item

    def _end(self, last: _Slot[R] | None) -> None:
        with self._changed:
            if last is not None:
                self._slots.append(last)
            self._exhausted = True
            self._changed.notify_all()

    def _finish_slot(
        self, slot: _Slot[R], *, result: R | None = None, error: BaseException | None = None
    ) -> None:
        with self._changed:
            slot.result, slot.error, slot.done = result, error, True
            self._changed.notify_all()

    def get(self) -> R:
        with self._changed:
            while not (self._slots[0].done if self._slots else self._exhausted) and not self._closed:
                self._changed.wait()
            if self._closed or not self._slots:
                raise StopIteration
            slot = self._slots.popleft()
            self._changed.notify_all()
        if slot.error is not None:
            raise slot.error
        return slot.result  # pyright: ignore[reportReturnType]

    def make_next(self) -> R:
        """The next result, made here and now."""
        if self._closed:
            raise StopIteration
        return self._make(next(self._items))

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._slots.clear()
            self._changed.notify_all()


class Prefetcher(Generic[T, R]):
    """Iterates over `make(item)` for every item, in the order of `items`, made ahead in threads.

    What `make` raises is raised in its result's place; iterating may go on behind it. What `items` raises ends it.
    A consumer that stops early calls :meth:`close`, or just forgets it; at the interpreter's exit it is closed too.

    Args:
        make: called in any of the threads, by several at a time.
        items: advanced in any of the threads, by one at a time.
        threads: how many; 0: each result is made when it is asked for.
        depth: at most so many items are made or in the making ahead of the consumer.
    """

    def __init__(self, function: Callable[[T], R], items: Iterator[T], *, threads: int, depth: int) -> None:
        self._line = _PrefetchQueue(function, items, depth)
        # Daemons: the interpreter waits for others before it tells anybody that it is about to exit.
        self._threads = [
            threading.Thread(target=self._line.run_worker, name=f"mmpack-ahead-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()
        self._closing = weakref.finalize(self, _close, self._line, self._threads)

    def __iter__(self) -> Iterator[R]:
        return self

    def __next__(self) -> R:
        return self._line.get() if self._threads else self._line.make_next()

    def close(self) -> None:
        """Ends the iteration and its threads. Waits for what is in the making, but not for ever."""
        self._closing()

    def __enter__(self) -> Prefetcher[T, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _close(line: _PrefetchQueue, threads: list[threading.Thread]) -> None:
    line.close()
    if threading.current_thread() in threads:  # a garbage collection in the midst of one
        return
    until = time.monotonic() + JOIN_TIMEOUT_S
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))


class Closeable(ABC):
    """Closes itself at the end of a `with`."""

    @abstractmethod
    def close(self) -> None:
        """Ends it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
