"""A cache of open local files for several threads: the most recently used files stay open."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

#: Largest number of cached files, far below the 1,024 files that a process may have open by default.
MAX_OPEN = 128
# Linux reads at most this many bytes (2 GiB less one page) per call, see preadv(2).
_MAX_CALL_BYTES = 0x7FFF_F000


class _OpenFile:
    __slots__ = ("handle", "is_cached", "users")

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.users = 0
        self.is_cached = True


class OpenFiles:
    """A cache of descriptors of files that are read again and again.

    Args:
        limit: largest number of cached files. Files in use stay open in addition.
    """

    def __init__(self, limit: int = MAX_OPEN) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._files: OrderedDict[str, _OpenFile] = OrderedDict()

    def read_into(self, path: str, start: int, buffer: memoryview) -> int:
        """Fills `buffer` with the bytes of the file, starting at `start`.

        Returns:
            Number of bytes read; less than the size of the buffer if the file ends earlier.

        Raises:
            OSError: the file cannot be opened or read.
        """
        file = self._acquire(path)
        try:
            filled = os.preadv(file.handle, [buffer[:_MAX_CALL_BYTES]], start)
            num_read = filled
            while num_read and filled < len(buffer):
                num_read = os.preadv(file.handle, [buffer[filled : filled + _MAX_CALL_BYTES]], start + filled)
                filled += num_read
            return filled
        except OSError:
            self._invalidate(path, file)
            raise
        finally:
            self._release(file)

    def size(self, path: str) -> int:
        """Returns the size of the file in bytes. Raises OSError."""
        file = self._acquire(path)
        try:
            return os.fstat(file.handle).st_size
        except OSError:
            self._invalidate(path, file)
            raise
        finally:
            self._release(file)

    def close(self) -> None:
        """Closes every unused file now, and the other files at the end of their use."""
        with self._lock:
            for path in list(self._files):
                self._evict(path)

    def _invalidate(self, path: str, file: _OpenFile) -> None:
        # The handle itself may be invalid (stale on a network file system), so the next try opens the file again.
        with self._lock:
            if self._files.get(path) is file:
                self._evict(path)

    def _release(self, file: _OpenFile) -> None:
        with self._lock:
            file.users -= 1
            _close_unused(file)

    def _acquire(self, path: str) -> _OpenFile:
        with self._lock:
            file = self._files.get(path)
            if file is None:
                file = self._files[path] = _OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            self._files.move_to_end(path)
            file.users += 1
            while len(self._files) > self._limit:
                self._evict(next(iter(self._files)))
            return file

    def _evict(self, path: str) -> None:
        file = self._files.pop(path)
        file.is_cached = False
        _close_unused(file)


def _close_unused(file: _OpenFile) -> None:
    if not file.is_cached and not file.users:
        os.close(file.handle)
