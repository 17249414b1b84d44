"""A store in S3, GCS or Azure, through obstore."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Self

from mmpack.errors import ConfigError, StorageError
from mmpack.storage.store import PermanentStorageError, check_name, shorten_message, storage_errors

# Classes of obstore's errors that a request raises again at every further try.
_PERMANENT_ERRORS = ("PermissionDeniedError", "UnauthenticatedError", "InvalidPathError", "NotSupportedError")


class ObjectStore:
    """A store in a bucket and prefix of S3, GCS, Azure or any service with one of their protocols.

    Args:
        url: URL of bucket and prefix.
        client_retries: number of times that the client repeats a failed request; None for the client's default.
    """

    #: URL schemes of this store.
    SCHEMES: ClassVar = ("s3", "gs", "gcs", "az", "azure", "abfs")

    def __init__(self, url: str, *, client_retries: int | None = None) -> None:
        self.url = url.rstrip("/")
        self._client_retries = client_retries
        self._opened: Any = None

    @classmethod
    def from_url(cls, url: str, client_retries: int | None = None) -> Self:
        """Opens the store at `url` with the arguments of the class."""
        return cls(url, client_retries=client_retries)

    @property
    def _store(self) -> Any:
        if self._opened is None:
            from obstore.store import from_url

            options: dict[str, Any] = {}
            if self.url.startswith("s3://"):
                # A custom endpoint (AWS_ENDPOINT_URL) on a private network may use http without TLS.
                options["client_options"] = {"allow_http": True}
            if self._client_retries is not None:
                options["retry_config"] = {"max_retries": self._client_retries}
            try:
                self._opened = from_url(self.url, **options)
            except Exception as error:
                raise ConfigError(f"cannot be opened ({shorten_message(error)})", where=self.url) from None
        return self._opened

    @contextmanager
    def _errors(self, name: str, operation: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # obstore raises its own exceptions, and FileNotFoundError, other kinds of OSError and ValueError.
            is_obstore_error = type(error).__module__.startswith("obstore")
            if not is_obstore_error and not isinstance(error, (OSError, ValueError)):
                raise
            is_permanent = isinstance(error, (FileNotFoundError, PermissionError)) or (
                is_obstore_error and type(error).__name__ in _PERMANENT_ERRORS
            )
            type_ = PermanentStorageError if is_permanent else StorageError
            raise type_(
                f"{operation} failed ({shorten_message(error)})", where=f"{self.url}/{name}"
            ) from None

    def exists(self, name: str) -> bool:
        """Returns True if the object exists. Raises StorageError."""
        try:
            self._store.head(check_name(name))
        except FileNotFoundError:
            return False
        except Exception as error:
            raise StorageError(
                f"reading failed ({shorten_message(error)})", where=f"{self.url}/{name}"
            ) from None
        return True

    def size(self, name: str) -> int:
        """Returns the size of the object in bytes. Raises StorageError."""
        with self._errors(name, "reading"):
            return int(self._store.head(check_name(name))["size"])

    def read(self, name: str, *, limit: int) -> bytes:
        """Returns all of the object. Raises StorageError if it is larger than `limit` bytes or cannot be read."""
        if self.size(name) > limit:
            raise StorageError(f"larger than the limit of {limit} bytes", where=f"{self.url}/{name}")
        with self._errors(name, "reading"):
            return bytes(self._store.get(check_name(name)).bytes())

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """Returns `size` bytes, starting at `offset`, by one range request.

        Raises:
            PermanentStorageError: the object ends earlier.
            StorageError: the object cannot be read.
        """
        if not size:
            return b""
        with self._errors(name, "reading"):
            data = bytes(self._store.get_range(check_name(name), start=offset, length=size))
        if len(data) != size:
            raise PermanentStorageError(
                f"ends before byte {offset + size}: truncated", where=f"{self.url}/{name}"
            )
        return data

    def read_chunks(self, name: str, chunk_bytes: int = 8 << 20) -> Iterator[bytes]:
        """Yields all of the object in chunks of at least `chunk_bytes`; the last may be smaller. Raises StorageError."""
        with self._errors(name, "reading"):
            for chunk in self._store.get(check_name(name)).stream(min_chunk_size=chunk_bytes):
                yield bytes(chunk)

    def write(self, name: str, data: bytes) -> None:
        """Writes the object, which appears when the upload is complete. Raises StorageError."""
        with self._errors(name, "writing"):
            self._store.put(check_name(name), data)

    def publish(self, scratch: Path, name: str) -> None:
        """Uploads `scratch` and removes it; the object appears when the upload is complete. Raises StorageError."""
        with self._errors(name, "writing"):
            self._store.put(check_name(name), scratch)
        scratch.unlink()

    def scratch_folder(self, task: str) -> Path:
        """Creates an empty temporary folder on this machine, named after store and task. Raises StorageError."""
        label = hashlib.sha256(f"{self.url}/{task}".encode()).hexdigest()[:16]
        home = Path(tempfile.gettempdir()) / f"mmpack-{os.getuid()}"
        folder = home / label
        with storage_errors(str(folder), "writing"):
            home.mkdir(mode=0o700, exist_ok=True)
            if home.is_symlink() or home.stat().st_uid != os.getuid():
                raise StorageError(
                    "the folder belongs to another user",
                    where=str(home),
                    hint="Set TMPDIR to a folder that you own.",
                )
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        return folder

    def lock_task(self, task: str) -> AbstractContextManager[None]:
        """Does nothing: object stores have no locks. Two builds of one target write the same bytes twice."""
        return nullcontext()

    def list_names(self, prefix: str = "") -> Iterator[str]:
        """Yields the name of every object that begins with `prefix`, sorted. Raises StorageError."""
        with self._errors(prefix, "listing"):
            names = [item["path"] for batch in self._store.list() for item in batch]
        yield from sorted(name for name in names if name.startswith(prefix))

    def delete(self, name: str) -> None:
        """Removes the object, or all objects in the folder `name`. Raises StorageError."""
        with self._errors(name, "deleting"):
            children = list(self.list_names(f"{name}/"))
            self._store.delete([*children] if children else check_name(name))
