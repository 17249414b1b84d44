"""index.parquet: a row per sample, with where its bytes lie, when it was, how far off it was, and how many
tokens it makes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from mmpack.errors import IntegrityError
from mmpack.layout import ImageTextMetadata, SampleMetadata, SliceMetadata, SpeechMetadata, TokenCounts
from mmpack.shards.manifest import INDEX_NAME as INDEX_NAME
from mmpack.storage.store import Store

QUARANTINE_NAME = "quarantine.parquet"
SYNC_NAME = "sync.parquet"
#: 10**9 rows of 250 bytes; larger is not an index of ours.
MAX_INDEX_BYTES = 256 << 30
#: What tokens are counted by, as in :class:`mmpack.layout.TokenCounts`.
MODALITY_COLUMNS = ("text", "vision", "audio", "numeric", "action", "special")

_NAME = pa.dictionary(pa.int32(), pa.string())

#: Columns of the index. Counts under `tokens_*` are those of the layout whose fingerprint the manifest names.
INDEX_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", _NAME, nullable=False),
        pa.field("offset_bytes", pa.int64(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("crc32", pa.uint32(), nullable=False),
        pa.field("kind", _NAME, nullable=False),
        pa.field("recording", _NAME, nullable=False),
        pa.field("ordinal", pa.int64(), nullable=False),
        pa.field("run", pa.int32(), nullable=False),
        pa.field("t_ns", pa.int64(), nullable=False),
        pa.field("residual_ns", pa.int64(), nullable=False),
        pa.field(
            "cameras",
            pa.list_(
                pa.struct(
                    [
                        ("name", pa.string()),
                        ("height", pa.int32()),
                        ("width", pa.int32()),
                        ("frames", pa.int32()),
                    ]
                )
            ),
        ),
        pa.field(
            "audio",
            pa.list_(pa.struct([("name", pa.string()), ("samples", pa.int64()), ("rate_hz", pa.int32())])),
        ),
        pa.field("numeric", pa.list_(pa.struct([("name", pa.string()), ("rows", pa.int32())]))),
        pa.field("text_bytes", pa.int64(), nullable=False),
        pa.field("tokens", pa.int32(), nullable=False),
        pa.field("tokens_text", pa.int32(), nullable=False),
        pa.field("tokens_vision", pa.int32(), nullable=False),
        pa.field("tokens_audio", pa.int32(), nullable=False),
        pa.field("tokens_numeric", pa.int32(), nullable=False),
        pa.field("tokens_action", pa.int32(), nullable=False),
        pa.field("tokens_special", pa.int32(), nullable=False),
    ]
)

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("recording", pa.string(), nullable=False),
        pa.field("ordinal", pa.int64(), nullable=False),
        pa.field("t_ns", pa.int64(), nullable=False),
        pa.field("stream", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class IndexEntry:
    """One sample before its tokens are counted.

    Attributes:
        key, kind, recording, ordinal, run, t_ns, residual_ns: as in the index.
        facts: what the layout counts.
        text_bytes: UTF-8 bytes of its texts.
    """

    key: str
    kind: str
    recording: str
    ordinal: int
    run: int
    t_ns: int
    residual_ns: int
    metadata: SampleMetadata
    text_bytes: int


@dataclass(frozen=True)
class TarLocation:
    """Where a sample's tar members lie, and their checksum from the first header to the last padding."""

    shard: str
    offset_bytes: int
    size_bytes: int
    crc32: int


def build_index_table(
    rows: Sequence[IndexEntry], locations: Sequence[TarLocation], counts: Sequence[TokenCounts]
) -> pa.Table:
    """Rows, their places and their token counts as a table of :data:`INDEX_SCHEMA`."""
    medias = [media_columns(row.metadata) for row in rows]
    columns = {
        "key": [row.key for row in rows],
        "shard": [place.shard for place in locations],
        "offset_bytes": [place.offset_bytes for place in locations],
        "size_bytes": [place.size_bytes for place in locations],
        "crc32": [place.crc32 for place in locations],
        "kind": [row.kind for row in rows],
        "recording": [row.recording for row in rows],
        "ordinal": [row.ordinal for row in rows],
        "run": [row.run for row in rows],
        "t_ns": [row.t_ns for row in rows],
        "residual_ns": [row.residual_ns for row in rows],
        **{name: [media[name] for media in medias] for name in ("cameras", "audio", "numeric")},
        "text_bytes": [row.text_bytes for row in rows],
        "tokens": [count.total for count in counts],
        **{f"tokens_{name}": [getattr(count, name) for count in counts] for name in MODALITY_COLUMNS},
    }
    arrays = [
        pa.array(columns[field.name], type=_plain_type(field.type)).cast(field.type) for field in INDEX_SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=INDEX_SCHEMA)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_dictionary(kind) else kind


def media_columns(metadata: SampleMetadata) -> dict[str, list[dict[str, object]]]:
    """The columns `cameras`, `audio` and `numeric` of a sample."""
    return {"cameras": _cameras(metadata), "audio": _audio(metadata), "numeric": _numeric(metadata)}


def _cameras(metadata: SampleMetadata) -> list[dict[str, object]]:
    if isinstance(metadata, SliceMetadata):
        return [
            {"name": name, "height": height, "width": width, "frames": frames[0] if frames else 1}
            for name, height, width, *frames in metadata.cameras
        ]
    if isinstance(metadata, ImageTextMetadata):
        return [{"name": "", "height": metadata.height, "width": metadata.width, "frames": 1}]
    return []


def _audio(metadata: SampleMetadata) -> list[dict[str, object]]:
    if isinstance(metadata, SliceMetadata):
        return [{"name": name, "samples": samples, "rate_hz": rate} for name, samples, rate in metadata.audio]
    if isinstance(metadata, SpeechMetadata):
        return [{"name": "", "samples": metadata.samples, "rate_hz": metadata.rate_hz}]
    return []


def _numeric(metadata: SampleMetadata) -> list[dict[str, object]]:
    return (
        [{"name": name, "rows": rows} for name, rows in metadata.numeric]
        if isinstance(metadata, SliceMetadata)
        else []
    )


def encode_parquet(table: pa.Table) -> bytes:
    """A table as Parquet; equal tables give equal bytes under one pyarrow version."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_statistics=True, row_group_size=1 << 17)
    return sink.getvalue()


def read_parquet(store: Store, name: str) -> pa.Table:
    """A Parquet file of the store. Raises StorageError or IntegrityError."""
    data = store.read(name, limit=MAX_INDEX_BYTES)
    return decode_parquet(data, where=f"{store.url}/{name}")


def decode_parquet(data: bytes, *, where: str) -> pa.Table:
    """A table of :func:`to_bytes`. Raises IntegrityError."""
    try:
        return pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise IntegrityError(f"is not a readable Parquet file ({error})", where=where) from None


def require_schema(table: pa.Table, schema: pa.Schema, *, where: str) -> pa.Table:
    """`table` if its columns are those of `schema`. Raises IntegrityError naming the first that is not."""
    for field in schema:
        if field.name not in table.column_names:
            raise IntegrityError(f"no column '{field.name}'", where=where)
        found = table.schema.field(field.name).type
        if found != field.type:
            raise IntegrityError(f"column '{field.name}' is {found}, not {field.type}", where=where)
        # Lists are never null, though Arrow would allow it: a sample without cameras has an empty one.
        if table[field.name].null_count:
            raise IntegrityError(f"column '{field.name}' has rows without a value", where=where)
    if len(table.column_names) != len(schema):
        raise IntegrityError(f"{len(table.column_names)} columns, not {len(schema)}", where=where)
    return table
