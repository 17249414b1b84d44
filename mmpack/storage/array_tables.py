"""Cached tables on disk: a folder of flat arrays that is written once and memory-mapped afterwards.

All content follows from an index whose digest names the folder, so the cache may be deleted at any time. The sizes of
the files are checked, but their content is trusted: anybody who can write to the cache folder can change rows.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmpack.errors import ConfigError, StorageError
from mmpack.serialisation import from_json

logger = logging.getLogger(__name__)

_META = "meta.json"
_MAX_META_BYTES = 1 << 30


class ArrayTables:
    """Named arrays and their common metadata.

    Attributes:
        arrays: name to one-dimensional array; memory-mapped, or in memory if the cache cannot be written.
        meta: plain values that describe the arrays.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], meta: dict[str, Any]) -> None:
        self.arrays = dict(arrays)
        self.meta = meta

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]


class ArrayTableWriter:
    """A writer of arrays in parts, created by :func:`write_tables`.

    Args:
        folder: folder to write to; None to keep the arrays in memory.

    Attributes:
        meta: plain values that describe the arrays, set by the caller.
        tables: the written tables; set when the writer is closed.
    """

    tables: ArrayTables

    def __init__(self, folder: Path | None) -> None:
        self.meta: dict[str, Any] = {}
        self._folder = folder
        self._files: dict[str, Any] = {}
        self._parts: dict[str, list[NDArray[Any]]] = {}
        self._dtypes_and_sizes: dict[str, tuple[str, int]] = {}

    def append(self, name: str, part: NDArray[Any]) -> None:
        """Appends `part` to the array `name`, converted to the dtype of the first part."""
        dtype, size = self._dtypes_and_sizes.get(name, (part.dtype.str, 0))
        self._dtypes_and_sizes[name] = (dtype, size + part.size)
        part = np.ascontiguousarray(part, np.dtype(dtype))
        if self._folder is None:
            self._parts.setdefault(name, []).append(part.copy())
            return
        if name not in self._files:
            self._files[name] = (self._folder / name).open("wb")
        self._files[name].write(part.data)

    def close(self) -> None:
        """Closes all files and opens the tables. Raises OSError."""
        for file in self._files.values():
            file.close()
        if self._folder is None:
            arrays = {name: np.concatenate(parts) for name, parts in self._parts.items()}
            self.tables = ArrayTables(arrays, self.meta)
            return
        content = {"arrays": self._dtypes_and_sizes, "meta": self.meta}
        (self._folder / _META).write_bytes(msgspec.json.encode(content))
        tables = open_tables(self._folder)
        if tables is None:
            raise OSError(errno.EIO, "the written tables cannot be read back")
        self.tables = tables


def cache_folder() -> Path:
    """Returns `$MMPACK_CACHE`, or the folder `mmpack` in the user's cache folder.

    Raises:
        ConfigError: the user has no home folder, as in a container that runs under a user id without a name.
    """
    variable = os.environ.get("MMPACK_CACHE")
    if variable:
        return Path(variable)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmpack"
    except RuntimeError:
        raise ConfigError(
            "this user has no home folder",
            where="MMPACK_CACHE",
            hint="Set it to a folder for cached tables.",
        ) from None


def open_tables(folder: Path) -> ArrayTables | None:
    """Opens the tables in `folder`, memory-mapped. Returns None if they are missing or incomplete."""
    try:
        if (folder / _META).stat().st_size > _MAX_META_BYTES:
            return None
        content = from_json((folder / _META).read_bytes())
        arrays = {}
        for name, (dtype_text, size) in content["arrays"].items():
            dtype = np.dtype(dtype_text)
            if (folder / name).stat().st_size != size * dtype.itemsize:
                return None
            # An empty file cannot be memory-mapped.
            mapped = np.memmap(folder / name, dtype, "r") if size else np.empty(0, dtype)
            arrays[name] = mapped.view(np.ndarray)
        return ArrayTables(arrays, content["meta"])
    except (OSError, ValueError, KeyError, TypeError, msgspec.DecodeError):
        return None


def _publish(scratch: Path, folder: Path) -> None:
    # Only its owner may open a temporary folder. Other users may read the tables, but not write them.
    scratch.chmod(0o755)
    try:
        os.replace(scratch, folder)
        return
    except OSError:
        # Either another process has published the same tables, or the folder exists and is damaged.
        if open_tables(folder) is not None:
            return
    shutil.rmtree(folder, ignore_errors=True)
    try:
        os.replace(scratch, folder)
    except OSError as error:
        logger.warning(
            "the cache %s cannot be replaced (%s): the tables are not cached", folder, error.strerror
        )


@contextmanager
def write_tables(folder: Path) -> Iterator[ArrayTableWriter]:
    """Opens a writer whose tables appear in `folder` as a whole, when the block ends without an exception.

    If no folder can be created there, the tables stay in memory and a warning is logged. If only the rename to `folder`
    fails, a warning is logged, and the open tables stay usable although their files no longer have a name.

    Raises:
        StorageError: the disk is full or fails.
    """
    scratch: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    except OSError as error:
        logger.warning(
            "the cache %s cannot be written (%s): the tables stay in memory", folder, error.strerror
        )
    try:
        writer = ArrayTableWriter(scratch)
        yield writer
        writer.close()
        if scratch is not None:
            _publish(scratch, folder)
    except OSError as error:
        raise StorageError(
            f"tables cannot be written ({error.strerror})",
            where=str(folder.parent),
            hint="Free some space, or set MMPACK_CACHE to another folder.",
        ) from None
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
