"""Row views of a shard set: its samples in the order of the index, without mixing and packing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mmpack.errors import DataError
from mmpack.layout import Layout, LayoutConfig, Modality, Segment
from mmpack.samples.description import (
    JSON_MEMBER,
    SliceDescription,
    TextDescription,
    read_description,
    read_stream_description,
)
from mmpack.settings import parse_settings
from mmpack.shards.index import indexed_metadata
from mmpack.shards.reader import ShardSet
from mmpack.show.mask.row_view import RowView, TokenSpan, make_row_view

RowDocuments = list[list[dict[str, Any]]]
"""Index rows of each document of a row."""


def index_row_view(
    shards: ShardSet, number: int, max_seq_len: int, *, bidirectional_images: bool = True
) -> RowView:
    """Makes the view of one row of a shard set; a row gets consecutive samples until the next one does not fit.

    The consecutive slices of a run form one document, with the prefix and suffix of the layout; a stand-alone sample is a
    document by itself. A run that does not fit into the row continues in the next row as another document.

    Args:
        shards: shard set.
        number: number of the row, from 0.
        max_seq_len: number of positions of a row.
        bidirectional_images: True if the positions of one image attend to each other in both directions.

    Raises:
        ConfigError: the layout of the shard set cannot be opened, for example because its tokenizer file is missing.
        DataError: there is no such row, a sample is longer than a row, or the layout and the index give a sample
            different lengths.
    """
    layout = Layout(parse_settings(shards.manifest.config["layout"], LayoutConfig, where="manifest.json"))
    row = -1
    for row, documents in enumerate(_fill_rows(shards, layout.document_overhead, max_seq_len)):
        if row == number:
            return _make_view(shards, layout, documents, max_seq_len, bidirectional_images)
    raise DataError(
        f"the shard set has {row + 1} rows of {max_seq_len} positions, counted from 0", where=f"row {number}"
    )


def _fill_rows(shards: ShardSet, overhead: int, max_seq_len: int) -> Iterator[RowDocuments]:
    documents: RowDocuments = []
    used = 0
    for batch in shards.index.to_batches(max_chunksize=4096):
        for sample in batch.to_pylist():
            is_slice = sample["kind"] == "slice"
            document_tokens = sample["tokens"] + (overhead if is_slice else 0)
            if document_tokens > max_seq_len:
                raise DataError(
                    f"{document_tokens} tokens do not fit in a row of {max_seq_len}",
                    where=sample["key"],
                    hint=f"Use --max-seq-len {document_tokens} or more.",
                )
            continues = bool(documents) and is_slice and _is_same_run(documents[-1][-1], sample)
            added = sample["tokens"] if continues else document_tokens
            if used + added > max_seq_len:
                yield documents
                documents, used, continues, added = [], 0, False, document_tokens
            if continues:
                documents[-1].append(sample)
            else:
                documents.append([sample])
            used += added
    if documents:
        yield documents


def _is_same_run(previous: dict[str, Any], sample: dict[str, Any]) -> bool:
    return all(previous[name] == sample[name] for name in ("kind", "recording", "run"))


def _make_view(
    shards: ShardSet, layout: Layout, documents: RowDocuments, max_seq_len: int, bidirectional_images: bool
) -> RowView:
    spans: list[TokenSpan] = []
    image_spans: list[tuple[int, int]] = []
    slices: list[tuple[int, int]] = []
    ends = [0]
    position = 0

    def add(segments: tuple[Segment, ...]) -> None:
        nonlocal position
        for segment in segments:
            stop = position + segment.tokens
            name = segment.token if segment.modality == Modality.SPECIAL else segment.stream
            image = len(image_spans) if segment.kind == "image" else -1
            spans.append(TokenSpan(position, stop, segment.modality, name, image))
            if segment.kind == "image":
                image_spans.append((position, stop))
            position = stop

    for samples in documents:
        is_run = samples[0]["kind"] == "slice"
        add(layout.document_prefix if is_run else ())
        for sample in samples:
            start = position
            add(layout.sample_segments(indexed_metadata(sample, _read_texts(shards, sample))))
            if position - start != sample["tokens"]:
                raise DataError(
                    f"the sample has {position - start} tokens under the layout, but {sample['tokens']} in the index",
                    where=sample["key"],
                    hint="Run `mmpack verify` to find all differences.",
                )
            if is_run:
                slices.append((start, position))
        add(layout.document_suffix if is_run else ())
        ends.append(position)
    return make_row_view(
        ends,
        max_seq_len,
        image_spans=np.array(image_spans, np.int64).reshape(-1, 2) if bidirectional_images else None,
        spans=spans,
        slices=slices,
        document_names=[samples[0]["key"] for samples in documents],
    )


def _read_texts(shards: ShardSet, sample: dict[str, Any]) -> tuple[str, ...]:
    """Reads the texts of a slice from its json member, because the index has only their total size."""
    if sample["kind"] != "slice" or not sample["text_bytes"]:
        return ()
    description = read_description(
        shards.read(sample)[JSON_MEMBER], SliceDescription, where=f"sample '{sample['key']}'"
    )
    streams = map(read_stream_description, description.streams.values())
    return tuple(
        entry.text for stream in streams if isinstance(stream, TextDescription) for entry in stream.texts
    )
