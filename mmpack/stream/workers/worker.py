"""A worker process: makes the rows that its parent asks for, and ends with it."""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import MmpackError
from mmpack.plan.planned import PlannedRow
from mmpack.quarantine import UnreadableSample
from mmpack.rows.row import Row
from mmpack.serialisation import from_msgpack
from mmpack.stream.workers.transport import ERROR, REQUEST, ROW, SETUP, pack_row, receive, send

RowResult: TypeAlias = tuple[Row, list[UnreadableSample]]
"""A row and its unreadable samples."""
RowFunction: TypeAlias = Callable[[PlannedRow], RowResult]
"""Makes a row; called by several threads at a time."""

_WATCH_MS = 500


def run_worker(parent: int, control: int, *lanes: int) -> None:
    """Runs the worker until its parent is gone.

    Args:
        parent: process id.
        control: descriptor of the socket that the setup comes through, and whose end tells the parent's.
        lanes: descriptors of sockets; a thread serves each.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    pipe = socket.socket(fileno=control)
    message = receive(pipe)
    if message is not None and message[0] == SETUP:
        # In a thread of its own, so that the parent's end is noticed during a long setup too.
        threading.Thread(target=_serve_threads, args=(message[1], lanes), daemon=True).start()
        _wait_for_parent_exit(pipe, parent)
    # At once, whatever the threads are doing: nobody waits for what they make, and they hold nothing to be put down.
    os._exit(0)


def _wait_for_parent_exit(pipe: socket.socket, parent: int) -> None:
    watched = select.poll()
    watched.register(pipe, select.POLLIN)
    # A process that the parent forked may hold the other end open for longer than the parent lives.
    while not watched.poll(_WATCH_MS) and os.getppid() == parent:
        pass


def _serve_threads(setup: NDArray[np.uint8], num_threads: tuple[int, ...]) -> None:
    make: RowFunction | None = None
    failure: MmpackError | None = None
    try:
        # From the parent that started this process, through a socket that nobody else has.
        make = pickle.loads(setup.data)()
    except Exception as error:
        failure = _as_mmpack_error(error, "setting up a worker")
    for lane in num_threads:
        threading.Thread(target=_serve_thread, args=(make, failure, lane), daemon=True).start()


def _serve_thread(function: RowFunction | None, failure: MmpackError | None, connection: int) -> None:
    pipe = socket.socket(fileno=connection)
    try:
        while (message := receive(pipe)) is not None and message[0] == REQUEST:
            try:
                if function is None:
                    assert failure is not None
                    raise failure
                planned = from_msgpack(message[1].data, PlannedRow)
                send(pipe, ROW, pack_row(*function(planned)))
            except ConnectionError:
                raise
            except Exception as error:
                send(pipe, ERROR, [pickle.dumps(_as_mmpack_error(error, "making a row"))])
    except OSError:
        # No parent, or no descriptor even to say that there is none.
        os._exit(1)


def _as_mmpack_error(error: Exception, where: str) -> MmpackError:
    """The error itself, or in one line what is none of ours."""
    if isinstance(error, MmpackError):
        return error
    if isinstance(error, MemoryError):
        return MmpackError("out of memory", where=where, hint="Use fewer reader.workers or reader.threads.")
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    return MmpackError(f"unexpected {type(error).__name__}: {error} ({place})", where=where)
