"""Writes the index and manifest of a shard set without its shards, of any size, for tests and benchmarks of planning."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmpack.layout import Layout, LayoutConfig
from mmpack.serialisation import to_builtins
from mmpack.shards.index import INDEX_SCHEMA, MODALITY_COLUMNS
from mmpack.shards.manifest import FORMAT_VERSION, INDEX_NAME, Manifest, write_manifest
from mmpack.storage.local import LocalStore

_CAMERA = "cam_front"


@dataclass(frozen=True, kw_only=True)
class IndexSource:
    """One recording or stand-alone source of the index.

    Attributes:
        name: name of the recording or source.
        kind: kind of its samples, `slice` or `text`.
        tokens: integers (samples,), number of tokens of each sample.
        runs: integers (samples,), run of each slice; None for a single run.
        residual_ns: integers (samples,), residual of each slice; None for 0.
        tokens_text: integers (samples,), number of text tokens of each sample; None for all tokens of a text and 0 of a
            slice.
    """

    name: str
    kind: str
    tokens: NDArray[np.int64]
    runs: NDArray[np.int64] | None = None
    residual_ns: NDArray[np.int64] | None = None
    tokens_text: NDArray[np.int64] | None = None


def make_index(folder: Path, sources: list[IndexSource], *, layout: LayoutConfig | None = None) -> Path:
    """Writes index.parquet and manifest.json for `sources`; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = layout or LayoutConfig(cameras=(_CAMERA,))
    digest = hashlib.sha256()
    path = folder / INDEX_NAME
    tokens: dict[str, int] = dict.fromkeys(MODALITY_COLUMNS, 0)
    offset = 0
    with pq.ParquetWriter(path, INDEX_SCHEMA, compression="zstd") as writer:
        for source in sources:
            for start in range(0, len(source.tokens), 1 << 17):
                table, offset = _make_table(source, start, min(start + (1 << 17), len(source.tokens)), offset)
                for name in MODALITY_COLUMNS:
                    tokens[name] += int(table[f"tokens_{name}"].to_numpy().sum())
                writer.write_table(table, row_group_size=1 << 17)
    with path.open("rb") as file:
        while chunk := file.read(8 << 20):
            digest.update(chunk)
    token_layout = Layout(config)
    samples = sum(len(source.tokens) for source in sources)
    write_manifest(
        LocalStore(folder),
        Manifest(
            format=FORMAT_VERSION,
            mmpack="made",
            config={"layout": to_builtins(config)},
            layout_fingerprint=token_layout.fingerprint,
            vocabulary_size=token_layout.vocabulary.size,
            samples=samples,
            tokens=sum(tokens.values()),
            slices=sum(len(source.tokens) for source in sources if source.kind == "slice"),
            quarantined=0,
            tokens_by_modality=tokens,
            shards=[],
            recordings=[],
            numeric={},
            files={INDEX_NAME: digest.hexdigest()},
        ),
    )
    return folder


def _make_table(source: IndexSource, start: int, stop: int, offset: int) -> tuple[pa.Table, int]:
    """Returns the index entries of the samples [start, stop), which begin at byte `offset`, and the next free byte."""
    count = stop - start
    ordinal = np.arange(start, stop)
    lengths = np.asarray(source.tokens[start:stop], np.int64)
    zeros = np.zeros(count, np.int64)
    is_slice = source.kind == "slice"
    if source.tokens_text is not None:
        text = np.asarray(source.tokens_text[start:stop], np.int64)
    else:
        text = zeros if is_slice else lengths
    # The sizes assume four bytes per token in the tar, plus a header.
    size = lengths * 4 + 1024
    ends = offset + np.cumsum(size)
    columns: dict[str, object] = {
        "key": [f"{source.name}-{index:08d}" for index in ordinal.tolist()],
        "shard": [f"shards/{source.name}-{shard:05d}.tar" for shard in (ordinal >> 17).tolist()],
        "offset_bytes": ends - size,
        "size_bytes": size,
        "crc32": zeros,
        "kind": [source.kind] * count,
        "recording": [source.name] * count,
        "ordinal": ordinal,
        "run": ordinal if not is_slice else zeros if source.runs is None else source.runs[start:stop],
        "t_ns": ordinal * 100_000_000,
        "residual_ns": zeros if source.residual_ns is None else source.residual_ns[start:stop],
        "cameras": [[]] * count,
        "audio": [[]] * count,
        "numeric": [[]] * count,
        "text_bytes": text * 4,
        "tokens": lengths,
        **{f"tokens_{name}": zeros for name in MODALITY_COLUMNS},
        "tokens_text": text,
        "tokens_vision": lengths - text,
    }
    arrays = []
    for field in INDEX_SCHEMA:
        # Values are converted as strings first, then to the dictionary type.
        value_type = pa.string() if pa.types.is_dictionary(field.type) else field.type
        arrays.append(pa.array(columns[field.name], type=value_type).cast(field.type))  # pyright: ignore
    return pa.Table.from_arrays(arrays, schema=INDEX_SCHEMA), int(ends[-1])
