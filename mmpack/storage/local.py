"""A store in a local folder."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

from mmpack.errors import StorageError
from mmpack.storage.store import PermanentStorageError, check_name, storage_errors

_LOCK_TIMEOUT_S = 10.0


class LocalStore:
    """A store in a local folder.

    Args:
        root: the folder; it is created by the first write.
    """

    #: URL schemes of this store; "" stands for a plain path.
    SCHEMES: ClassVar = ("", "file")

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    @classmethod
    def from_url(cls, url: str, client_retries: int | None = None) -> Self:
        """Opens the store of a path or file:// URL; `client_retries` has no effect, because there is no client."""
        return cls(Path(url.removeprefix("file://")))

    def path(self, name: str) -> Path:
        """Returns the local path of `name`."""
        return self.root / check_name(name)

    def exists(self, name: str) -> bool:
        """Returns True if the file `name` exists."""
        return self.path(name).is_file()

    def size(self, name: str) -> int:
        """Returns the size of `name` in bytes. Raises StorageError."""
        with storage_errors(str(self.path(name)), "reading"):
            return self.path(name).stat().st_size

    def read(self, name: str, *, limit: int) -> bytes:
        """Returns all of `name`. Raises StorageError if it is larger than `limit` bytes or cannot be read."""
        path = self.path(name)
        if self.size(name) > limit:
            raise StorageError(f"larger than the limit of {limit} bytes", where=str(path))
        with storage_errors(str(path), "reading"):
            return path.read_bytes()

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """Returns `size` bytes, starting at `offset`.

        Raises:
            PermanentStorageError: the file ends earlier.
            StorageError: the file cannot be read.
        """
        path = self.path(name)
        with storage_errors(str(path), "reading"):
            handle = os.open(path, os.O_RDONLY)
            try:
                data = os.pread(handle, size, offset)
            finally:
                os.close(handle)
        if len(data) != size:
            raise PermanentStorageError(f"ends before byte {offset + size}: truncated", where=str(path))
        return data

    def read_chunks(self, name: str, chunk_bytes: int = 8 << 20) -> Iterator[bytes]:
        """Yields all of `name` in chunks of at most `chunk_bytes`. Raises StorageError."""
        path = self.path(name)
        with storage_errors(str(path), "reading"), path.open("rb") as file:
            while data := file.read(chunk_bytes):
                yield data

    def write(self, name: str, data: bytes) -> None:
        """Writes `name`: a temporary file is written, fsynced and renamed. Raises StorageError."""
        path = self.path(name)
        with storage_errors(str(path), "writing"):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._write_and_publish(path, data)
            except FileNotFoundError:
                # Another rank has just finished the build and removed the scratch folder.
                self._write_and_publish(path, data)

    def _write_and_publish(self, path: Path, data: bytes) -> None:
        # All unfinished files are in one folder, which is removed at the end of a build: a killed build leaves
        # nothing elsewhere.
        folder = self.root / "_build" / "scratch"
        folder.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(scratch, 0o644)
            os.replace(scratch, path)
            sync_folder(path.parent)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise

    def publish(self, scratch: Path, name: str) -> None:
        """Renames the fsynced file `scratch` on the same file system to `name`. Raises StorageError."""
        path = self.path(name)
        with storage_errors(str(path), "writing"):
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(scratch, path)
            sync_folder(path.parent)

    def scratch_folder(self, task: str) -> Path:
        """Creates an empty folder inside the store, so that publishing is a rename. Raises StorageError."""
        folder = self.path(f"_build/scratch/{task}")
        with storage_errors(str(folder), "writing"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        return folder

    @contextmanager
    def lock_task(self, task: str) -> Iterator[None]:
        """Locks the folder of the task. The operating system releases the lock when the process ends in any way.

        Raises:
            StorageError: another process holds the lock.
        """
        folder = self.path(f"_build/tasks/{task}")
        with storage_errors(str(folder), "writing"):
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY)
        try:
            _lock(handle, where=str(folder))
            yield
        finally:
            os.close(handle)

    def list_names(self, prefix: str = "") -> Iterator[str]:
        """Yields the name of every file that begins with `prefix`, sorted."""
        names = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())
        yield from sorted(name for name in names if name.startswith(prefix))

    def delete(self, name: str) -> None:
        """Removes a file or a folder, if it exists."""
        path = self.path(name)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _lock(handle: int, *, where: str) -> None:
    # The workers of a killed build end within seconds. A process that holds the lock for longer is still working.
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StorageError(
                    "another build is writing this task", where=where, hint="Wait for its end, or stop it."
                ) from None
            time.sleep(0.05)


def sync_folder(folder: Path) -> None:
    """Flushes `folder` to disk, so that a rename in it survives a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
