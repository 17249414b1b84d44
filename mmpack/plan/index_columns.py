"""Conversion of index.parquet to flat columns: read batch by batch and checked."""

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
"""Text columns, stored as int32 indices of names."""
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
"""Columns of integers, stored with the type of the index schema."""


def write_columns(writer: ArrayTableWriter, store: Store, digest: str) -> None:
    """Writes `NAME_COLUMNS` as int32 indices of names, and `NUMBER_COLUMNS`. The key `names` of `meta` has the names.

    Args:
        writer: destination of the columns.
        store: store of the shard set.
        digest: sha256 of index.parquet according to the manifest, in hexadecimal.

    Raises:
        IntegrityError: the digest of the index differs, or the index is invalid.
        StorageError: the index cannot be read.
    """
    where = f"{store.url}/{INDEX_NAME}"
    names: dict[str, dict[str, int]] = {name: {} for name in NAME_COLUMNS}
    for batch in _read_batches(store, digest, where):
        _append_batch(writer, batch, names, where)
    for name in (*NAME_COLUMNS, *NUMBER_COLUMNS):
        writer.append(name, np.empty(0, np.int32 if name in NAME_COLUMNS else _dtype(name)))
    writer.meta = {"names": {name: list(codes) for name, codes in names.items()}}


def _read_batches(store: Store, digest: str, where: str) -> Iterator[pa.RecordBatch]:
    """Yields the batches of the index after its digest was checked."""
    if store.size(INDEX_NAME) > MAX_INDEX_BYTES:
        raise IntegrityError(f"the index is larger than {MAX_INDEX_BYTES} bytes", where=where)
    actual_digest = hashlib.sha256()
    buffered = io.BytesIO()
    is_local = isinstance(store, LocalStore)
    for chunk in store.read_chunks(INDEX_NAME):
        actual_digest.update(chunk)
        if not is_local:
            buffered.write(chunk)
    if actual_digest.hexdigest() != digest:
        raise IntegrityError(
            "the sha256 of the index differs from the manifest",
            where=where,
            hint="Run `mmpack verify` to find out what else differs.",
        )
    content: Any = (
        store.path(INDEX_NAME) if isinstance(store, LocalStore) else pa.BufferReader(buffered.getbuffer())
    )
    try:
        with pq.ParquetFile(content) as file:
            for name in ("key", *NAME_COLUMNS, *NUMBER_COLUMNS):
                if name not in file.schema_arrow.names or (
                    file.schema_arrow.field(name).type != INDEX_SCHEMA.field(name).type
                ):
                    raise IntegrityError(f"column '{name}' is missing or has another type", where=where)
            yield from file.iter_batches(1 << 17, columns=["key", *NAME_COLUMNS, *NUMBER_COLUMNS])
    except (pa.ArrowException, OSError, ValueError) as error:
        raise IntegrityError(f"the index is not a readable Parquet file ({error})", where=where) from None


def _append_batch(
    writer: ArrayTableWriter, batch: pa.RecordBatch, names: dict[str, dict[str, int]], where: str
) -> None:
    """Checks a batch of the index and appends its columns; new names are added to `names`."""
    for name in ("key", *NAME_COLUMNS, *NUMBER_COLUMNS):
        if batch.column(name).null_count:
            raise IntegrityError(f"column '{name}' has rows without a value", where=where)
    numbers = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in NUMBER_COLUMNS}
    size, offset = numbers["size_bytes"], numbers["offset_bytes"]
    is_invalid = (size < 0) | (size > MAX_SAMPLE_BYTES) | (offset < 0) | (offset > 1 << 60)
    is_invalid |= (numbers["tokens"] < 1) | (numbers["ordinal"] < 0) | (numbers["residual_ns"] < 0)
    is_invalid |= (numbers["tokens_text"] < 0) | (numbers["tokens_text"] > numbers["tokens"])
    padded = pc.utf8_lpad(batch.column("ordinal").cast(pa.string()), 8, "0")  # pyright: ignore
    recording = batch.column("recording").cast(pa.string())
    expected = pc.binary_join_element_wise(recording, padded, "-")  # pyright: ignore
    is_invalid |= ~pc.equal(batch.column("key"), expected).to_numpy(zero_copy_only=False)  # pyright: ignore
    if is_invalid.any():
        key = batch.column("key")[int(is_invalid.argmax())].as_py()
        raise IntegrityError(
            "the index entry of the sample has impossible values", where=f"{where}, sample '{key}'"
        )
    for name in NAME_COLUMNS:
        writer.append(name, _encode_names(batch.column(name), names[name]))
    for name, values in numbers.items():
        writer.append(name, values.astype(_dtype(name), copy=False))


def _dtype(name: str) -> Any:
    return INDEX_SCHEMA.field(name).type.to_pandas_dtype()


def _encode_names(column: Any, codes: dict[str, int]) -> NDArray[np.int32]:
    """Returns a dictionary column as indices of names; new names are added to `codes`."""
    dictionary = [codes.setdefault(name, len(codes)) for name in column.dictionary.to_pylist()]
    return np.array(dictionary, np.int32)[column.indices.to_numpy()] if dictionary else np.empty(0, np.int32)
