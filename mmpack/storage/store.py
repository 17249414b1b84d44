"""Store protocol, storage errors, name checks."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import Protocol

from mmpack.errors import StorageError

# Errors that the operating system gives again at every further try.
_PERMANENT_ERRNOS = {
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
}


class PermanentStorageError(StorageError):
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

    def read_chunks(self, name: str, chunk_bytes: int = 8 << 20) -> Iterator[bytes]:
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

    def lock_task(self, task: str) -> AbstractContextManager[None]:
        """Holds a task for this process. Raises StorageError if another one has it, where the store can tell."""
        ...

    def list_names(self, prefix: str = "") -> Iterator[str]:
        """Every name that begins with `prefix`, sorted."""
        ...

    def delete(self, name: str) -> None:
        """Removes `name` if it is there."""
        ...


def check_name(name: str) -> str:
    """`name` if it stays inside its store. Raises LastingStorageError for absolute names and '..'."""
    parts = PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts or "\\" in name:
        raise PermanentStorageError(
            f"the name '{name}' leaves its folder", hint="The manifest or index was tampered with."
        )
    return name


_HINTS = {
    errno.ENOSPC: "Free space and run the same command again: a build resumes.",
    errno.EDQUOT: "Free space in your quota and run the same command again: a build resumes.",
    errno.EACCES: "Check the permissions, or choose another path.",
    errno.EROFS: "The file system is read-only: choose another path.",
}


@contextmanager
def storage_errors(where: str | Path, operation: str) -> Iterator[None]:
    """Turns an OSError inside the block into a StorageError.

    Args:
        where: path or URL that the error names.
        operation: what the block does, for the message: "reading" or "writing".

    Raises:
        PermanentStorageError: the operating system gave an error that another try does not change.
        StorageError: any other OSError.
    """
    try:
        yield
    except OSError as error:
        type_ = PermanentStorageError if error.errno in _PERMANENT_ERRNOS else StorageError
        raise type_(
            f"{operation} failed ({error.strerror or error})",
            where=str(where),
            hint=_HINTS.get(error.errno or 0, ""),
        ) from None


def shorten_message(error: BaseException) -> str:
    # obstore appends the whole chain of causes for its own debugging.
    return (
        " ".join(str(error).partition("Debug source")[0].split())[:300].rstrip(": ") or type(error).__name__
    )
