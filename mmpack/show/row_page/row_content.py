"""What the places of a row hold, read back from the ids: pieces, and for runs of slices what each slice has.

Nothing is taken from anywhere but the row's own arrays, so what is shown is what a model is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mmpack.layout import Layout, Modality
from mmpack.rows.row import Row


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """Consecutive places of one kind.

    Attributes:
        start, stop: its places, [start, stop).
        modality: of all of them.
        name: of a special token; for any other piece, of the stream that the token before it names, or empty.
        image: number of the picture in the row; -1 where it is none.
    """

    start: int
    stop: int
    modality: Modality
    name: str
    image: int = -1

    @property
    def num_positions(self) -> int:
        """How many."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class SliceView:
    """One time-slice of a document.

    Attributes:
        t_ns: its tick, on its recording's clock.
        key: of its sample; empty if the row does not say.
        pieces: what it holds, its time token first.
    """

    t_ns: int
    key: str
    spans: tuple[TokenSpan, ...]


@dataclass(frozen=True, slots=True)
class DocumentView:
    """One document of a row.

    Attributes:
        number: in the row.
        start, stop: its places, [start, stop).
        dataset: number of its data set in the plan.
        keys: of its samples.
        valid: False for the places of an unreadable sample.
        pieces: all that it holds, in order.
        slices: of a run; empty for a stand-alone sample.
    """

    number: int
    start: int
    stop: int
    dataset: int
    keys: tuple[str, ...]
    valid: bool
    spans: tuple[TokenSpan, ...]
    slices: tuple[SliceView, ...]


def read_documents(row: Row, layout: Layout) -> Iterator[DocumentView]:
    """The documents of a row, in order."""
    streams = {*layout.config.cameras, *(stream.name for stream in layout.config.numeric)}
    ends = row.cu_seqlens.tolist()
    for number, (start, stop) in enumerate(pairwise(ends)):
        pieces = tuple(_read_spans(row, layout, streams, start, stop))
        keys = row.keys[number]
        yield DocumentView(
            number,
            start,
            stop,
            int(row.datasets[number]),
            keys,
            bool(row.document_valid[number]),
            pieces,
            tuple(_slices(row, pieces, keys)),
        )


def _read_spans(row: Row, layout: Layout, streams: set[str], start: int, stop: int) -> Iterator[TokenSpan]:
    modality = row.modality[start:stop]
    image = np.full(stop - start, -1)
    for number in np.flatnonzero((row.image_spans[:, 0] >= start) & (row.image_spans[:, 1] <= stop)).tolist():
        first, last = row.image_spans[number] - start
        image[first:last] = number
    ids = row.input_ids[start:stop]
    # A special token is a piece of its own, repeated ones are one, and two pictures side by side are two.
    begins = np.ones(stop - start, np.bool_)
    begins[1:] = (modality[1:] != modality[:-1]) | (image[1:] != image[:-1])
    begins[1:] |= (modality[1:] == Modality.SPECIAL) & (ids[1:] != ids[:-1])
    edges = [*np.flatnonzero(begins).tolist(), stop - start]
    stream = ""
    for first, last in pairwise(edges):
        kind = Modality(int(modality[first]))
        if kind == Modality.SPECIAL:
            name = layout.vocabulary.name(int(ids[first]))
            bare = name.removeprefix("<|").removesuffix("|>")
            stream = bare if bare in streams else ""
        yield TokenSpan(
            start + first,
            start + last,
            kind,
            name if kind == Modality.SPECIAL else stream,
            int(image[first]),
        )


def _slices(row: Row, spans: tuple[TokenSpan, ...], keys: tuple[str, ...]) -> Iterator[SliceView]:
    found: dict[int, list[TokenSpan]] = {}
    for piece in spans:
        number = int(row.slice_ids[piece.start])
        if number >= 0:
            found.setdefault(number, []).append(piece)
    for order, (number, own) in enumerate(found.items()):
        yield SliceView(int(row.t_ns[number]), keys[order] if order < len(keys) else "", tuple(own))


def numeric_values(row: Row, layout: Layout, span: TokenSpan) -> NDArray[np.float64]:
    """The rows of numbers that a piece of a numeric stream holds, float64 (rows, width); NaN where there is none.

    Continuous ones are normalised as the row has them; of discrete ones it is the middles of their bins.
    """
    stream = next(stream for stream in layout.config.numeric if stream.name == span.name)
    if stream.mode == "discrete":
        first = layout.vocabulary.range(f"bins:{stream.name}").start
        return stream.decode((row.input_ids[span.start : span.stop] - first).reshape(-1, stream.width))
    is_action = span.modality == Modality.ACTION
    index = row.action_index if is_action else row.value_index
    values, mask = (row.actions, row.action_mask) if is_action else (row.values, row.value_mask)
    own = slice(*np.searchsorted(index, (span.start, span.stop)))
    return np.where(mask[own], values[own], np.nan).astype(np.float64)[:, : stream.width]
