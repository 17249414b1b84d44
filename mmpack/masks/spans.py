"""Document and image spans, which define the attention of a row, and the arrays per position that follow from them.

A row of `seq_len` positions holds documents one after another from position 0. `cu_seqlens` contains the first position of
each document and the end of the last one; the positions after it are padding. A position may attend to the positions of its
own document up to itself. If `image_spans` are given, the positions of one image may also attend to each other in both
directions.

An image is within one document, so the keys of a position are always one interval: from the first position of its document
to the position itself, or to the end of its image. This whole package depends on that property.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from mmpack.errors import DataError

MAX_SEQ_LEN = 2**31 - 1
"""The largest number of positions of a row: positions are int32 in every array, as in FlexAttention."""

_NO_IMAGES = np.empty((0, 2), np.int64)


class RowSpans(NamedTuple):
    """The validated spans of one row."""

    cu_seqlens: NDArray[np.int64]
    """(documents + 1,): first position of each document, then the end of the last document."""
    images: NDArray[np.int64]
    """(images, 2): half-open range [start, stop) of positions of each image, ascending."""
    seq_len: int
    """Number of positions, padding included."""


def cu_seqlens(lengths: ArrayLike) -> NDArray[np.int32]:
    """Computes the cumulative lengths of the documents of a row: (documents + 1,), int32, from 0.

    Args:
        lengths: (documents,) integers, number of positions of each document in order; 0 is allowed.

    Raises:
        DataError: `lengths` is not a flat list of integers, a length is negative, or there are more than 2**31 - 1
            positions.
    """
    array = _as_int64(lengths, "lengths")
    if array.ndim != 1:
        raise DataError(f"shape {array.shape} is not (documents,)", where="lengths")
    if array.size and array.min() < 0:
        index = int(np.argmax(array < 0))
        raise DataError(f"document {index} has {array[index]} positions", where="lengths")
    ends = np.zeros(len(array) + 1, np.int64)
    np.cumsum(array, out=ends[1:])
    if ends.max() > MAX_SEQ_LEN or ends.min() < 0 or (array > MAX_SEQ_LEN).any():
        raise DataError(
            f"the documents have more than {MAX_SEQ_LEN:,} positions",
            where="lengths",
            hint="Give shorter documents.",
        )
    return ends.astype(np.int32)


def position_ids(cu_seqlens: ArrayLike, seq_len: int) -> NDArray[np.int32]:
    """Returns the distance of each position from the start of its document: (seq_len,), int32; 0 for padding.

    Raises:
        DataError: the spans are invalid, see :func:`check_spans`.
    """
    spans = check_spans(cu_seqlens, seq_len)
    positions = np.zeros(seq_len, np.int32)
    _fill_position_ids(spans.cu_seqlens, positions)
    return positions


def document_ids(cu_seqlens: ArrayLike, seq_len: int) -> NDArray[np.int32]:
    """Returns the index of the document of each position: (seq_len,), int32; -1 for padding.

    Raises:
        DataError: the spans are invalid, see :func:`check_spans`.
    """
    spans = check_spans(cu_seqlens, seq_len)
    documents = np.full(seq_len, -1, np.int32)
    _fill_document_ids(spans.cu_seqlens, documents)
    return documents


def dense_mask(
    cu_seqlens: ArrayLike, seq_len: int, *, image_spans: ArrayLike | None = None
) -> NDArray[np.bool_]:
    """Builds the full attention mask: (seq_len, seq_len), bool, [query, key].

    This is the reference: it follows the definition literally and needs several times seq_len**2 bytes. Use it for tests
    and short rows.

    Raises:
        DataError: the spans are invalid, see :func:`check_spans`.
    """
    spans = check_spans(cu_seqlens, seq_len, image_spans)
    positions = np.arange(seq_len)
    document = document_ids(spans.cu_seqlens, seq_len)
    image = np.full(seq_len, -1)
    for index, (start, stop) in enumerate(spans.images):
        image[start:stop] = index
    same_document = (document[:, None] == document) & (document >= 0)
    earlier = positions[:, None] >= positions
    same_image = (image[:, None] == image) & (image >= 0)
    return same_document & (earlier | same_image)


def check_spans(cu_seqlens: ArrayLike, seq_len: int, image_spans: ArrayLike | None = None) -> RowSpans:
    """Checks the spans of one row and returns them as int64 arrays.

    Args:
        cu_seqlens: (documents + 1,) integers from 0, never descending; a document may be empty.
        seq_len: number of positions of the row, at least 1; positions from cu_seqlens[-1] on are padding.
        image_spans: (images, 2) integers, half-open ranges [start, stop) of positions: ascending, not empty, not
            overlapping, each within one document.

    Raises:
        DataError: an argument does not meet these conditions.
    """
    ends = _as_int64(cu_seqlens, "cu_seqlens")
    if ends.ndim != 1 or not ends.size:
        raise DataError(
            f"shape {ends.shape} is not (documents + 1,)",
            where="cu_seqlens",
            hint="Start with 0, or call mmpack.masks.cu_seqlens(lengths).",
        )
    images = _NO_IMAGES
    if image_spans is not None:
        images = _as_int64(image_spans, "image_spans")
        if not images.size:
            images = _NO_IMAGES
        elif images.ndim != 2 or images.shape[1] != 2:
            raise DataError(f"shape {images.shape} is not (images, 2)", where="image_spans")
    if not 1 <= seq_len <= MAX_SEQ_LEN:
        raise DataError(
            f"a row cannot have {seq_len} positions",
            where="seq_len",
            hint="Use an integer from 1 to 2**31 - 1.",
        )
    problem, index = _find_error(ends, images, seq_len)
    if problem:
        raise _span_error(problem, index, ends, images, seq_len)
    return RowSpans(ends, images, seq_len)


def _as_int64(values: ArrayLike, where: str) -> NDArray[np.int64]:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"cannot be converted to an array ({error})", where=where) from None
    if array.dtype.kind not in "iu" and array.size:
        raise DataError(f"values are {array.dtype}, not integers", where=where)
    return np.ascontiguousarray(array, np.int64)


_START, _DESCENDS, _BEYOND, _IMAGE_EMPTY, _IMAGE_ORDER, _IMAGE_OUTSIDE, _IMAGE_CROSSES = range(1, 8)


def _span_error(
    problem: int, index: int, ends: NDArray[np.int64], images: NDArray[np.int64], seq_len: int
) -> DataError:
    if problem == _START:
        return DataError(f"starts with {ends[0]}, not with 0", where="cu_seqlens")
    if problem == _DESCENDS:
        return DataError(
            f"descends from {ends[index - 1]} to {ends[index]}",
            where=f"cu_seqlens[{index}]",
            hint="Give cumulative lengths, or call mmpack.masks.cu_seqlens(lengths).",
        )
    if problem == _BEYOND:
        return DataError(
            f"the documents end at position {ends[-1]}, but the row ends at {seq_len}",
            where="cu_seqlens",
            hint="Give the full length of the row as seq_len.",
        )
    start, stop = (int(edge) for edge in images[index])
    where = f"image_spans[{index}]"
    if problem == _IMAGE_EMPTY:
        return DataError(
            f"[{start}, {stop}) has no positions", where=where, hint="Remove the empty image span."
        )
    if problem == _IMAGE_ORDER:
        return DataError(
            f"[{start}, {stop}) begins before the previous image ends at {images[index - 1, 1]}",
            where=where,
            hint="Give image spans in ascending order and without overlap.",
        )
    if problem == _IMAGE_OUTSIDE:
        return DataError(
            f"[{start}, {stop}) is outside the documents, positions 0 to {ends[-1] - 1}", where=where
        )
    document = int(np.searchsorted(ends, start, side="right")) - 1
    return DataError(
        f"[{start}, {stop}) crosses the end of document {document} at {ends[document + 1]}",
        where=where,
        hint="Cut documents between images, not inside an image.",
    )


@njit(cache=True, nogil=True)
def _find_error(ends: NDArray[np.int64], images: NDArray[np.int64], seq_len: int) -> tuple[int, int]:
    """Returns (problem, index) of the first invalid entry, or (0, 0) if all entries are valid."""
    if ends[0] != 0:
        return _START, 0
    for index in range(1, len(ends)):
        if ends[index] < ends[index - 1]:
            return _DESCENDS, index
    valid = ends[-1]
    if valid > seq_len:
        return _BEYOND, 0
    document = 0
    last_stop = 0
    for index in range(len(images)):
        start, stop = images[index]
        if stop <= start:
            return _IMAGE_EMPTY, index
        if start < 0 or stop > valid:
            return _IMAGE_OUTSIDE, index
        if start < last_stop:
            return _IMAGE_ORDER, index
        while ends[document + 1] <= start:
            document += 1
        if stop > ends[document + 1]:
            return _IMAGE_CROSSES, index
        last_stop = stop
    return 0, 0


@njit(cache=True, nogil=True)
def _fill_position_ids(ends: NDArray[np.int64], positions: NDArray[np.int32]) -> None:
    for document in range(len(ends) - 1):
        start = ends[document]
        for position in range(start, ends[document + 1]):
            positions[position] = position - start


@njit(cache=True, nogil=True)
def _fill_document_ids(ends: NDArray[np.int64], documents: NDArray[np.int32]) -> None:
    for document in range(len(ends) - 1):
        documents[ends[document] : ends[document + 1]] = document
