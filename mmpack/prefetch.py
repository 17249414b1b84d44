"""An ordered, bounded prefetcher over threads."""

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

#: Longest time that closing waits for results in progress; their threads end by themselves afterwards.
JOIN_TIMEOUT_S = 10.0


class Closeable(ABC):
    """A context manager that closes itself at the end of its `with` block."""

    @abstractmethod
    def close(self) -> None:
        """Releases the threads, processes and files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Prefetcher(Closeable, Generic[T, R]):
    """An iterator over `function(item)` for every item, in the order of `items`, computed ahead of time in threads.

    An exception of `function` is raised at the position of its result, and the iteration may continue after it. An
    exception of `items` is raised at its position and ends the iteration. A consumer that stops early calls
    :meth:`close` or drops its reference. At the exit of the interpreter, an open prefetcher is closed.

    Args:
        function: computes a result; several threads may call it at the same time. If it is Closeable, it is closed
            together with the prefetcher.
        items: iterator of items; any of the threads may advance it, one at a time.
        threads: number of threads; with 0, each result is computed when the consumer asks for it.
        depth: largest number of results that are finished or in progress ahead of the consumer.
    """

    def __init__(self, function: Callable[[T], R], items: Iterator[T], *, threads: int, depth: int) -> None:
        self._queue = _PrefetchQueue(function, items, depth)
        # Daemon threads, because the interpreter waits for all other threads before it runs the exit functions.
        self._threads = [
            threading.Thread(target=self._queue.run_worker, name=f"mmpack-prefetch-{index}", daemon=True)
            for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()
        self._finalizer = weakref.finalize(self, _close, self._queue, self._threads)

    def __iter__(self) -> Iterator[R]:
        return self

    def __next__(self) -> R:
        return self._queue.get() if self._threads else self._queue.compute_next()

    def close(self) -> None:
        """Ends the iteration and its threads. Waits for results in progress, at most `JOIN_TIMEOUT_S`."""
        self._finalizer()


class _Slot(Generic[R]):
    """An entry of the queue: one result, or the exception raised instead of it."""

    __slots__ = ("done", "error", "result")

    def __init__(self) -> None:
        self.done = False
        self.result: R | None = None
        self.error: BaseException | None = None


class _PrefetchQueue(Generic[T, R]):
    """The state that the threads and the consumer share.

    The queue holds no reference to the :class:`Prefetcher`, so that a prefetcher without references is garbage
    collected, and thereby closed, while its threads are running.
    """

    def __init__(self, function: Callable[[T], R], items: Iterator[T], depth: int) -> None:
        self.function = function
        self._items = items
        self._depth = depth
        self._items_lock = threading.Lock()
        # A re-entrant lock, because a garbage collection may close the queue in a thread that holds the lock.
        self._changed = threading.Condition(threading.RLock())
        self._slots: deque[_Slot[R]] = deque()
        self._exhausted = False
        self._closed = False

    def run_worker(self) -> None:
        while (pulled := self._pull()) is not None:
            slot, item = pulled
            try:
                self._finish_slot(slot, result=self.function(item))
            except BaseException as error:
                self._finish_slot(slot, error=error)
            # A thread that waits for a free slot must not keep the last item alive.
            del pulled, slot, item

    def _pull(self) -> tuple[_Slot[R], T] | None:
        """Returns the next item and its slot, or None at the end.

        Only one thread at a time pulls, so that items and slots have the same order.
        """
        with self._items_lock:
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
        """Waits for the next result and returns it. Raises StopIteration at the end and after closing."""
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

    def compute_next(self) -> R:
        """Computes the next result in the calling thread. Raises StopIteration at the end and after closing."""
        if self._closed:
            raise StopIteration
        return self.function(next(self._items))

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._slots.clear()
            self._changed.notify_all()


def _close(queue: _PrefetchQueue, threads: list[threading.Thread]) -> None:
    queue.close()
    # A garbage collection may close the prefetcher in one of its threads, which cannot join itself.
    if threading.current_thread() not in threads:
        deadline = time.monotonic() + JOIN_TIMEOUT_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    if isinstance(queue.function, Closeable):
        queue.function.close()
