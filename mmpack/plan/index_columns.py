"""index.parquet batch by batch, checked, as flat columns."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmpack.errors import IntegrityError
from mmpack.shards.index import INDEX_SCHEMA, MAX_INDEX_BYTES
from mmpack.shards.manifest import INDEX_NAME
from mmpack.shards.sample_bytes import MAX_SAMPLE_BYTES
from mmpack.storage.array_tables import ArrayTableWriter
from mmpack.storage.local import LocalStore
from mmpack.storage.store import Store

NAME_COLUMNS = ("shard", "kind", "recording")
NUMBER_COLUMNS = (
    "offset_bytes",
    "size_bytes",
    "crc32",
    "ordinal",
    "run",
    "residual_ns",
    "tokens",
    "tokens_text",
)


def write_columns(writer: ArrayTableWriter, store: Store, digest: str) -> None:
    """Writes NAMES, as int32 numbers of names, and NUMBERS; the names themselves are `names` of the meta.

    Args:
        writer: takes them.
        store: of the build.
        digest: sha256 of index.parquet, in hex.

    Raises:
        IntegrityError: the index is another, or not what one can be.
        StorageError: it cannot be read.
    """
    where = f"{store.url}/{INDEX_NAME}"
    names: dict[str, dict[str, int]] = {name: {} for name in NAME_COLUMNS}
    for batch in _read_batches(store, digest, where):
        _append_batch(writer, batch, names, where)
    for name in (*NAME_COLUMNS, *NUMBER_COLUMNS):
        writer.append(name, np.empty(0, np.int32 if name in NAME_COLUMNS else _dtype(name)))
    writer.meta = {"names": {name: list(codes) for name, codes in names.items()}}


def _read_batches(store: Store, digest: str, where: str) -> Iterator[pa.RecordBatch]:
    """The index in pieces, once its bytes are known to be those that the manifest names."""
    if store.size(INDEX_NAME) > MAX_INDEX_BYTES:
        raise IntegrityError(f"larger than {MAX_INDEX_BYTES} bytes", where=where)
    found = hashlib.sha256()
    kept = io.BytesIO()
    is_local = isinstance(store, LocalStore)
    for chunk in store.read_chunks(INDEX_NAME):
        found.update(chunk)
        if not is_local:
            kept.write(chunk)
    if found.hexdigest() != digest:
        raise IntegrityError(
            "its sha256 is not the manifest's", where=where, hint="`mmpack verify` tells what else differs."
        )
    content: Any = (
        store.path(INDEX_NAME) if isinstance(store, LocalStore) else pa.BufferReader(kept.getbuffer())
    )
    try:
        with pq.ParquetFile(content) as file:
            for name in ("key", *NAME_COLUMNS, *NUMBER_COLUMNS):
                if name not in file.schema_arrow.names or (
                    file.schema_arrow.field(name).type != INDEX_SCHEMA.field(name).type
                ):
                    raise IntegrityError(f"no column '{name}' of its type", where=where)
            yield from file.iter_batches(1 << 17, columns=["key", *NAME_COLUMNS, *NUMBER_COLUMNS])
    except (pa.ArrowException, OSError, ValueError) as error:
        raise IntegrityError(f"is not a readable Parquet file ({error})", where=where) from None


def _append_batch(
    writer: ArrayTableWriter, batch: pa.RecordBatch, names: dict[str, dict[str, int]], where: str
) -> None:
    for name in ("key", *NAME_COLUMNS, *NUMBER_COLUMNS):
        if batch.column(name).null_count:
            raise IntegrityError(f"column '{name}' has rows without a value", where=where)
    numbers = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in NUMBER_COLUMNS}
    size, offset = numbers["size_bytes"], numbers["offset_bytes"]
    wrong = (size < 0) | (size > MAX_SAMPLE_BYTES) | (offset < 0) | (offset > 1 << 60)
    wrong |= (numbers["tokens"] < 1) | (numbers["ordinal"] < 0) | (numbers["residual_ns"] < 0)
    wrong |= (numbers["tokens_text"] < 0) | (numbers["tokens_text"] > numbers["tokens"])
    padded = pc.utf8_lpad(batch.column("ordinal").cast(pa.string()), 8, "0")  # pyright: ignore
    recording = batch.column("recording").cast(pa.string())
    expected = pc.binary_join_element_wise(recording, padded, "-")  # pyright: ignore
    wrong |= ~pc.equal(batch.column("key"), expected).to_numpy(zero_copy_only=False)  # pyright: ignore
    if wrong.any():
        key = batch.column("key")[int(wrong.argmax())].as_py()
        raise IntegrityError("what the index says of it cannot be", where=f"{where}, sample '{key}'")
    for name in NAME_COLUMNS:
        writer.append(name, _codes(batch.column(name), names[name]))
    for name, values in numbers.items():
        writer.append(name, values.astype(_dtype(name), copy=False))


def _dtype(name: str) -> Any:
    return INDEX_SCHEMA.field(name).type.to_pandas_dtype()


def _codes(column: Any, known: dict[str, int]) -> NDArray[np.int32]:
    """A dictionary column as numbers of names; new names are added to `known`."""
    local = [known.setdefault(name, len(known)) for name in column.dictionary.to_pylist()]
    return np.array(local, np.int32)[column.indices.to_numpy()] if local else np.empty(0, np.int32)
