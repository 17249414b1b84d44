"""index.parquet: one row per sample with the location of its bytes, its tick and residual, and its token counts."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmpack.errors import IntegrityError
from mmpack.layout import SampleMetadata, SliceMetadata, StandAloneMetadata, TokenCounts
from mmpack.shards.manifest import INDEX_NAME as INDEX_NAME
from mmpack.storage.store import Store

QUARANTINE_NAME = "quarantine.parquet"
SYNC_NAME = "sync.parquet"
#: Size of 10**9 rows of 250 bytes; mmpack writes no larger index.
MAX_INDEX_BYTES = 256 << 30
#: Modalities with a column of token counts, the fields of :class:`mmpack.layout.TokenCounts`.
MODALITY_COLUMNS = ("text", "vision", "audio", "numeric", "action", "special")

_NAME = pa.dictionary(pa.int32(), pa.string())

#: Columns of the index. The counts `tokens_*` belong to the layout whose fingerprint the manifest names.
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


@dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """The index entry of a sample before its location and token counts are known.

    Attributes:
        key, kind, recording, ordinal, run, t_ns, residual_ns: as in the index.
        metadata: sizes and texts from which the layout counts the tokens.
        text_bytes: number of UTF-8 bytes of all texts.
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
    """The location of a sample in its shard, and the checksum of its bytes from the first header to the last padding."""

    shard: str
    offset_bytes: int
    size_bytes: int
    crc32: int


def build_index_table(
    entries: Sequence[IndexEntry], locations: Sequence[TarLocation], counts: Sequence[TokenCounts]
) -> pa.Table:
    """Builds a table of :data:`INDEX_SCHEMA` from entries, their locations and their token counts."""
    medias = [media_columns(entry.metadata) for entry in entries]
    columns = {
        "key": [entry.key for entry in entries],
        "shard": [location.shard for location in locations],
        "offset_bytes": [location.offset_bytes for location in locations],
        "size_bytes": [location.size_bytes for location in locations],
        "crc32": [location.crc32 for location in locations],
        "kind": [entry.kind for entry in entries],
        "recording": [entry.recording for entry in entries],
        "ordinal": [entry.ordinal for entry in entries],
        "run": [entry.run for entry in entries],
        "t_ns": [entry.t_ns for entry in entries],
        "residual_ns": [entry.residual_ns for entry in entries],
        **{name: [media[name] for media in medias] for name in ("cameras", "audio", "numeric")},
        "text_bytes": [entry.text_bytes for entry in entries],
        "tokens": [count.total for count in counts],
        **{f"tokens_{name}": [getattr(count, name) for count in counts] for name in MODALITY_COLUMNS},
    }
    arrays = [
        pa.array(columns[field.name], type=_plain_type(field.type)).cast(field.type) for field in INDEX_SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=INDEX_SCHEMA)


def _plain_type(type_: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_dictionary(type_) else type_


def media_columns(metadata: SampleMetadata) -> dict[str, list[dict[str, object]]]:
    """Returns the values of the columns `cameras`, `audio` and `numeric` of a sample."""
    if isinstance(metadata, SliceMetadata):
        return {
            "cameras": [
                {"name": name, "height": height, "width": width, "frames": frames[0] if frames else 1}
                for name, height, width, *frames in metadata.cameras
            ],
            "audio": [
                {"name": name, "samples": samples, "rate_hz": rate_hz}
                for name, samples, rate_hz in metadata.audio
            ],
            "numeric": [{"name": name, "rows": rows} for name, rows in metadata.numeric],
        }
    return {
        "cameras": [
            {"name": "", "height": height, "width": width, "frames": 1} for height, width in metadata.images
        ],
        "audio": [
            {"name": "", "samples": samples, "rate_hz": rate_hz} for samples, rate_hz in metadata.audio
        ],
        "numeric": [],
    }


def indexed_metadata(entry: Mapping[str, Any], texts: Sequence[str]) -> SampleMetadata:
    """Returns the metadata of a sample from its index entry: the inverse of :func:`media_columns`.

    Args:
        entry: values of the columns `kind`, `cameras`, `audio`, `numeric` and `tokens_text`.
        texts: texts of a slice, of which the index has only the total size; not used for stand-alone samples.
    """
    cameras, audio = entry["cameras"], entry["audio"]
    if entry["kind"] == "slice":
        return SliceMetadata(
            cameras=tuple((c["name"], c["height"], c["width"], c["frames"]) for c in cameras),
            audio=tuple((a["name"], a["samples"], a["rate_hz"]) for a in audio),
            numeric=tuple((n["name"], n["rows"]) for n in entry["numeric"]),
            text=tuple(texts),
        )
    return StandAloneMetadata(
        text=entry["tokens_text"],
        images=tuple((c["height"], c["width"]) for c in cameras),
        audio=tuple((a["samples"], a["rate_hz"]) for a in audio),
    )


def encode_parquet(table: pa.Table) -> bytes:
    """Encodes a table as Parquet. Equal tables give equal bytes with the same pyarrow version."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_statistics=True, row_group_size=1 << 17)
    return sink.getvalue()


def read_parquet(store: Store, name: str) -> pa.Table:
    """Reads a Parquet file of the store. Raises StorageError, IntegrityError."""
    data = store.read(name, limit=MAX_INDEX_BYTES)
    return decode_parquet(data, where=f"{store.url}/{name}")


def decode_parquet(data: bytes, *, where: str) -> pa.Table:
    """Decodes the bytes of :func:`encode_parquet` to a table. Raises IntegrityError."""
    try:
        return pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise IntegrityError(f"is not a readable Parquet file ({error})", where=where) from None


def require_schema(table: pa.Table, schema: pa.Schema, *, where: str) -> pa.Table:
    """Returns `table` if its columns are those of `schema`, else raises IntegrityError with the first wrong column."""
    for field in schema:
        if field.name not in table.column_names:
            raise IntegrityError(f"there is no column '{field.name}'", where=where)
        type_ = table.schema.field(field.name).type
        if type_ != field.type:
            raise IntegrityError(f"the column '{field.name}' is {type_}, not {field.type}", where=where)
        # Arrow allows null lists, but the index has none: a sample without cameras has an empty list.
        if table[field.name].null_count:
            raise IntegrityError(f"the column '{field.name}' has rows without a value", where=where)
    if len(table.column_names) != len(schema):
        raise IntegrityError(
            f"the table has {len(table.column_names)} columns, not {len(schema)}", where=where
        )
    return table
