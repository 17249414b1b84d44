"""Making rows ahead of time in worker processes, with the same order and bounds as in threads.

Every worker has as many threads, and sockets to this process, as it makes rows at a time; here, one thread waits on
each. So a dead worker is noticed by those who wait for it, and nobody else has to look.
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
from mmpack.plan.planned import PlannedRow
from mmpack.prefetch import Closeable, Prefetcher
from mmpack.stream.workers.transport import ERROR, REQUEST, SETUP, receive, send, unpack_row
from mmpack.stream.workers.worker import RowFunction, RowResult

logger = logging.getLogger(__name__)

#: A row that three workers died of is not the victim but the cause.
MAX_TRIES = 3

# The parent's module path comes first: a worker finds what the parent found. Its script is not run again, as
# multiprocessing would, so that no script needs a guard.
_WORKER_SCRIPT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from mmpack.stream.workers.worker import run_worker
run_worker(*map(int, sys.argv[2:]))
"""


class ProcessPrefetcher(Closeable):
    """Iterates over the rows of `items`, in their order, made ahead in worker processes.

    What making a row raises is raised in its place: a MmpackError as itself, anything else as a MmpackError that says
    what it was. A worker that dies is replaced, and what it was making is made again, at most `MAX_TRIES` times.
    Workers end with this process, however it ends.

    The rows' arrays are writable memory that their worker wrote; it is freed with the last of them.

    Args:
        setup: called once in every worker for what makes rows there. It is pickled, so it is a function or class of a
            module, or an object of such a class; not of the script that is run.
        items: the planned rows.
        workers: processes.
        threads: rows that each of them makes at a time.
        depth: at most so many rows are made or in the making ahead of the consumer.
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


class _WorkerPool:
    def __init__(self, setup: Callable[[], RowFunction], workers: int, threads: int) -> None:
        told = pickle.dumps(setup)
        self._threads: queue.SimpleQueue[_WorkerThread] = queue.SimpleQueue()
        self._workers: list[_WorkerProcess] = []
        try:
            for _ in range(workers):
                self._workers.append(_WorkerProcess(told, threads))
        except BaseException:
            self.stop()
            raise
        # The first rows go to different workers.
        for number in range(threads):
            for worker in self._workers:
                self._threads.put(_WorkerThread(worker, number))

    def build_row(self, planned: PlannedRow) -> RowResult:
        lane = self._threads.get()  # there are as many as threads that call this
        try:
            return lane.build_row(planned)
        finally:
            self._threads.put(lane)

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop()

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


class _WorkerThread:
    """One of a worker's threads, seen from here; used by one thread at a time."""

    def __init__(self, worker: _WorkerProcess, number: int) -> None:
        self._worker = worker
        self._number = number
        self._pipe: socket.socket | None = None

    def build_row(self, planned: PlannedRow) -> RowResult:
        asked = msgspec.msgpack.encode(planned)
        for _ in range(MAX_TRIES):
            life, pipe = self._worker.connection(self._number)
            if self._pipe is not None and self._pipe is not pipe:
                self._pipe.close()  # of a former life; here, where nobody can be waiting on it
            self._pipe = pipe
            answer = _request(pipe, asked)
            if answer is not None:
                kind, data = answer
                if kind == ERROR:
                    raise pickle.loads(data.data)
                return unpack_row(data)
            self._worker.replace(life, planned.number)
        raise MmpackError(
            f"{MAX_TRIES} workers died of it ({self._worker.cause})",
            where=f"row {planned.number}",
            hint="Too little memory is the usual cause: use fewer reader.workers, reader.threads or reader.prefetch.",
        )


def _request(pipe: socket.socket, asked: bytes) -> tuple[bytes, NDArray[np.uint8]] | None:
    with suppress(ConnectionError):
        send(pipe, REQUEST, [asked])
        return receive(pipe)
    return None


class _WorkerProcess:
    """A worker process and those that replace it."""

    def __init__(self, setup: bytes, threads: int) -> None:
        self._setup = setup
        self._threads = threads
        self._lock = threading.Lock()
        self._stopped = False
        self._life = 0
        self.cause = ""
        self._start()

    def connection(self, number: int) -> tuple[int, socket.socket]:
        """Which of its lives this is, and the socket of a thread in it."""
        with self._lock:
            return self._life, self._pipes[number]

    def replace(self, life: int, row: int) -> None:
        """Starts another process, unless that was done since."""
        with self._lock:
            if self._stopped:
                raise MmpackError("closed", where=f"row {row}")
            if life != self._life:
                return
            self._process.kill()
            code = self._process.wait()
            self.cause = f"signal {-code}" if code < 0 else f"exit code {code}"
            logger.warning("a worker died (%s) while row %d was made; making it again", self.cause, row)
            self._control.close()
            self._start()
            self._life += 1

    def stop(self) -> None:
        """Ends the process, so that whoever waits for it waits no longer."""
        with self._lock:
            self._stopped = True
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Frees the sockets; nobody uses them any more."""
        for pipe in (self._control, *self._pipes):
            pipe.close()

    def _start(self) -> None:
        ends = [socket.socketpair() for _ in range(1 + self._threads)]
        theirs = [end.fileno() for _, end in ends]
        path = json.dumps([str(entry) for entry in sys.path])
        numbers = [str(number) for number in (os.getpid(), *theirs)]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _WORKER_SCRIPT, path, *numbers],
                pass_fds=theirs,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        finally:
            for _, end in ends:
                end.close()
        self._control, *self._pipes = (end for end, _ in ends)
        with suppress(ConnectionError):  # it is dead already: the first to wait for it will see
            send(self._control, SETUP, [self._setup])
