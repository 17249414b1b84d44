"""A folder."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmpack.errors import StorageError
from mmpack.storage.store import PermanentStorageError, check_name, storage_errors

_LOCK_PATIENCE_S = 10.0


class LocalStore:
    """A folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def path(self, name: str) -> Path:
        """The local path of `name`."""
        return self.root / check_name(name)

    def exists(self, name: str) -> bool:
        """Whether `name` is there."""
        return self.path(name).is_file()

    def size(self, name: str) -> int:
        """Bytes of `name`."""
        with storage_errors(str(self.path(name)), "reading"):
            return self.path(name).stat().st_size

    def read(self, name: str, *, limit: int) -> bytes:
        """All of `name`, at most `limit` bytes."""
        path = self.path(name)
        if self.size(name) > limit:
            raise StorageError(f"larger than the {limit} bytes expected at most", where=str(path))
        with storage_errors(str(path), "reading"):
            return path.read_bytes()

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on."""
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
        """All of `name`, piece by piece."""
        path = self.path(name)
        with storage_errors(str(path), "reading"), path.open("rb") as file:
            while data := file.read(chunk_bytes):
                yield data

    def write(self, name: str, data: bytes) -> None:
        """`name` with these bytes: written aside, fsynced, renamed."""
        path = self.path(name)
        with storage_errors(str(path), "writing"):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._write_and_publish(path, data)
            except FileNotFoundError:
                # Another rank finished the build at this moment and removed the scratch folder.
                self._write_and_publish(path, data)

    def _write_and_publish(self, path: Path, data: bytes) -> None:
        # All unfinished files lie in one folder, which the end of a build removes: a killed run leaves
        # nothing elsewhere.
        folder = self.root / "_build" / "scratch"
        folder.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(aside, 0o644)
            os.replace(aside, path)
            sync_folder(path.parent)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise

    def publish(self, scratch: Path, name: str) -> None:
        """Renames the fsynced `scratch`, which lies on the same file system."""
        path = self.path(name)
        with storage_errors(str(path), "writing"):
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(scratch, path)
            sync_folder(path.parent)

    def scratch_folder(self, task: str) -> Path:
        """A folder below the target, so that publishing is a rename."""
        folder = self.path(f"_build/scratch/{task}")
        with storage_errors(str(folder), "writing"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        return folder

    @contextmanager
    def lock_task(self, task: str) -> Iterator[None]:
        """A lock on the task's folder, which the system takes back when the process ends, however it ends."""
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
        """Every file below the folder, sorted."""
        found = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())
        yield from sorted(name for name in found if name.startswith(prefix))

    def delete(self, name: str) -> None:
        """Removes a file or a folder."""
        path = self.path(name)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _lock(handle: int, *, where: str) -> None:
    # Workers of a killed build notice its end within moments; whoever holds the lock for longer is at work.
    until = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise StorageError(
                    "another build is at work on it", where=where, hint="Wait for it to end, or stop it."
                ) from None
            time.sleep(0.05)


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
