"""Prefetching of rows in worker processes, with the same order and limits as in threads.

A worker builds as many rows at a time as it has threads. Each of its threads has a socket to this process, where one
thread waits on it. So the threads that wait for a dead worker notice its end by themselves, without a monitor.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import queue
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmpack.errors import MmpackError
from mmpack.plan.planned_rows import PlannedRow
from mmpack.prefetch import Closeable, Prefetcher
from mmpack.stream.workers.transport import ERROR, REQUEST, SETUP, receive, send, unpack_row
from mmpack.stream.workers.worker import RowFunction, RowResult

logger = logging.getLogger(__name__)

#: A row during which so many workers died is most likely the cause of their deaths.
MAX_TRIES = 3

# The worker takes over the parent's `sys.path`, so that it finds the same modules. Unlike multiprocessing, it does not
# run the parent's main script again, so that scripts need no `if __name__ == "__main__"`.
_WORKER_SCRIPT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from mmpack.stream.workers.worker import run_worker
run_worker(*map(int, sys.argv[2:]))
"""


class ProcessPrefetcher(Closeable):
    """An iterator over the rows of `items`, in their order, built ahead of time in worker processes.

    An error of a row is raised in place of the row: an MmpackError as it is, any other error as an MmpackError that
    quotes it. A worker that dies is replaced, and its rows are built again, at most `MAX_TRIES` times. Workers end with
    this process, however it ends.

    The arrays of a row are writable memory that the worker wrote. The memory is freed with the last of the arrays.

    Args:
        setup: factory of the row function, called once in every worker. It is pickled, so it must be a function or class
            of an importable module, or an object of such a class; the main script is not importable.
        items: planned rows.
        workers: number of worker processes.
        threads: number of rows that each worker builds at a time.
        depth: largest number of rows that are being built or wait for the consumer.
    """

    def __init__(
        self,
        setup: Callable[[], RowFunction],
        items: Iterator[PlannedRow],
        *,
        workers: int,
        threads: int,
        depth: int,
    ) -> None:
        pool = _WorkerPool(setup, workers, threads)
        self._prefetcher = Prefetcher(pool.build_row, items, threads=workers * threads, depth=depth)
        self._closing = weakref.finalize(self, _close, pool, self._prefetcher)

    def __iter__(self) -> Iterator[RowResult]:
        return self

    def __next__(self) -> RowResult:
        return next(self._prefetcher)

    def close(self) -> None:
        """Ends the iteration, the workers and the threads that wait for them."""
        self._closing()


def _close(pool: _WorkerPool, prefetcher: Prefetcher) -> None:
    pool.stop()
    prefetcher.close()
    pool.close()


class _WorkerPool(Closeable):
    """The worker processes and the proxies of their threads; as many threads may call it as there are proxies."""

    def __init__(self, setup: Callable[[], RowFunction], workers: int, threads: int) -> None:
        pickled_setup = pickle.dumps(setup)
        self._threads: queue.SimpleQueue[_WorkerThread] = queue.SimpleQueue()
        self._workers: list[_WorkerProcess] = []
        try:
            for _ in range(workers):
                self._workers.append(_WorkerProcess(pickled_setup, threads))
        except BaseException:
            self.stop()
            raise
        # The workers alternate in the queue, so that the first rows go to different workers.
        for index in range(threads):
            for worker in self._workers:
                self._threads.put(_WorkerThread(worker, index))

    def build_row(self, planned: PlannedRow) -> RowResult:
        # This never waits, because no more threads call it than there are proxies.
        thread = self._threads.get()
        try:
            return thread.build_row(planned)
        finally:
            self._threads.put(thread)

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop()

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


class _WorkerThread:
    """The proxy of one thread of a worker; one thread uses it at a time."""

    def __init__(self, worker: _WorkerProcess, index: int) -> None:
        self._worker = worker
        self._index = index
        self._pipe: socket.socket | None = None

    def build_row(self, planned: PlannedRow) -> RowResult:
        request = msgspec.msgpack.encode(planned)
        for _ in range(MAX_TRIES):
            generation, pipe = self._worker.connection(self._index)
            if self._pipe is not None and self._pipe is not pipe:
                # The socket of a replaced process is closed here, where no thread can be waiting on it.
                self._pipe.close()
            self._pipe = pipe
            answer = _exchange(pipe, request)
            if answer is not None:
                kind, data = answer
                if kind == ERROR:
                    raise pickle.loads(data.data)
                return unpack_row(data)
            self._worker.replace(generation, planned.number)
        raise MmpackError(
            f"{MAX_TRIES} workers died while they built this row ({self._worker.cause})",
            where=f"row {planned.number}",
            hint="Too little memory is the usual cause: use fewer reader.workers, reader.threads or reader.prefetch.",
        )


def _exchange(pipe: socket.socket, request: bytes) -> tuple[bytes, NDArray[np.uint8]] | None:
    """Sends a request and waits for the answer; None if the worker died."""
    with suppress(ConnectionError):
        send(pipe, REQUEST, [request])
        return receive(pipe)
    return None


class _WorkerProcess(Closeable):
    """A worker process, or the process that replaced it.

    Attributes:
        cause: exit code or signal of the process that died last; empty before.
    """

    def __init__(self, setup: bytes, threads: int) -> None:
        self._setup = setup
        self._threads = threads
        self._lock = threading.Lock()
        self._stopped = False
        self._generation = 0
        self.cause = ""
        self._start()

    def connection(self, index: int) -> tuple[int, socket.socket]:
        """Returns the number of replacements so far, and the socket of the thread `index` of the current process."""
        with self._lock:
            return self._generation, self._pipes[index]

    def replace(self, generation: int, row: int) -> None:
        """Replaces the dead process of `generation`, unless another thread has replaced it already.

        Raises:
            MmpackError: the pool was stopped.
        """
        with self._lock:
            if self._stopped:
                raise MmpackError("the stream was closed", where=f"row {row}")
            if generation != self._generation:
                return
            self._process.kill()
            code = self._process.wait()
            self.cause = f"signal {-code}" if code < 0 else f"exit code {code}"
            logger.warning(
                "a worker died (%s) while it built row %d; the row is built again", self.cause, row
            )
            self._control.close()
            self._start()
            self._generation += 1

    def stop(self) -> None:
        """Kills the process, which also wakes the threads that wait for it."""
        with self._lock:
            self._stopped = True
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Closes the sockets. No thread may use them any more."""
        for pipe in (self._control, *self._pipes):
            pipe.close()

    def _start(self) -> None:
        ends = [socket.socketpair() for _ in range(1 + self._threads)]
        child_fds = [end.fileno() for _, end in ends]
        path = json.dumps([str(entry) for entry in sys.path])
        arguments = [str(number) for number in (os.getpid(), *child_fds)]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _WORKER_SCRIPT, path, *arguments],
                pass_fds=child_fds,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        finally:
            for _, end in ends:
                end.close()
        self._control, *self._pipes = (end for end, _ in ends)
        # If the process is dead already, the first thread that waits for it notices.
        with suppress(ConnectionError):
            send(self._control, SETUP, [self._setup])
