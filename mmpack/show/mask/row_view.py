"""A view of a row: its documents and spans, and spot checks of its mask at every boundary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmpack.errors import DataError
from mmpack.layout import Modality
from mmpack.masks.blocks import BlockIndex
from mmpack.masks.spans import check_spans


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """A span of consecutive positions with the same content type.

    Attributes:
        start, stop: positions of the span, [start, stop).
        modality: modality of all positions.
        name: name of the special token, or of the stream of any other span; empty if there is none, or it is unknown.
        image: index of the image in the row; -1 for a span that is not an image.
    """

    start: int
    stop: int
    modality: Modality
    name: str = ""
    image: int = -1

    @property
    def num_positions(self) -> int:
        """The number of positions."""
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True, slots=True)
class RowView:
    """The parts of a row that a plot of its mask shows."""

    seq_len: int
    cu_seqlens: NDArray[np.int64]
    """int64 (documents + 1,): start of each document, and the end of the last one."""
    image_spans: NDArray[np.int64]
    """int64 (images, 2): spans whose positions attend to each other in both directions; empty in a causal row."""
    spans: tuple[TokenSpan, ...] = ()
    """Spans in order; empty if only the lengths of documents are known."""
    slices: NDArray[np.int64] | None = None
    """int64 (slices, 2): span of each slice."""
    document_names: tuple[str, ...] = ()
    """Name of each document; may be empty."""

    @property
    def num_documents(self) -> int:
        """The number of documents."""
        return len(self.cu_seqlens) - 1

    @property
    def fill(self) -> float:
        """The share of positions that are not padding."""
        return int(self.cu_seqlens[-1]) / self.seq_len

    def document_name(self, document: int) -> str:
        """Returns the name of a document, or `document INDEX` if documents have no names."""
        return self.document_names[document] if self.document_names else f"document {document}"

    def find_document(self, position: int) -> int:
        """Returns the index of the document at a position, -1 for padding."""
        if position >= self.cu_seqlens[-1]:
            return -1
        return int(np.searchsorted(self.cu_seqlens, position, side="right")) - 1

    def find_image(self, position: int) -> int:
        """Returns the index of the image at a position, -1 without an image."""
        image = int(np.searchsorted(self.image_spans[:, 0], position, side="right")) - 1
        return image if image >= 0 and position < self.image_spans[image, 1] else -1


def make_row_view(
    cu_seqlens: ArrayLike,
    seq_len: int,
    *,
    image_spans: ArrayLike | None = None,
    spans: Sequence[TokenSpan] = (),
    slices: ArrayLike | None = None,
    document_names: Sequence[str] = (),
) -> RowView:
    """Makes a :class:`RowView` and checks its arguments.

    Raises:
        DataError: invalid spans (see `check_spans`), spans or slices outside the row, or a number of names that differs
            from the number of documents.
    """
    row_spans = check_spans(cu_seqlens, seq_len, image_spans)
    if document_names and len(document_names) != len(row_spans.cu_seqlens) - 1:
        raise DataError(
            f"{len(document_names)} names for {len(row_spans.cu_seqlens) - 1} documents",
            where="document_names",
        )
    edges = None if slices is None else np.asarray(slices, np.int64).reshape(-1, 2)
    for where, ranges in (("spans", [(span.start, span.stop) for span in spans]), ("slices", edges)):
        bounds = np.asarray([] if ranges is None else ranges, np.int64)
        if bounds.size and not (bounds.min() >= 0 and bounds.max() <= seq_len):
            raise DataError("positions outside the row", where=where)
    return RowView(
        seq_len=seq_len,
        cu_seqlens=row_spans.cu_seqlens,
        image_spans=row_spans.images,
        spans=tuple(spans),
        slices=edges,
        document_names=tuple(document_names),
    )


class MaskCheck(NamedTuple):
    """A check of one entry of the mask: its expected and its actual value, with the reason."""

    query: int
    key: int
    expected: bool
    value: bool
    reason: str

    @property
    def passed(self) -> bool:
        """True if the mask has the expected value."""
        return self.expected == self.value


def check_mask(row: RowView, index: BlockIndex) -> list[MaskCheck]:
    """Checks the mask at the boundaries of documents, at the first padding and at the first image of each document.

    The actual value is the one that FlexAttention computes from the block index; the expected value follows from the
    spans of the row.

    Args:
        row: view of the row.
        index: blocks of the row, see :func:`mmpack.masks.build_block_index`.
    """
    checks: dict[tuple[int, int], MaskCheck] = {}
    for query, key in _check_positions(row):
        expected, reason = _expected_value(row, query, key)
        checks[query, key] = MaskCheck(query, key, expected, index.attends(query, key), reason)
    return list(checks.values())


def _check_positions(row: RowView) -> Iterator[tuple[int, int]]:
    ends = np.unique(row.cu_seqlens).tolist()
    checked_documents: set[int] = set()
    for start, stop in pairwise(ends):
        last = stop - 1
        if start:
            yield start, start - 1
            yield last, start - 1
        yield start, start
        yield last, start
        for begin, end in row.image_spans[
            (row.image_spans[:, 0] >= start) & (row.image_spans[:, 0] < stop)
        ].tolist():
            if start in checked_documents:
                break
            checked_documents.add(start)
            yield begin, end - 1
            if end < stop:
                yield begin, end
        if stop < row.seq_len:
            yield last, stop
    if ends[-1] < row.seq_len:
        padding = ends[-1]
        if padding:
            yield padding, padding - 1
        yield padding, padding


def _expected_value(row: RowView, query: int, key: int) -> tuple[bool, str]:
    query_document, key_document = row.find_document(query), row.find_document(key)
    if query_document < 0:
        return False, "the query is padding"
    if key_document < 0:
        return False, "the key is padding"
    if query_document != key_document:
        return False, "another document"
    if key == query:
        return True, "the position itself"
    if key < query:
        return True, "earlier in the same document"
    if row.find_image(query) >= 0 and row.find_image(query) == row.find_image(key):
        return True, "later, inside one image"
    return False, "later in the same document"
