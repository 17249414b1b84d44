"""A bounded cache of samples on a local disk, shared by all processes that use the same folder."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from isal.isal_zlib import crc32 as compute_crc32

from mmpack.plan.planned_rows import PlannedSample
from mmpack.serialisation import canonical_json

logger = logging.getLogger(__name__)

_FOLDER = re.compile(r"[0-9a-f]{2}")
_ENTRY = re.compile(r"[0-9a-f]{64}")
_UNFINISHED = re.compile(r"aside-[A-Za-z0-9_]{8}")
#: Unfinished files of killed processes are removed after this time.
_STALE_S = 3600.0
#: An eviction leaves this share of the limit, so that the next entry does not trigger another one.
_EVICTION_TARGET = 0.9
_LOCK_TIMEOUT_S = 0.2
_PAGE_BYTES = 4096


def cache_entry_name(url: str, sample: PlannedSample) -> str:
    """Returns the entry name of a sample: sha256 of the shard set's URL, the location and the checksum."""
    location = (url, sample.shard, sample.offset_bytes, sample.size_bytes, sample.crc32)
    return hashlib.sha256(canonical_json(location)).hexdigest()


class DiskCache:
    """A cache on disk that maps entry names to the bytes of samples.

    An entry is a file `<2 hex digits>/<64 hex digits>`. It is written under a temporary name and then renamed. The
    file `total` holds the size of all entries; a process locks it while it adds to the size or evicts entries.
    Modification times record when an entry was last used. Only entries and unfinished entries are ever removed.

    If the cache cannot be written, one warning is logged, and the cache is only read from then on.

    Args:
        folder: folder of the cache; created when the first entry is written.
        limit_bytes: largest size of all entries on the disk. Entries that are being written while another process
            evicts may exceed it.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._writable = True

    def get(self, name: str, size_bytes: int, crc32: int) -> bytes | None:
        """Returns the bytes of an entry, or None if it does not exist or is damaged. A damaged entry is removed."""
        path = self._path(name)
        try:
            with path.open("rb", buffering=0) as file:
                # The size is checked before reading, because a damaged entry may be arbitrarily large.
                data = file.read() if os.fstat(file.fileno()).st_size == size_bytes else None
                with suppress(OSError):  # a read-only cache can still be read
                    os.utime(file.fileno())
        except OSError:
            return None
        if data is not None and compute_crc32(data) == crc32:
            return data
        with suppress(OSError):
            path.unlink()
        return None

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Stores `data` as an entry, if the cache can be written."""
        cost = _disk_bytes(len(data))
        path = self._path(name)
        if not self._writable or cost > self._limit_bytes or path.exists():
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if self._reserve(cost):
                _write_and_publish(path, data)
        except OSError as error:
            self._writable = False
            logger.warning(
                "the cache %s cannot be written (%s); continuing without new entries",
                self._folder,
                error.strerror or error,
            )

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name

    def _reserve(self, cost: int) -> bool:
        """Adds `cost` to the total, evicting entries if needed. Returns False if the lock times out.

        The entry is counted before it is written, so that a process that is killed in between leaves the total too
        high, never too low.
        """
        with lock_file(self._folder / "total") as handle:
            if handle is None:
                return False
            try:
                total = int(os.pread(handle, 32, 0))
            except ValueError:  # the file is new, or was truncated by a power failure
                total = self._evict(self._limit_bytes)
            if total + cost > self._limit_bytes:
                total = self._evict(int(self._limit_bytes * _EVICTION_TARGET) - cost)
            os.pwrite(handle, b"%032d" % (total + cost), 0)
        return True

    def _evict(self, down_to_bytes: int) -> int:
        """Removes the least recently used entries until at most `down_to_bytes` are left. Returns the size left."""
        entries = sorted(self._entries())
        total = sum(cost for _, cost, _ in entries)
        for _, cost, path in entries:
            if total <= down_to_bytes:
                break
            path.unlink(missing_ok=True)
            total -= cost
        return total

    def _entries(self) -> Iterator[tuple[int, int, Path]]:
        """Yields (time of last use in ns, size on disk in bytes, path) of every entry; removes old unfinished files."""
        stale_before_ns = time.time_ns() - int(_STALE_S * 1e9)
        for folder in os.scandir(self._folder):
            # Links are not followed, because their targets do not belong to the cache.
            if not (_FOLDER.fullmatch(folder.name) and folder.is_dir(follow_symlinks=False)):
                continue
            for file in os.scandir(folder.path):
                is_entry = _ENTRY.fullmatch(file.name) is not None
                if not (is_entry or _UNFINISHED.fullmatch(file.name)):
                    continue
                try:
                    stat = file.stat(follow_symlinks=False)
                except FileNotFoundError:  # renamed or removed after the folder was listed
                    continue
                if not is_entry and stat.st_mtime_ns < stale_before_ns:
                    Path(file.path).unlink(missing_ok=True)
                elif is_entry:
                    yield stat.st_mtime_ns, _disk_bytes(stat.st_size), Path(file.path)


def _disk_bytes(size_bytes: int) -> int:
    """Returns the size in whole pages."""
    return -(-size_bytes // _PAGE_BYTES) * _PAGE_BYTES


def _write_and_publish(path: Path, data: bytes | memoryview) -> None:
    # No fsync is needed: an entry that a power failure damaged fails its checksum.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix="aside-")
    try:
        with os.fdopen(handle, "wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def lock_file(path: Path) -> Iterator[int | None]:
    """Locks `path` against other processes and other threads of this process.

    The file is opened anew, because the lock belongs to the open file.

    Yields:
        The file descriptor, or None if the lock is not available within `_LOCK_TIMEOUT_S`: a missing cache entry is
        better than a row that waits.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        is_locked = False
        while not is_locked and time.monotonic() < deadline:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_locked = True
            except BlockingIOError:
                time.sleep(0.001)
        yield handle if is_locked else None
    finally:
        os.close(handle)
