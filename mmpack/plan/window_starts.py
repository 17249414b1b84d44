"""Starts of windows, kept on disk, so that any row that was once planned is found again at once."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from pathlib import Path

import numpy as np

from mmpack.plan.state import WindowCursor

logger = logging.getLogger(__name__)

_CHECK_BYTES = 8


class WindowStarts:
    """Window starts by number; in the file those from 1 on, without gaps, in records of one size.

    Every process that plans a window enters where the next one starts. All write the same bytes at the same places,
    so it does not matter who does. A record ends with a check of itself and its number: one that was torn, or that a
    crash of the machine left as zeros, is not believed, and is written again by whoever plans its window.

    Args:
        path: of the file; None keeps the ledger in memory.
        datasets: how many cursors a start has.
    """

    def __init__(self, path: Path | None, datasets: int) -> None:
        self._path = path
        self._datasets = datasets
        self._bytes = 16 * datasets + _CHECK_BYTES
        self._writes = path is not None
        self._known: dict[int, WindowCursor] = {0: WindowCursor.initial(datasets)}

    def get(self, window: int) -> WindowCursor | None:
        """Where a window starts, if that is known."""
        if window not in self._known and self._path is not None and window <= self._written():
            self._read(self._path, window)
        return self._known.get(window)

    def nearest(self, window: int) -> tuple[int, WindowCursor]:
        """The last known window at or before `window`, and its start."""
        known = self.get(window)
        if known is not None:
            return window, known
        last = min(self._written(), window)
        while last and self.get(last) is None:
            last -= 1
        found = max(last, max(number for number in self._known if number <= window))
        return found, self._known[found]

    def record(self, window: int, cursors: WindowCursor) -> None:
        """Enters where a window starts, as it was planned."""
        if window in self._known:
            return
        self._known[window] = cursors
        if self._path is None or not self._writes:
            return
        try:
            self._write(self._path, window, cursors)
        except OSError as error:
            logger.warning("the ledger %s cannot be written (%s)", self._path, error.strerror)
            self._writes = False

    def trust(self, window: int, cursors: WindowCursor) -> None:
        """Takes a window's start on the word of a state: for this process, not for the file."""
        self._known.setdefault(window, cursors)

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
        content = record[:-_CHECK_BYTES]
        if len(record) == self._bytes and record == content + _record_checksum(window, content):
            numbers = np.frombuffer(content, "<i8").tolist()
            n = self._datasets
            self._known[window] = WindowCursor(tuple(numbers[:n]), tuple(numbers[n:]))

    def _write(self, path: Path, window: int, cursors: WindowCursor) -> None:
        content = np.array([*cursors.documents, *cursors.tokens], "<i8").tobytes()
        record = content + _record_checksum(window, content)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            # A resumed run knows its own window and not those before it: over a record that a killed writer left
            # unfinished, never behind a gap.
            if os.fstat(handle).st_size // self._bytes >= window - 1:
                os.pwrite(handle, record, (window - 1) * self._bytes)
        finally:
            os.close(handle)


def _record_checksum(window: int, content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_CHECK_BYTES, salt=window.to_bytes(16, "little")).digest()
