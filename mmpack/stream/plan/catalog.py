"""A build's index as the plan and the reader need it: flat columns, memory-mapped, opened in no time.

index.parquet is read once, batch by batch, and what is needed of it is kept in the cache folder under the index's
own digest. Opening a catalog reads none of it: pages come in as rows are planned.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmpack.errors import IntegrityError
from mmpack.shards.index import INDEX_NAME, MAX_INDEX_BYTES, SCHEMA
from mmpack.shards.manifest import Manifest, read_manifest
from mmpack.shards.reader import MAX_SAMPLE_BYTES
from mmpack.shards.store import LocalStore, Store, open_store
from mmpack.stream.plan.arrays import Tables, TableWriter, cache_folder, opened, written
from mmpack.stream.plan.types import PlannedSample

#: Raised with every change of the columns below.
_VERSION = 1
_NAMES = ("shard", "kind", "recording")
_NUMBERS = (
    "offset_bytes",
    "size_bytes",
    "crc32",
    "ordinal",
    "run",
    "residual_ns",
    "tokens",
    "tokens_text",
)


class Catalog:
    """The samples of one finished build, by their number in its index.

    Args:
        url: folder or object store URL.

    Raises:
        IntegrityError: there is no finished build, or its index is not what the manifest says.
        StorageError: it cannot be read.

    Attributes:
        store: where the shards are.
        manifest: of the build.
        digest: sha256 of index.parquet, in hex.
        columns: `shard`, `kind` and `recording` as int32 numbers of names, and `offset_bytes`, `size_bytes`, `crc32`,
            `ordinal`, `run`, `residual_ns`, `tokens`, `tokens_text`, each of shape (samples,).
    """

    def __init__(self, url: str) -> None:
        self.store: Store = open_store(url)
        self.manifest: Manifest = read_manifest(self.store)
        self.digest = self.manifest.files.get(INDEX_NAME, "")
        if len(self.digest) != 64 or not self.digest.isalnum():
            raise IntegrityError(
                f"the manifest has no digest of {INDEX_NAME}",
                where=self.store.url,
                mend="Build the shards again.",
            )
        self.folder: Path = cache_folder() / f"index-{self.digest[:32]}-v{_VERSION}"
        tables = opened(self.folder)
        self.columns: Tables = tables if tables is not None else self._read()
        names = self.columns.meta["names"]
        self.shards: list[str] = names["shard"]
        self.kinds: list[str] = names["kind"]
        self.recordings: list[str] = names["recording"]

    def __len__(self) -> int:
        return len(self.columns["tokens"])

    def key(self, number: int) -> str:
        """The key of a sample: its recording and its ordinal."""
        recording = self.recordings[self.columns["recording"][number]]
        return f"{recording}-{int(self.columns['ordinal'][number]):08d}"

    def sample(self, number: int, source: int) -> PlannedSample:
        """What the reader needs of a sample."""
        columns = self.columns
        return PlannedSample(
            source=source,
            number=number,
            key=self.key(number),
            kind=self.kinds[columns["kind"][number]],
            shard=self.shards[columns["shard"][number]],
            offset_bytes=int(columns["offset_bytes"][number]),
            size_bytes=int(columns["size_bytes"][number]),
            crc32=int(columns["crc32"][number]),
            tokens=int(columns["tokens"][number]),
            tokens_text=int(columns["tokens_text"][number]),
        )

    def _read(self) -> Tables:
        where = f"{self.store.url}/{INDEX_NAME}"
        with written(self.folder) as writer:
            names: dict[str, dict[str, int]] = {name: {} for name in _NAMES}
            for batch in _batches(self.store, self.digest, where):
                _append(writer, batch, names, where)
            for name in (*_NAMES, *_NUMBERS):
                writer.append(name, np.empty(0, np.int32 if name in _NAMES else _dtype(name)))
            writer.meta = {"names": {name: list(codes) for name, codes in names.items()}}
        tables = opened(self.folder) or writer.in_memory()
        if len(tables["tokens"]) != self.manifest.samples:
            raise IntegrityError(
                f"{len(tables['tokens'])} samples, the manifest says {self.manifest.samples}", where=where
            )
        return tables


def _batches(store: Store, digest: str, where: str) -> Iterator[pa.RecordBatch]:
    """The index in pieces, once its bytes are known to be those that the manifest names."""
    if store.size(INDEX_NAME) > MAX_INDEX_BYTES:
        raise IntegrityError(f"larger than {MAX_INDEX_BYTES} bytes", where=where)
    found = hashlib.sha256()
    kept = io.BytesIO()
    is_local = isinstance(store, LocalStore)
    for chunk in store.chunks(INDEX_NAME):
        found.update(chunk)
        if not is_local:
            kept.write(chunk)
    if found.hexdigest() != digest:
        raise IntegrityError(
            "its sha256 is not the manifest's", where=where, mend="`mmpack verify` tells what else differs."
        )
    content: Any = (
        store.path(INDEX_NAME) if isinstance(store, LocalStore) else pa.BufferReader(kept.getbuffer())
    )
    try:
        with pq.ParquetFile(content) as file:
            for name in ("key", *_NAMES, *_NUMBERS):
                if name not in file.schema_arrow.names or (
                    file.schema_arrow.field(name).type != SCHEMA.field(name).type
                ):
                    raise IntegrityError(f"no column '{name}' of its type", where=where)
            yield from file.iter_batches(1 << 17, columns=["key", *_NAMES, *_NUMBERS])
    except (pa.ArrowException, OSError, ValueError) as error:
        raise IntegrityError(f"is not a readable Parquet file ({error})", where=where) from None


def _append(writer: TableWriter, batch: pa.RecordBatch, names: dict[str, dict[str, int]], where: str) -> None:
    for name in ("key", *_NAMES, *_NUMBERS):
        if batch.column(name).null_count:
            raise IntegrityError(f"column '{name}' has rows without a value", where=where)
    numbers = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in _NUMBERS}
    size, offset = numbers["size_bytes"], numbers["offset_bytes"]
    wrong = (size < 0) | (size > MAX_SAMPLE_BYTES) | (offset < 0) | (offset > 1 << 60)
    wrong |= (numbers["tokens"] < 1) | (numbers["ordinal"] < 0) | (numbers["residual_ns"] < 0)
    padded = pc.utf8_lpad(batch.column("ordinal").cast(pa.string()), 8, "0")  # pyright: ignore
    recording = batch.column("recording").cast(pa.string())
    expected = pc.binary_join_element_wise(recording, padded, "-")  # pyright: ignore
    wrong |= ~pc.equal(batch.column("key"), expected).to_numpy(zero_copy_only=False)  # pyright: ignore
    if wrong.any():
        key = batch.column("key")[int(wrong.argmax())].as_py()
        raise IntegrityError("what the index says of it cannot be", where=f"{where}, sample '{key}'")
    for name in _NAMES:
        writer.append(name, _codes(batch.column(name), names[name]))
    for name, values in numbers.items():
        writer.append(name, values.astype(_dtype(name), copy=False))


def _dtype(name: str) -> Any:
    return SCHEMA.field(name).type.to_pandas_dtype()


def _codes(column: Any, known: dict[str, int]) -> NDArray[np.int32]:
    """A dictionary column as numbers of names; new names are added to `known`."""
    local = [known.setdefault(name, len(known)) for name in column.dictionary.to_pylist()]
    return np.array(local, np.int32)[column.indices.to_numpy()] if local else np.empty(0, np.int32)
