"""A worker process: builds the rows that its parent requests, and ends with its parent."""

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
from mmpack.plan.planned_rows import PlannedRow
from mmpack.quarantine import UnreadableSample
from mmpack.rows.row import Row
from mmpack.serialisation import from_msgpack
from mmpack.stream.workers.transport import ERROR, REQUEST, ROW, SETUP, pack_row, receive, send

RowResult: TypeAlias = tuple[Row, list[UnreadableSample]]
"""A row and its unreadable samples."""
RowFunction: TypeAlias = Callable[[PlannedRow], RowResult]
"""A function that builds a row; several threads call it at the same time."""

_WATCH_MS = 500


def run_worker(parent: int, control: int, *connections: int) -> None:
    """Runs the worker until its parent ends.

    Args:
        parent: process id of the parent.
        control: descriptor of the socket that carries the setup. Its end shows that the parent has ended.
        connections: descriptors of the sockets that carry requests and rows. One thread serves each.
    """
    # The parent handles Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe = socket.socket(fileno=control)
    message = receive(pipe)
    if message is not None and message[0] == SETUP:
        # The setup runs in a thread of its own, so that the end of the parent is also noticed during a long setup.
        threading.Thread(target=_serve_connections, args=(message[1], connections), daemon=True).start()
        _wait_for_parent_exit(pipe, parent)
    # The process ends at once, because nobody waits for the rows in progress, and the threads hold nothing to clean up.
    os._exit(0)


def _wait_for_parent_exit(pipe: socket.socket, parent: int) -> None:
    watched = select.poll()
    watched.register(pipe, select.POLLIN)
    # The end of the socket is not enough: a process that the parent forked may keep it open longer than the parent lives.
    while not watched.poll(_WATCH_MS) and os.getppid() == parent:
        pass


def _serve_connections(setup: NDArray[np.uint8], connections: tuple[int, ...]) -> None:
    function: RowFunction | None = None
    failure: MmpackError | None = None
    try:
        # Unpickling is safe: the data comes from the parent, through a socket that no other process has.
        function = pickle.loads(setup.data)()
    except Exception as error:
        failure = _as_mmpack_error(error, "setting up a worker")
    for connection in connections:
        threading.Thread(target=_serve_connection, args=(function, failure, connection), daemon=True).start()


def _serve_connection(function: RowFunction | None, failure: MmpackError | None, connection: int) -> None:
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
                send(pipe, ERROR, [pickle.dumps(_as_mmpack_error(error, "building a row"))])
    except OSError:
        # The parent has ended, or no descriptor is left to send even an error.
        os._exit(1)


def _as_mmpack_error(error: Exception, where: str) -> MmpackError:
    """Returns `error` if it is an MmpackError, else an MmpackError that quotes it in one line."""
    if isinstance(error, MmpackError):
        return error
    if isinstance(error, MemoryError):
        return MmpackError("out of memory", where=where, hint="Use fewer reader.workers or reader.threads.")
    last = traceback.extract_tb(error.__traceback__)[-1]
    location = f"{Path(last.filename).name}:{last.lineno}"
    return MmpackError(f"unexpected {type(error).__name__}: {error} ({location})", where=where)
