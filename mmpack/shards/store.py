"""Where shards live: a local folder or an object store, with the same few operations and the same promise.

What has its final name is whole: local files are written aside, fsynced and renamed; objects appear when
their upload is complete.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from mmpack.errors import ConfigError, StorageError

_REMOTE = ("s3://", "gs://", "gcs://", "az://", "azure://", "abfs://")
_LOCK_PATIENCE_S = 10.0
# What the system answers where no second try is answered otherwise.
_LASTING = {
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
}
_LASTING_REMOTE = ("PermissionDeniedError", "UnauthenticatedError", "InvalidPathError", "NotSupportedError")


class LastingStorageError(StorageError):
    """A refusal that trying again does not change: no such file, no permission, a file that ends too early."""


class Store(Protocol):
    """A place for named files; names are relative, with '/' between parts."""

    url: str

    def exists(self, name: str) -> bool:
        """Whether `name` is there."""
        ...

    def size(self, name: str) -> int:
        """Bytes of `name`. Raises StorageError if it is not there."""
        ...

    def read(self, name: str, *, limit: int) -> bytes:
        """All of `name`. Raises StorageError if it is not there or larger than `limit` bytes."""
        ...

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on. Raises StorageError if there are fewer."""
        ...

    def chunks(self, name: str, chunk_bytes: int = 8 << 20) -> Iterator[bytes]:
        """All of `name`, piece by piece. Raises StorageError."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """`name` with these bytes, whole or not at all. Raises StorageError."""
        ...

    def publish(self, scratch: Path, name: str) -> None:
        """The finished local file `scratch` as `name`, whole or not at all; `scratch` is gone after. Raises
        StorageError.
        """
        ...

    def scratch_folder(self, task: str) -> Path:
        """A local folder to write a task's unfinished files in, emptied of what a killed run left. Raises
        StorageError.
        """
        ...

    def working(self, task: str) -> AbstractContextManager[None]:
        """Holds a task for this process. Raises StorageError if another one has it, where the store can tell."""
        ...

    def names(self, prefix: str = "") -> Iterator[str]:
        """Every name that begins with `prefix`, sorted."""
        ...

    def delete(self, name: str) -> None:
        """Removes `name` if it is there."""
        ...


def open_store(url: str, *, client_retries: int | None = None) -> Store:
    """The store at `url`: a local path, or s3://, gs://, az:// with credentials and endpoint from the
    environment.

    Args:
        url: where.
        client_retries: times that an object store's client itself tries a request again; None: its default.

    Raises:
        ConfigError: a URL of no known kind.
    """
    if url.startswith(_REMOTE):
        return ObjectStore(url, client_retries=client_retries)
    if "://" in url and not url.startswith("file://"):
        raise ConfigError("not a path or object store URL", where=url, mend=f"Known: {', '.join(_REMOTE)}.")
    return LocalStore(Path(url.removeprefix("file://")))


def checked_name(name: str) -> str:
    """`name` if it stays inside its store. Raises LastingStorageError for absolute names and '..'."""
    parts = PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts or "\\" in name:
        raise LastingStorageError(
            f"the name '{name}' leaves its folder", mend="The manifest or index was tampered with."
        )
    return name


@contextmanager
def storage_errors(where: str, doing: str) -> Iterator[None]:
    """Turns the system's refusals into one clear StorageError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        mend = {
            28: "Free space and run the same command again: it resumes.",  # ENOSPC
            122: "Free space in your quota and run the same command again: it resumes.",  # EDQUOT
            13: "Choose a target that you may write.",  # EACCES
            30: "The file system is read-only: choose another target.",  # EROFS
        }.get(error.errno or 0, "")
        kind = LastingStorageError if error.errno in _LASTING else StorageError
        raise kind(f"{doing} failed ({reason})", where=where, mend=mend) from None


class LocalStore:
    """A folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def path(self, name: str) -> Path:
        """The local path of `name`."""
        return self.root / checked_name(name)

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
            raise LastingStorageError(f"ends before byte {offset + size}: truncated", where=str(path))
        return data

    def chunks(self, name: str, chunk_bytes: int = 8 << 20) -> Iterator[bytes]:
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
                self._write_aside(path, data)
            except FileNotFoundError:
                # Another rank finished the build at this moment and removed the scratch folder.
                self._write_aside(path, data)

    def _write_aside(self, path: Path, data: bytes) -> None:
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
    def working(self, task: str) -> Iterator[None]:
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

    def names(self, prefix: str = "") -> Iterator[str]:
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


class ObjectStore:
    """A bucket and prefix in S3, GCS, Azure or any store that speaks their protocol (through obstore)."""

    def __init__(self, url: str, *, client_retries: int | None = None) -> None:
        self.url = url.rstrip("/")
        self._client_retries = client_retries
        self._opened: Any = None

    @property
    def _store(self) -> Any:
        if self._opened is None:
            from obstore.store import from_url

            options: dict[str, Any] = {}
            if self.url.startswith("s3://"):
                # An endpoint of one's own (AWS_ENDPOINT_URL) may be plain http on a private network.
                options["client_options"] = {"allow_http": True}
            if self._client_retries is not None:
                options["retry_config"] = {"max_retries": self._client_retries}
            try:
                self._opened = from_url(self.url, **options)
            except Exception as error:
                raise ConfigError(f"cannot be opened ({_brief(error)})", where=self.url) from None
        return self._opened

    @contextmanager
    def _errors(self, name: str, doing: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # The client's errors are its own, or FileNotFoundError and other kinds of OSError and ValueError.
            own = type(error).__module__.startswith("obstore")
            if not own and not isinstance(error, (OSError, ValueError)):
                raise
            lasting = isinstance(error, (FileNotFoundError, PermissionError)) or (
                own and type(error).__name__ in _LASTING_REMOTE
            )
            kind = LastingStorageError if lasting else StorageError
            raise kind(f"{doing} failed ({_brief(error)})", where=f"{self.url}/{name}") from None

    def exists(self, name: str) -> bool:
        """Whether the object is there."""
        try:
            self._store.head(checked_name(name))
        except FileNotFoundError:
            return False
        except Exception as error:
            raise StorageError(f"reading failed ({_brief(error)})", where=f"{self.url}/{name}") from None
        return True

    def size(self, name: str) -> int:
        """Bytes of the object."""
        with self._errors(name, "reading"):
            return int(self._store.head(checked_name(name))["size"])

    def read(self, name: str, *, limit: int) -> bytes:
        """All of the object, at most `limit` bytes."""
        if self.size(name) > limit:
            raise StorageError(f"larger than the {limit} bytes expected at most", where=f"{self.url}/{name}")
        with self._errors(name, "reading"):
            return bytes(self._store.get(checked_name(name)).bytes())

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, in one range request."""
        if not size:
            return b""
        with self._errors(name, "reading"):
            data = bytes(self._store.get_range(checked_name(name), start=offset, length=size))
        if len(data) != size:
            raise LastingStorageError(
                f"ends before byte {offset + size}: truncated", where=f"{self.url}/{name}"
            )
        return data

    def chunks(self, name: str, chunk_bytes: int = 8 << 20) -> Iterator[bytes]:
        """All of the object, piece by piece."""
        with self._errors(name, "reading"):
            for piece in self._store.get(checked_name(name)).stream(min_chunk_size=chunk_bytes):
                yield bytes(piece)

    def write(self, name: str, data: bytes) -> None:
        """The object with these bytes."""
        with self._errors(name, "writing"):
            self._store.put(checked_name(name), data)

    def publish(self, scratch: Path, name: str) -> None:
        """Uploads `scratch`; the object appears when the upload is complete."""
        with self._errors(name, "writing"):
            self._store.put(checked_name(name), scratch)
        scratch.unlink()

    def scratch_folder(self, task: str) -> Path:
        """A folder for temporary files of this machine, named after the target and the task."""
        label = hashlib.sha256(f"{self.url}/{task}".encode()).hexdigest()[:16]
        home = Path(tempfile.gettempdir()) / f"mmpack-{os.getuid()}"
        folder = home / label
        with storage_errors(str(folder), "writing"):
            home.mkdir(mode=0o700, exist_ok=True)
            if home.is_symlink() or home.stat().st_uid != os.getuid():
                raise StorageError(
                    "belongs to somebody else", where=str(home), mend="Set TMPDIR to a folder of yours."
                )
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        return folder

    def working(self, task: str) -> AbstractContextManager[None]:
        """Object stores have no locks: two builds of one target write the same bytes twice."""
        return nullcontext()

    def names(self, prefix: str = "") -> Iterator[str]:
        """Every object below the prefix, sorted."""
        with self._errors(prefix, "listing"):
            listed = [item["path"] for batch in self._store.list() for item in batch]
        yield from sorted(name for name in listed if name.startswith(prefix))

    def delete(self, name: str) -> None:
        """Removes the object, or all that lie below that name."""
        with self._errors(name, "deleting"):
            below = list(self.names(f"{name}/"))
            self._store.delete([*below] if below else checked_name(name))


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
                    "another build is at work on it", where=where, mend="Wait for it to end, or stop it."
                ) from None
            time.sleep(0.05)


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _brief(error: BaseException) -> str:
    # obstore appends the whole chain of causes for its own debugging.
    return (
        " ".join(str(error).partition("Debug source")[0].split())[:300].rstrip(": ") or type(error).__name__
    )
