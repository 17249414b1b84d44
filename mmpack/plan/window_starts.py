"""Window starts, recorded on disk, so that a row that was planned once can be planned again without its predecessors."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from pathlib import Path

import numpy as np

from mmpack.plan.state import WindowCursor

logger = logging.getLogger(__name__)

_CHECKSUM_BYTES = 8


class WindowStarts:
    """The window starts of a plan, by window number.

    The file has the starts of windows 1, 2, ... without gaps, in records of equal size. Every process that plans a window
    records the start of the next window. All processes write the same bytes at the same offsets, so they need not
    coordinate. A record ends with a checksum of its content and window number. A record that is incomplete, or that a
    crash of the machine left as zeros, is ignored and is written again by the next process that plans its window.

    Args:
        path: path of the file; None to keep the window starts in memory only.
        datasets: number of data sets of the plan.
    """

    def __init__(self, path: Path | None, datasets: int) -> None:
        self._path = path
        self._num_datasets = datasets
        self._record_bytes = 16 * datasets + _CHECKSUM_BYTES
        self._is_writable = path is not None
        self._starts: dict[int, WindowCursor] = {0: WindowCursor.initial(datasets)}

    def get(self, window: int) -> WindowCursor | None:
        """Returns the start of a window, or None if it is not known."""
        if window not in self._starts and self._path is not None and window <= self._last_recorded():
            self._read(self._path, window)
        return self._starts.get(window)

    def nearest(self, window: int) -> tuple[int, WindowCursor]:
        """Returns the last window up to `window` whose start is known, and its start."""
        start = self.get(window)
        if start is not None:
            return window, start
        recorded = min(self._last_recorded(), window)
        while recorded and self.get(recorded) is None:
            recorded -= 1
        nearest = max(recorded, max(number for number in self._starts if number <= window))
        return nearest, self._starts[nearest]

    def record(self, window: int, start: WindowCursor) -> None:
        """Records the start of a window that was planned."""
        if window in self._starts:
            return
        self._starts[window] = start
        if self._path is None or not self._is_writable:
            return
        try:
            self._write(self._path, window, start)
        except OSError as error:
            logger.warning("the file of window starts %s cannot be written (%s)", self._path, error.strerror)
            self._is_writable = False

    def trust(self, window: int, start: WindowCursor) -> None:
        """Takes over the start of a window from a state. It holds for this process and is not written to the file."""
        self._starts.setdefault(window, start)

    def _last_recorded(self) -> int:
        """Returns the number of the last window in the file; 0 if there is none."""
        try:
            return self._path.stat().st_size // self._record_bytes if self._path is not None else 0
        except OSError:
            return 0

    def _read(self, path: Path, window: int) -> None:
        try:
            with path.open("rb") as file:
                record = os.pread(file.fileno(), self._record_bytes, (window - 1) * self._record_bytes)
        except OSError:
            return
        content = record[:-_CHECKSUM_BYTES]
        if len(record) == self._record_bytes and record == content + _record_checksum(window, content):
            counts = np.frombuffer(content, "<i8").tolist()
            n = self._num_datasets
            self._starts[window] = WindowCursor(tuple(counts[:n]), tuple(counts[n:]))

    def _write(self, path: Path, window: int, start: WindowCursor) -> None:
        content = np.array([*start.documents, *start.tokens], "<i8").tobytes()
        record = content + _record_checksum(window, content)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # A process that resumed knows its own window, but perhaps not those before it. It may overwrite an
            # incomplete record of a killed process, but must not leave a gap.
            if os.fstat(descriptor).st_size // self._record_bytes >= window - 1:
                os.pwrite(descriptor, record, (window - 1) * self._record_bytes)
        finally:
            os.close(descriptor)


def _record_checksum(window: int, content: bytes) -> bytes:
    """Computes the checksum of a record, which depends on the window number and the content."""
    return hashlib.blake2b(content, digest_size=_CHECKSUM_BYTES, salt=window.to_bytes(16, "little")).digest()
