"""A bounded cache of samples on a local disk, shared by all processes that are given its folder."""

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

from isal.isal_zlib import crc32 as crc32_of

from mmpack.plan.planned import PlannedSample
from mmpack.serialisation import canonical_json

logger = logging.getLogger(__name__)

_FOLDER = re.compile(r"[0-9a-f]{2}")
_ENTRY = re.compile(r"[0-9a-f]{64}")
_ASIDE = re.compile(r"aside-[A-Za-z0-9_]{8}")
#: What a killed process left unfinished is removed after this time.
_STALE_S = 3600.0
#: Space that an eviction makes, so that it is not the next entry's turn again.
_EVICTION_TARGET = 0.9
_LOCK_TIMEOUT_S = 0.2
_PAGE_BYTES = 4096


def cache_entry_name(url: str, sample: PlannedSample) -> str:
    """Name of a sample's entry: sha256 of its build, its place and its checksum."""
    place = (url, sample.shard, sample.offset_bytes, sample.size_bytes, sample.crc32)
    return hashlib.sha256(canonical_json(place)).hexdigest()


class DiskCache:
    """Samples' bytes by the names of their entries.

    An entry is a file `<2 digits>/<64 digits>`, written aside and renamed. A file `total` holds how much there is; its
    lock is what processes wait for while one of them adds to it or evicts. Times of change say what was used last.
    Nothing but entries and unfinished entries is ever removed.

    A cache that cannot be written is said once and then only read.

    Args:
        folder: made when the first entry is written.
        limit_bytes: what the entries may take on the disk. Those in the writing while another process evicts may
            come on top.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._writable = True

    def get(self, name: str, size_bytes: int, crc32: int) -> bytes | None:
        """The entry's bytes; None if there is none or it was damaged, in which case it is gone now."""
        path = self._path(name)
        try:
            with path.open("rb", buffering=0) as file:
                # The size is looked at first: a damaged entry may be of any.
                data = file.read() if os.fstat(file.fileno()).st_size == size_bytes else None
                with suppress(OSError):  # a read-only cache still serves
                    os.utime(file.fileno())
        except OSError:
            return None
        if data is not None and crc32_of(data) == crc32:
            return data
        with suppress(OSError):
            path.unlink()
        return None

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Keeps `data` as the entry, if the cache can be written."""
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
                "the cache %s cannot be written (%s): going on without new entries",
                self._folder,
                error.strerror or error,
            )

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name

    def _reserve(self, cost: int) -> bool:
        """Adds to the total, after making room; False if others keep it locked.

        The entry is counted before it is written: a process that is killed in between leaves the total too high,
        never too low.
        """
        with _lock_file(self._folder / "total") as handle:
            if handle is None:
                return False
            try:
                total = int(os.pread(handle, 32, 0))
            except ValueError:  # new, or cut short by a power failure
                total = self._evict(self._limit_bytes)
            if total + cost > self._limit_bytes:
                total = self._evict(int(self._limit_bytes * _EVICTION_TARGET) - cost)
            os.pwrite(handle, b"%032d" % (total + cost), 0)
        return True

    def _evict(self, down_to_bytes: int) -> int:
        """Removes the least recently used entries until no more than this is left; returns what is left."""
        entries = sorted(self._entries())
        total = sum(cost for _, cost, _ in entries)
        for _, cost, path in entries:
            if total <= down_to_bytes:
                break
            path.unlink(missing_ok=True)
            total -= cost
        return total

    def _entries(self) -> Iterator[tuple[int, int, Path]]:
        """(time of last use in ns, cost, path) of every entry; removes what was left unfinished long ago."""
        long_ago_ns = time.time_ns() - int(_STALE_S * 1e9)
        for folder in os.scandir(self._folder):
            # Links are not followed: what they lead to is not the cache's.
            if not (_FOLDER.fullmatch(folder.name) and folder.is_dir(follow_symlinks=False)):
                continue
            for file in os.scandir(folder.path):
                is_entry = _ENTRY.fullmatch(file.name) is not None
                if not (is_entry or _ASIDE.fullmatch(file.name)):
                    continue
                try:
                    stat = file.stat(follow_symlinks=False)
                except FileNotFoundError:  # renamed or removed since it was listed
                    continue
                if not is_entry and stat.st_mtime_ns < long_ago_ns:
                    Path(file.path).unlink(missing_ok=True)
                elif is_entry:
                    yield stat.st_mtime_ns, _disk_bytes(stat.st_size), Path(file.path)


def _disk_bytes(size_bytes: int) -> int:
    return -(-size_bytes // _PAGE_BYTES) * _PAGE_BYTES


def _write_and_publish(path: Path, data: bytes | memoryview) -> None:
    # Not fsynced: what a power failure leaves of an entry fails its checksum.
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix="aside-")
    try:
        with os.fdopen(handle, "wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


@contextmanager
def _lock_file(path: Path) -> Iterator[int | None]:
    """The file, opened anew and locked: against other processes, and against this one's other threads. None if it
    cannot be had soon: an entry less is better than a row that waits.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        until = time.monotonic() + _LOCK_TIMEOUT_S
        locked = False
        while not locked and time.monotonic() < until:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = True
            except BlockingIOError:
                time.sleep(0.001)
        yield handle if locked else None
    finally:
        os.close(handle)
