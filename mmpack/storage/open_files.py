"""Open local files, shared by threads: the most recently used stay open."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

#: Far below the 1,024 that a process may have open by default.
MAX_OPEN = 128
# One call reads no more than 2 GiB less a page, whatever it is asked for.
_MAX_CALL_BYTES = 0x7FFF_F000


class _OpenFile:
    __slots__ = ("handle", "kept", "users")

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.users = 0
        self.kept = True


class OpenFiles:
    """Descriptors of files that are read again and again.

    Args:
        limit: files that stay open; those in use at this moment may be more.
    """

    def __init__(self, limit: int = MAX_OPEN) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._files: OrderedDict[str, _OpenFile] = OrderedDict()

    def read_into(self, path: str, start: int, buffer: memoryview) -> int:
        """Fills `room` with the file's bytes from `start` on; how many there were. Raises OSError."""
        file = self._acquire(path)
        try:
            filled = os.preadv(file.handle, [buffer[:_MAX_CALL_BYTES]], start)
            got = filled
            while got and filled < len(buffer):
                got = os.preadv(file.handle, [buffer[filled : filled + _MAX_CALL_BYTES]], start + filled)
                filled += got
            return filled
        except OSError:
            self._invalidate(path, file)
            raise
        finally:
            self._release(file)

    def size(self, path: str) -> int:
        """Bytes of the file. Raises OSError."""
        file = self._acquire(path)
        try:
            return os.fstat(file.handle).st_size
        except OSError:
            self._invalidate(path, file)
            raise
        finally:
            self._release(file)

    def close(self) -> None:
        """Closes what is not in use, and the rest when it no longer is."""
        with self._lock:
            for path in list(self._files):
                self._evict(path)

    def _invalidate(self, path: str, file: _OpenFile) -> None:
        # A handle may be what is wrong (a network file system's goes stale): the next try opens anew.
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
        file.kept = False
        _close_unused(file)


def _close_unused(file: _OpenFile) -> None:
    if not file.kept and not file.users:
        os.close(file.handle)
