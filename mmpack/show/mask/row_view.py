"""A row to look at: its spans and what lies in them, and spot checks of its mask at every boundary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmpack.errors import DataError
from mmpack.masks.blocks import BlockIndex
from mmpack.masks.spans import check_spans

ModalityName = Literal["special", "text", "vision", "audio", "numeric", "action"]
"""The names of `mmpack.layout.Modality` in lower case."""

MODALITIES: tuple[ModalityName, ...] = ("special", "text", "vision", "audio", "numeric", "action")


class TokenSpan(NamedTuple):
    """Consecutive places of one modality, [start, stop)."""

    start: int
    stop: int
    modality: ModalityName
    label: str = ""
    """The name of a special token or of the stream."""


@dataclass(frozen=True, slots=True)
class RowView:
    """What a picture shows of one row."""

    seq_len: int
    cu_seqlens: NDArray[np.int64]
    """(documents + 1,)"""
    images: NDArray[np.int64]
    """(images, 2): where places see each other both ways; empty in a causal row."""
    spans: tuple[TokenSpan, ...] = ()
    """In order; may be empty if only lengths are known."""
    slices: NDArray[np.int64] | None = None
    """(slices, 2): [start, stop) of each time slice."""
    modality_names: tuple[str, ...] = ()
    """Of the documents."""

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self.cu_seqlens) - 1

    @property
    def fill(self) -> float:
        """Places that are no pads / all places."""
        return int(self.cu_seqlens[-1]) / self.seq_len

    def name(self, document: int) -> str:
        """The name of a document, or its number."""
        return self.modality_names[document] if self.modality_names else f"document {document}"

    def document_of(self, position: int) -> int:
        """The document that holds a place, -1 for a pad."""
        if position >= self.cu_seqlens[-1]:
            return -1
        return int(np.searchsorted(self.cu_seqlens, position, side="right")) - 1

    def image_of(self, position: int) -> int:
        """The image that holds a place, -1 for none."""
        image = int(np.searchsorted(self.images[:, 0], position, side="right")) - 1
        return image if image >= 0 and position < self.images[image, 1] else -1


def make_row_view(
    cu_seqlens: ArrayLike,
    seq_len: int,
    *,
    image_spans: ArrayLike | None = None,
    spans: Sequence[TokenSpan] = (),
    slices: ArrayLike | None = None,
    modality_names: Sequence[str] = (),
) -> RowView:
    """A checked :class:`RowView`.

    Raises:
        DataError: spans that cannot be (as `check_spans`), pieces or slices outside the row, or not one name
            a document.
    """
    row_spans = check_spans(cu_seqlens, seq_len, image_spans)
    if modality_names and len(modality_names) != len(row_spans.cu_seqlens) - 1:
        raise DataError(
            f"{len(modality_names)} names, {len(row_spans.cu_seqlens) - 1} documents", where="names"
        )
    edges = None if slices is None else np.asarray(slices, np.int64).reshape(-1, 2)
    for where, found in (("pieces", [piece[:2] for piece in spans]), ("slices", edges)):
        ends = np.asarray([] if found is None else found, np.int64)
        if ends.size and not (ends.min() >= 0 and ends.max() <= seq_len):
            raise DataError("places outside the row", where=where)
    return RowView(
        seq_len, row_spans.cu_seqlens, row_spans.images, tuple(spans), edges, tuple(modality_names)
    )


class MaskCheck(NamedTuple):
    """One place of the mask: what it must be, what it is, and why."""

    query: int
    key: int
    expected: bool
    value: bool
    reason: str

    @property
    def passed(self) -> bool:
        """Whether the mask says what it must."""
        return self.expected == self.value


def check_mask(row: RowView, index: BlockIndex) -> list[MaskCheck]:
    """Spot checks at each boundary of documents, at the pads and at the first image of each document.

    The value is what FlexAttention makes of the block index; what it must be follows from the spans alone.

    Args:
        row: what is checked against.
        index: the blocks of that row, of :func:`mmpack.masks.build_block_index`.
    """
    found: dict[tuple[int, int], MaskCheck] = {}
    for query, key in _check_positions(row):
        expected, reason = _expected_value(row, query, key)
        found[query, key] = MaskCheck(query, key, expected, index.attends(query, key), reason)
    return list(found.values())


def _check_positions(row: RowView) -> Iterator[tuple[int, int]]:
    ends = np.unique(row.cu_seqlens).tolist()
    with_images: set[int] = set()
    for start, stop in pairwise(ends):
        last = stop - 1
        if start:
            yield start, start - 1
            yield last, start - 1
        yield start, start
        yield last, start
        for begin, end in row.images[(row.images[:, 0] >= start) & (row.images[:, 0] < stop)].tolist():
            if start in with_images:
                break
            with_images.add(start)
            yield begin, end - 1
            if end < stop:
                yield begin, end
        if stop < row.seq_len:
            yield last, stop
    if ends[-1] < row.seq_len:
        pad = ends[-1]
        if pad:
            yield pad, pad - 1
        yield pad, pad


def _expected_value(row: RowView, query: int, key: int) -> tuple[bool, str]:
    asking, asked = row.document_of(query), row.document_of(key)
    if asking < 0:
        return False, "the query is a pad"
    if asked < 0:
        return False, "the key is a pad"
    if asking != asked:
        return False, "another document"
    if key == query:
        return True, "the place itself"
    if key < query:
        return True, "earlier in the same document"
    if row.image_of(query) >= 0 and row.image_of(query) == row.image_of(key):
        return True, "later, inside one image"
    return False, "later in the same document"
