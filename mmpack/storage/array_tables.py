"""Derived tables on disk: a folder of flat arrays, written once, memory-mapped ever after.

They are a cache: whatever is in them follows from an index whose digest names the folder. Delete them at will. Their
sizes are checked, their content is trusted: who can write to the cache folder can change rows.
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
    """Arrays by name, and what is known of them as a whole.

    Attributes:
        arrays: one-dimensional; memory-mapped, or in memory if nothing can be written.
        meta: plain data.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], meta: dict[str, Any]) -> None:
        self.arrays = dict(arrays)
        self.meta = meta

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]


class ArrayTableWriter:
    """Takes arrays piece by piece; made by :func:`written`.

    Attributes:
        meta: plain data, set by whoever writes.
        tables: what was written, once the block has ended well.
    """

    tables: ArrayTables

    def __init__(self, folder: Path | None) -> None:
        self.meta: dict[str, Any] = {}
        self._folder = folder
        self._files: dict[str, Any] = {}
        self._parts: dict[str, list[NDArray[Any]]] = {}
        self._facts: dict[str, tuple[str, int]] = {}

    def append(self, name: str, part: NDArray[Any]) -> None:
        """More of the array `name`; every part has the same type."""
        kind, size = self._facts.get(name, (part.dtype.str, 0))
        self._facts[name] = (kind, size + part.size)
        part = np.ascontiguousarray(part, np.dtype(kind))
        if self._folder is None:
            self._parts.setdefault(name, []).append(part.copy())
            return
        if name not in self._files:
            self._files[name] = (self._folder / name).open("wb")
        self._files[name].write(part.data)

    def close(self) -> None:
        """Ends all files, and opens the tables."""
        for file in self._files.values():
            file.close()
        if self._folder is None:
            arrays = {name: np.concatenate(parts) for name, parts in self._parts.items()}
            self.tables = ArrayTables(arrays, self.meta)
            return
        content = {"arrays": self._facts, "meta": self.meta}
        (self._folder / _META).write_bytes(msgspec.json.encode(content))
        tables = open_tables(self._folder)
        if tables is None:
            raise OSError(errno.EIO, "what was written cannot be read back")
        self.tables = tables


def cache_folder() -> Path:
    """`$MMPACK_CACHE`, or `mmpack` in the user's cache folder.

    Raises:
        ConfigError: the user has no home folder, as in a container that runs under a number without a name.
    """
    stated = os.environ.get("MMPACK_CACHE")
    if stated:
        return Path(stated)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmpack"
    except RuntimeError:
        raise ConfigError(
            "this user has no home folder",
            where="MMPACK_CACHE",
            hint="Set it to a folder for derived tables.",
        ) from None


def open_tables(folder: Path) -> ArrayTables | None:
    """The tables in `folder`, memory-mapped; None if they are not there, or not whole."""
    try:
        if (folder / _META).stat().st_size > _MAX_META_BYTES:
            return None
        content = from_json((folder / _META).read_bytes())
        arrays = {}
        for name, (kind, size) in content["arrays"].items():
            dtype = np.dtype(kind)
            if (folder / name).stat().st_size != size * dtype.itemsize:
                return None
            # An empty file cannot be mapped.
            mapped = np.memmap(folder / name, dtype, "r") if size else np.empty(0, dtype)
            arrays[name] = mapped.view(np.ndarray)
        return ArrayTables(arrays, content["meta"])
    except (OSError, ValueError, KeyError, TypeError, msgspec.DecodeError):
        return None


def _publish(aside: Path, folder: Path) -> None:
    # A temporary folder is its maker's alone; others may read it, and none may write.
    aside.chmod(0o755)
    try:
        os.replace(aside, folder)
        return
    except OSError:
        # Another process was first, with the same content; or something broken is in the way.
        if open_tables(folder) is not None:
            return
    shutil.rmtree(folder, ignore_errors=True)
    try:
        os.replace(aside, folder)
    except OSError as error:
        logger.warning("the cache %s cannot be renewed (%s): tables are not kept", folder, error.strerror)


@contextmanager
def write_tables(folder: Path) -> Iterator[ArrayTableWriter]:
    """A writer whose tables appear at `folder` whole, when the block ends well.

    If no folder can be made there, they are kept in memory, and a warning says so. If only the name `folder` cannot be
    taken, they stay open under a name that is gone.

    Raises:
        StorageError: the disk is full, or fails.
    """
    aside: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    except OSError as error:
        logger.warning("the cache %s cannot be written (%s): tables stay in memory", folder, error.strerror)
    try:
        writer = ArrayTableWriter(aside)
        yield writer
        writer.close()
        if aside is not None:
            _publish(aside, folder)
    except OSError as error:
        raise StorageError(
            f"tables cannot be written ({error.strerror})",
            where=str(folder.parent),
            hint="Free some space, or set MMPACK_CACHE to another folder.",
        ) from None
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
