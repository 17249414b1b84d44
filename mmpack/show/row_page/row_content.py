"""Decoder of the content of a row: its documents, their spans, and the slices of runs.

Only the arrays of the row are used, so the result is exactly the input of a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mmpack.layout import Layout, Modality
from mmpack.rows.row import Row
from mmpack.show.mask.row_view import TokenSpan


@dataclass(frozen=True, slots=True)
class SliceView:
    """A slice of a document.

    Attributes:
        t_ns: tick of the slice, on the clock of its recording.
        key: key of the sample; empty if the row has no key for it.
        spans: spans of the slice, the time token first.
    """

    t_ns: int
    key: str
    spans: tuple[TokenSpan, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentView:
    """A document of a row.

    Attributes:
        number: index of the document in the row.
        start, stop: positions of the document, [start, stop).
        dataset: index of the data set in the plan.
        keys: keys of the samples.
        is_valid: False for the positions of an unreadable sample.
        spans: all spans in order.
        slices: slices of a run; empty for a stand-alone sample.
    """

    number: int
    start: int
    stop: int
    dataset: int
    keys: tuple[str, ...]
    is_valid: bool
    spans: tuple[TokenSpan, ...]
    slices: tuple[SliceView, ...]


def read_documents(row: Row, layout: Layout) -> Iterator[DocumentView]:
    """Yields the documents of a row, in order."""
    streams = {*layout.config.cameras, *(stream.name for stream in layout.config.numeric)}
    ends = row.cu_seqlens.tolist()
    for number, (start, stop) in enumerate(pairwise(ends)):
        spans = tuple(_read_spans(row, layout, streams, start, stop))
        keys = row.keys[number]
        yield DocumentView(
            number=number,
            start=start,
            stop=stop,
            dataset=int(row.datasets[number]),
            keys=keys,
            is_valid=bool(row.document_valid[number]),
            spans=spans,
            slices=tuple(_group_slices(row, spans, keys)),
        )


def _read_spans(row: Row, layout: Layout, streams: set[str], start: int, stop: int) -> Iterator[TokenSpan]:
    """Yields the spans of a document, each named by its special token, or by the stream of the special token before it."""
    modality = row.modality[start:stop]
    image = np.full(stop - start, -1)
    for index in np.flatnonzero((row.image_spans[:, 0] >= start) & (row.image_spans[:, 1] <= stop)).tolist():
        first, last = row.image_spans[index] - start
        image[first:last] = index
    ids = row.input_ids[start:stop]
    # Equal consecutive special tokens form one span, different ones do not, and every image is a span of its own.
    begins = np.ones(stop - start, np.bool_)
    begins[1:] = (modality[1:] != modality[:-1]) | (image[1:] != image[:-1])
    begins[1:] |= (modality[1:] == Modality.SPECIAL) & (ids[1:] != ids[:-1])
    edges = [*np.flatnonzero(begins).tolist(), stop - start]
    stream = ""
    for first, last in pairwise(edges):
        span_modality = Modality(int(modality[first]))
        if span_modality == Modality.SPECIAL:
            name = layout.vocabulary.name(int(ids[first]))
            stream_name = name.removeprefix("<|").removesuffix("|>")
            stream = stream_name if stream_name in streams else ""
        yield TokenSpan(
            start + first,
            start + last,
            span_modality,
            name if span_modality == Modality.SPECIAL else stream,
            int(image[first]),
        )


def _group_slices(row: Row, spans: tuple[TokenSpan, ...], keys: tuple[str, ...]) -> Iterator[SliceView]:
    spans_by_slice: dict[int, list[TokenSpan]] = {}
    for span in spans:
        slice_id = int(row.slice_ids[span.start])
        if slice_id >= 0:
            spans_by_slice.setdefault(slice_id, []).append(span)
    for order, (slice_id, slice_spans) in enumerate(spans_by_slice.items()):
        yield SliceView(int(row.t_ns[slice_id]), keys[order] if order < len(keys) else "", tuple(slice_spans))


def numeric_values(row: Row, layout: Layout, span: TokenSpan) -> NDArray[np.float64]:
    """Returns the rows of values in a span of a numeric stream, float64 (rows, width); NaN for a missing value.

    Continuous values are normalised, as in the row. Discrete values are the centres of their bins.
    """
    stream = next(stream for stream in layout.config.numeric if stream.name == span.name)
    if stream.mode == "discrete":
        first = layout.vocabulary.range(f"bins:{stream.name}").start
        return stream.decode((row.input_ids[span.start : span.stop] - first).reshape(-1, stream.width))
    is_action = span.modality == Modality.ACTION
    index = row.action_index if is_action else row.value_index
    values, mask = (row.actions, row.action_mask) if is_action else (row.values, row.value_mask)
    selection = slice(*np.searchsorted(index, (span.start, span.stop)))
    return np.where(mask[selection], values[selection], np.nan).astype(np.float64)[:, : stream.width]
