"""The protocol of a store, storage errors and the check of names."""

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
    """A storage error that another try does not change: no such file, no permission, a truncated file."""


class Store(Protocol):
    """A folder or bucket of named files; names are relative paths with '/' between their parts."""

    url: str

    def exists(self, name: str) -> bool:
        """Returns True if `name` exists."""
        ...

    def size(self, name: str) -> int:
        """Returns the size of `name` in bytes. Raises StorageError if `name` does not exist."""
        ...

    def read(self, name: str, *, limit: int) -> bytes:
        """Returns all of `name`. Raises StorageError if `name` does not exist or is larger than `limit` bytes."""
        ...

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """Returns `size` bytes, starting at `offset`. Raises StorageError if there are fewer."""
        ...

    def read_chunks(self, name: str, chunk_bytes: int = 8 << 20) -> Iterator[bytes]:
        """Yields all of `name` in chunks of about `chunk_bytes`. Raises StorageError."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Writes `name`, which appears only when it is complete. Raises StorageError."""
        ...

    def publish(self, scratch: Path, name: str) -> None:
        """Moves the finished local file `scratch` to `name`, which appears only when it is complete.

        Raises:
            StorageError: `name` cannot be written.
        """
        ...

    def scratch_folder(self, task: str) -> Path:
        """Creates the empty local folder for the unfinished files of a task.

        Files that a killed run left in the folder are removed.

        Raises:
            StorageError: the folder cannot be created.
        """
        ...

    def lock_task(self, task: str) -> AbstractContextManager[None]:
        """Locks a task for this process. Raises StorageError if another process holds the lock, where locks exist."""
        ...

    def list_names(self, prefix: str = "") -> Iterator[str]:
        """Yields every name that begins with `prefix`, sorted."""
        ...

    def delete(self, name: str) -> None:
        """Removes the file `name`, or every file in the folder `name`, if there is any."""
        ...


def check_name(name: str) -> str:
    """Returns `name` if it stays inside its store. Raises PermanentStorageError for absolute names and '..'."""
    parts = PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts or "\\" in name:
        raise PermanentStorageError(
            f"the name '{name}' leaves its folder",
            hint="Do not trust these shards: their manifest or index was changed.",
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
    """Returns the message of `error` in one line of at most 300 characters."""
    # After "Debug source", obstore appends the causes of the error for its own debugging.
    return (
        " ".join(str(error).partition("Debug source")[0].split())[:300].rstrip(": ") or type(error).__name__
    )
