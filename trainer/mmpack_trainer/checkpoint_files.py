"""Files of a distributed checkpoint, read so that nothing in them can run.

torch.distributed.checkpoint keeps what is where as a pickle, and single values as pickles too. A checkpoint may come from
anywhere, so both are looked through first, by what lets pass nothing but plain values and torch's own records.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import is_dataclass
from pathlib import Path, PurePath
from typing import Any, ClassVar

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import ReadItem

from mmpack.errors import DataError

AWAY = "Move the checkpoint away: the run then goes on from the one before."
"""What helps where one is damaged."""

_MAX_RECORDS_BYTES = 1 << 30
_METADATA = "torch.distributed.checkpoint.metadata"
_KNOWN = frozenset(
    {
        ("pathlib", "PosixPath"),
        ("pathlib", "PurePosixPath"),
        ("torch", "Size"),
        ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
        ("torch.serialization", "_get_layout"),
        *(
            (_METADATA, name)
            for name in (
                "BytesStorageMetadata",
                "ChunkStorageMetadata",
                "Metadata",
                "MetadataIndex",
                "StorageMeta",
                "TensorProperties",
                "TensorStorageMetadata",
                "_MEM_FORMAT_ENCODING",
            )
        ),
    }
)

# The unpickler that is written in Python: the other's steps cannot be overruled.
_Unpickler: Any = pickle._Unpickler  # pyright: ignore[reportAttributeAccessIssue]


class SafeReader(FileSystemReader):
    """Reads a checkpoint whose records are what torch writes, and whose parts lie in its own folder.

    Raises:
        DataError: they are not, or do not.
    """

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        path = self._get_metadata_path(kwargs.get("rank"))
        where = str(path)
        try:
            with self.fs.create_stream(path, "rb") as file:
                stored = file.read(_MAX_RECORDS_BYTES + 1)
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror or error})", where=where, hint=AWAY) from None
        if len(stored) > _MAX_RECORDS_BYTES:
            raise DataError(f"more than {_MAX_RECORDS_BYTES:,} bytes of records", where=where, hint=AWAY)
        try:
            found = _Records(io.BytesIO(stored)).load()
            parts = [PurePath(each.relative_path) for each in found.storage_data.values()]
        # What pickle and torch's records raise on damaged bytes is anything.
        except Exception as error:
            raise DataError(f"no records of a checkpoint ({error})", where=where, hint=AWAY) from None
        folder = Path(where).parent
        for part in parts:
            if len(part.parts) != 1 or part.name != str(part) or (folder / part).is_symlink():
                raise DataError(f"a part outside of the checkpoint: {part}", where=where, hint=AWAY)
        if found.storage_meta is None:
            found.storage_meta = StorageMeta()
        found.storage_meta.load_id = self.load_id
        return found


class Planner(DefaultLoadPlanner):
    """Reads single values, as learning rates, without what could run. Raises DataError."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        try:
            plain = torch.load(value, weights_only=True)
        except pickle.UnpicklingError as error:
            raise DataError(f"is no plain value ({error})", where=str(read_item.dest_index.fqn)) from None
        # torch reads it without such care: it gets what was read with care, written anew.
        careful = io.BytesIO()
        torch.save(plain, careful)
        careful.seek(0)
        super().load_bytes(read_item, careful)


class _Records(_Unpickler):
    """Makes records alone."""

    dispatch: ClassVar[dict[int, Any]] = dict(_Unpickler.dispatch)

    def load_build(self) -> None:
        """Gives an object its attributes, which must not be a class: all its other objects would have them, too."""
        target = self.stack[-2]
        if isinstance(target, type) or not is_dataclass(target):
            raise pickle.UnpicklingError(f"it sets attributes of {target!r}")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) in _KNOWN:
            return super().find_class(module_name, global_name)
        if module_name == "torch" and isinstance(found := getattr(torch, global_name, None), torch.dtype):
            return found
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}")
