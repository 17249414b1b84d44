"""S3, GCS and Azure through obstore."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from mmpack.errors import ConfigError, StorageError
from mmpack.storage.store import PermanentStorageError, check_name, shorten_message, storage_errors

_LASTING_REMOTE = ("PermissionDeniedError", "UnauthenticatedError", "InvalidPathError", "NotSupportedError")


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
                raise ConfigError(f"cannot be opened ({shorten_message(error)})", where=self.url) from None
        return self._opened

    @contextmanager
    def _errors(self, name: str, operation: str) -> Iterator[None]:
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
            kind = PermanentStorageError if lasting else StorageError
            raise kind(f"{operation} failed ({shorten_message(error)})", where=f"{self.url}/{name}") from None

    def exists(self, name: str) -> bool:
        """Whether the object is there."""
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
        """Bytes of the object."""
        with self._errors(name, "reading"):
            return int(self._store.head(check_name(name))["size"])

    def read(self, name: str, *, limit: int) -> bytes:
        """All of the object, at most `limit` bytes."""
        if self.size(name) > limit:
            raise StorageError(f"larger than the {limit} bytes expected at most", where=f"{self.url}/{name}")
        with self._errors(name, "reading"):
            return bytes(self._store.get(check_name(name)).bytes())

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, in one range request."""
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
        """All of the object, piece by piece."""
        with self._errors(name, "reading"):
            for piece in self._store.get(check_name(name)).stream(min_chunk_size=chunk_bytes):
                yield bytes(piece)

    def write(self, name: str, data: bytes) -> None:
        """The object with these bytes."""
        with self._errors(name, "writing"):
            self._store.put(check_name(name), data)

    def publish(self, scratch: Path, name: str) -> None:
        """Uploads `scratch`; the object appears when the upload is complete."""
        with self._errors(name, "writing"):
            self._store.put(check_name(name), scratch)
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
                    "belongs to somebody else", where=str(home), hint="Set TMPDIR to a folder of yours."
                )
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        return folder

    def lock_task(self, task: str) -> AbstractContextManager[None]:
        """Object stores have no locks: two builds of one target write the same bytes twice."""
        return nullcontext()

    def list_names(self, prefix: str = "") -> Iterator[str]:
        """Every object below the prefix, sorted."""
        with self._errors(prefix, "listing"):
            listed = [item["path"] for batch in self._store.list() for item in batch]
        yield from sorted(name for name in listed if name.startswith(prefix))

    def delete(self, name: str) -> None:
        """Removes the object, or all that lie below that name."""
        with self._errors(name, "deleting"):
            below = list(self.list_names(f"{name}/"))
            self._store.delete([*below] if below else check_name(name))
