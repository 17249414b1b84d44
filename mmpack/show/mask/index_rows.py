"""Rows of a finished build to look at: its samples in the order of the index, without mixing or packing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from mmpack.errors import DataError
from mmpack.layout import (
    ImageTextMetadata,
    Layout,
    LayoutConfig,
    SampleMetadata,
    Segment,
    SliceMetadata,
    SpeechMetadata,
    TextMetadata,
)
from mmpack.settings import parse_settings
from mmpack.shards.reader import ShardSet
from mmpack.show.mask.row_view import MODALITIES, RowView, TokenSpan, make_row_view

Documents = list[list[dict[str, Any]]]
"""The index rows of each document of a row."""


def index_row_view(shards: ShardSet, number: int, max_seq_len: int, *, images: bool = True) -> RowView:
    """Row `number` of a build, filled with consecutive samples until the next one does not fit.

    Slices that follow each other in a recording are one document, inside the layout's prefix and suffix; a
    stand-alone sample is a document by itself. A run of slices that does not fit ends at the row's end and
    goes on in the next row as another document.

    Args:
        shards: a finished build.
        number: of the row, from 0.
        max_seq_len: places of a row.
        images: places of one picture see each other both ways.

    Raises:
        ConfigError: the build's layout cannot be opened, as when its tokenizer file is gone.
        DataError: there is no such row, a sample is longer than a row, or the layout gives a sample another
            length than the index.
    """
    layout = Layout(parse_settings(shards.manifest.config["layout"], LayoutConfig, where="manifest.json"))
    row = -1
    for row, documents in enumerate(_fill_rows(shards, layout.document_overhead, max_seq_len)):
        if row == number:
            return _make_view(shards, layout, documents, max_seq_len, images)
    raise DataError(
        f"the build has {row + 1} rows of {max_seq_len} places, counted from 0", where=f"row {number}"
    )


def _fill_rows(shards: ShardSet, overhead: int, max_seq_len: int) -> Iterator[Documents]:
    documents: Documents = []
    used = 0
    for batch in shards.index.to_batches(max_chunksize=4096):
        for sample in batch.to_pylist():
            is_slice = sample["kind"] == "slice"
            alone = sample["tokens"] + (overhead if is_slice else 0)
            if alone > max_seq_len:
                raise DataError(
                    f"{alone} tokens do not fit in a row of {max_seq_len}",
                    where=sample["key"],
                    hint=f"Use --max-seq-len {alone} or more.",
                )
            follows = bool(documents) and is_slice and _same_run(documents[-1][-1], sample)
            cost = sample["tokens"] if follows else alone
            if used + cost > max_seq_len:
                yield documents
                documents, used, follows, cost = [], 0, False, alone
            if follows:
                documents[-1].append(sample)
            else:
                documents.append([sample])
            used += cost
    if documents:
        yield documents


def _same_run(previous: dict[str, Any], sample: dict[str, Any]) -> bool:
    return all(previous[name] == sample[name] for name in ("kind", "recording", "run"))


def _make_view(
    shards: ShardSet, layout: Layout, documents: Documents, max_seq_len: int, images: bool
) -> RowView:
    pieces: list[TokenSpan] = []
    pictures: list[tuple[int, int]] = []
    slices: list[tuple[int, int]] = []
    ends = [0]
    place = 0

    def add(segments: tuple[Segment, ...]) -> None:
        nonlocal place
        for segment in segments:
            stop = place + segment.tokens
            pieces.append(
                TokenSpan(place, stop, MODALITIES[segment.modality], segment.stream or segment.token)
            )
            if segment.kind == "image":
                pictures.append((place, stop))
            place = stop

    for samples in documents:
        is_run = samples[0]["kind"] == "slice"
        add(layout.document_prefix if is_run else ())
        for sample in samples:
            start = place
            add(layout.sample_segments(_sample_metadata(shards, sample)))
            if place - start != sample["tokens"]:
                raise DataError(
                    f"the layout gives it {place - start} tokens, the index {sample['tokens']}",
                    where=sample["key"],
                    hint="`mmpack verify` tells what else differs.",
                )
            if is_run:
                slices.append((start, place))
        add(layout.document_suffix if is_run else ())
        ends.append(place)
    return make_row_view(
        ends,
        max_seq_len,
        image_spans=np.array(pictures, np.int64).reshape(-1, 2) if images else None,
        spans=pieces,
        slices=slices,
        modality_names=[samples[0]["key"] for samples in documents],
    )


def _sample_metadata(shards: ShardSet, sample: dict[str, Any]) -> SampleMetadata:
    if sample["kind"] == "slice":
        return SliceMetadata(
            cameras=tuple((c["name"], c["height"], c["width"], c["frames"]) for c in sample["cameras"]),
            audio=tuple((a["name"], a["samples"], a["rate_hz"]) for a in sample["audio"]),
            numeric=tuple((n["name"], n["rows"]) for n in sample["numeric"]),
            text=_texts(shards, sample),
        )
    text = sample["tokens_text"]
    if sample["kind"] == "image_text":
        picture = sample["cameras"][0]
        return ImageTextMetadata(picture["height"], picture["width"], text)
    if sample["kind"] == "speech":
        sound = sample["audio"][0]
        return SpeechMetadata(sound["samples"], sound["rate_hz"], text)
    return TextMetadata(text)


def _texts(shards: ShardSet, sample: dict[str, Any]) -> tuple[str, ...]:
    """The texts of a slice. The index has only their sum, so the sample itself is read."""
    if not sample["text_bytes"]:
        return ()
    streams = json.loads(shards.read(sample)["json"])["streams"]
    return tuple(entry["text"] for facts in streams.values() for entry in facts.get("texts", ()))
