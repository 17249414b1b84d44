"""Starts of windows, kept on disk, so that any row that was once planned is found again at once."""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path

import numpy as np

from mmpack.stream.plan.state import Cursors

logger = logging.getLogger(__name__)


class Ledger:
    """Window starts by number; in the file those from 1 on, without gaps, in records of one size.

    Every process that plans a window enters where the next one starts. All write the same bytes at the same places,
    so it does not matter who does.

    Args:
        path: of the file; None keeps the ledger in memory.
        datasets: how many cursors a start has.
    """

    def __init__(self, path: Path | None, datasets: int) -> None:
        self._path = path
        self._datasets = datasets
        self._bytes = 16 * datasets
        self._known: dict[int, Cursors] = {0: Cursors.first(datasets)}

    def get(self, window: int) -> Cursors | None:
        """Where a window starts, if that is known."""
        if window not in self._known and self._path is not None:
            self._read(self._path, window)
        return self._known.get(window)

    def nearest(self, window: int) -> tuple[int, Cursors]:
        """The last known window at or before `window`, and its start."""
        last = min(self._written(), window)
        if last and self.get(last) is None:
            last = 0
        found = max(last, max(number for number in self._known if number <= window))
        return found, self._known[found]

    def put(self, window: int, cursors: Cursors) -> None:
        """Enters where a window starts."""
        if window in self._known:
            return
        self._known[window] = cursors
        if self._path is None:
            return
        try:
            self._append(self._path, window, cursors)
        except OSError as error:
            logger.warning("the ledger %s cannot be written (%s)", self._path, error.strerror)
            self._path = None

    def _written(self) -> int:
        """The last window in the file; 0 if there is none."""
        try:
            return self._path.stat().st_size // self._bytes if self._path is not None else 0
        except OSError:
            return 0

    def _read(self, path: Path, window: int) -> None:
        try:
            with path.open("rb") as file:
                record = os.pread(file.fileno(), self._bytes, (window - 1) * self._bytes)
        except OSError:
            return
        if len(record) == self._bytes:
            numbers = np.frombuffer(record, "<i8").tolist()
            n = self._datasets
            self._known[window] = Cursors(tuple(numbers[:n]), tuple(numbers[n:]))

    def _append(self, path: Path, window: int, cursors: Cursors) -> None:
        record = np.array([*cursors.documents, *cursors.tokens], "<i8").tobytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            # A resumed run knows its own window and not those before it, so only what continues the file is
            # written: over a record that a killed writer left unfinished, never behind a gap.
            if os.fstat(handle).st_size // self._bytes == window - 1:
                os.pwrite(handle, record, (window - 1) * self._bytes)
        finally:
            os.close(handle)
