"""Document spans: what the attention of a row follows from, and the arrays that say it place by place.

A row of `seq_len` places holds documents side by side from place 0. `cu_seqlens` has the first place of each
and the end of the last; the places after that are pads. A place may attend to the places of its own document
up to itself. Places of one image may, where `image_spans` are given, also attend to each other both ways.

Images lie within one document, so the places that a place attends to are always one interval: from its
document's first place to itself, or to the end of its image. Everything in this package is built on that.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from mmpack.errors import DataError

MAX_SEQ_LEN = 2**31 - 1
"""Places are int32 in every array here, as in FlexAttention."""

_NO_IMAGES = np.empty((0, 2), np.int64)


class RowSpans(NamedTuple):
    """One row, checked."""

    cu_seqlens: NDArray[np.int64]
    """(documents + 1,): first place of each document, then the end of the last."""
    images: NDArray[np.int64]
    """(images, 2): [start, stop) of each image, ascending."""
    seq_len: int
    """Places, pads included."""


def cu_seqlens(lengths: ArrayLike) -> NDArray[np.int32]:
    """Cumulated lengths of the documents of a row: (documents + 1,), int32, from 0.

    Args:
        lengths: (documents,) integers, places of each document in order; 0 is allowed.

    Raises:
        DataError: not a flat list of integers, a negative length, or more than 2**31 - 1 places.
    """
    array = _as_int64(lengths, "lengths")
    if array.ndim != 1:
        raise DataError(f"shape {array.shape} is not (documents,)", where="lengths")
    if array.size and array.min() < 0:
        place = int(np.argmax(array < 0))
        raise DataError(f"document {place} has {array[place]} places", where="lengths")
    ends = np.zeros(len(array) + 1, np.int64)
    np.cumsum(array, out=ends[1:])
    if ends.max() > MAX_SEQ_LEN or ends.min() < 0 or (array > MAX_SEQ_LEN).any():
        raise DataError("more places than int32 holds", where="lengths", hint="A row is far shorter.")
    return ends.astype(np.int32)


def position_ids(cu_seqlens: ArrayLike, seq_len: int) -> NDArray[np.int32]:
    """Each place's distance from the start of its document: (seq_len,), int32; 0 on pads.

    Raises:
        DataError: as :func:`check_spans`.
    """
    spans = check_spans(cu_seqlens, seq_len)
    positions = np.zeros(seq_len, np.int32)
    _fill_position_ids(spans.cu_seqlens, positions)
    return positions


def document_ids(cu_seqlens: ArrayLike, seq_len: int) -> NDArray[np.int32]:
    """Each place's document, counted from 0: (seq_len,), int32; -1 on pads.

    Raises:
        DataError: as :func:`check_spans`.
    """
    spans = check_spans(cu_seqlens, seq_len)
    documents = np.full(seq_len, -1, np.int32)
    _fill_document_ids(spans.cu_seqlens, documents)
    return documents


def dense_mask(
    cu_seqlens: ArrayLike, seq_len: int, *, image_spans: ArrayLike | None = None
) -> NDArray[np.bool_]:
    """Which place attends to which: (seq_len, seq_len), bool, [query, key].

    The reference: it follows the words of the definition and takes seq_len**2 bytes several times over. Use
    it for tests and short rows.

    Raises:
        DataError: as :func:`check_spans`.
    """
    spans = check_spans(cu_seqlens, seq_len, image_spans)
    places = np.arange(seq_len)
    document = document_ids(spans.cu_seqlens, seq_len)
    image = np.full(seq_len, -1)
    for number, (start, stop) in enumerate(spans.images):
        image[start:stop] = number
    same_document = (document[:, None] == document) & (document >= 0)
    earlier = places[:, None] >= places
    same_image = (image[:, None] == image) & (image >= 0)
    return same_document & (earlier | same_image)


def check_spans(cu_seqlens: ArrayLike, seq_len: int, image_spans: ArrayLike | None = None) -> RowSpans:
    """The spans of one row as int64 arrays, once they are known to be possible.

    Args:
        cu_seqlens: (documents + 1,) integers from 0, never descending; a document may be empty.
        seq_len: places of the row, at least 1; those from cu_seqlens[-1] on are pads.
        image_spans: (images, 2) integers, [start, stop) of places: ascending, not empty, not overlapping,
            each within one document.

    Raises:
        DataError: anything else.
    """
    ends = _as_int64(cu_seqlens, "cu_seqlens")
    if ends.ndim != 1 or not ends.size:
        raise DataError(
            f"shape {ends.shape} is not (documents + 1,)",
            where="cu_seqlens",
            hint="It starts with 0; mmpack.masks.cu_seqlens(lengths) makes it.",
        )
    images = _NO_IMAGES
    if image_spans is not None:
        images = _as_int64(image_spans, "image_spans")
        if not images.size:
            images = _NO_IMAGES
        elif images.ndim != 2 or images.shape[1] != 2:
            raise DataError(f"shape {images.shape} is not (images, 2)", where="image_spans")
    if not 1 <= seq_len <= MAX_SEQ_LEN:
        raise DataError(f"a row of {seq_len} places cannot be", where="seq_len", hint="1 to 2**31 - 1.")
    fault, place = _find_error(ends, images, seq_len)
    if fault:
        raise _span_error(fault, place, ends, images, seq_len)
    return RowSpans(ends, images, seq_len)


def _as_int64(values: ArrayLike, where: str) -> NDArray[np.int64]:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"is no array ({error})", where=where) from None
    if array.dtype.kind not in "iu" and array.size:
        raise DataError(f"{array.dtype} values where integers belong", where=where)
    return np.ascontiguousarray(array, np.int64)


_START, _DESCENDS, _BEYOND, _IMAGE_EMPTY, _IMAGE_ORDER, _IMAGE_OUTSIDE, _IMAGE_CROSSES = range(1, 8)


def _span_error(
    problem: int, position: int, ends: NDArray[np.int64], images: NDArray[np.int64], seq_len: int
) -> DataError:
    if problem == _START:
        return DataError(f"starts with {ends[0]}, not with 0", where="cu_seqlens")
    if problem == _DESCENDS:
        return DataError(
            f"descends from {ends[position - 1]} to {ends[position]}",
            where=f"cu_seqlens[{position}]",
            hint="It is cumulated lengths; mmpack.masks.cu_seqlens(lengths) makes it.",
        )
    if problem == _BEYOND:
        return DataError(
            f"the documents end at {ends[-1]}, the row at {seq_len}",
            where="cu_seqlens",
            hint="Give the row's whole length as seq_len.",
        )
    start, stop = (int(edge) for edge in images[position])
    where = f"image_spans[{position}]"
    if problem == _IMAGE_EMPTY:
        return DataError(f"[{start}, {stop}) has no places", where=where, hint="Leave it out.")
    if problem == _IMAGE_ORDER:
        return DataError(
            f"[{start}, {stop}) begins before the one before it ends, at {images[position - 1, 1]}",
            where=where,
            hint="Images are ascending and do not overlap.",
        )
    if problem == _IMAGE_OUTSIDE:
        return DataError(
            f"[{start}, {stop}) lies outside the documents, places 0 to {ends[-1] - 1}", where=where
        )
    document = int(np.searchsorted(ends, start, side="right")) - 1
    return DataError(
        f"[{start}, {stop}) crosses the end of document {document} at {ends[document + 1]}",
        where=where,
        hint="An image lies within one document: cut documents between images.",
    )


@njit(cache=True, nogil=True)
def _find_error(ends: NDArray[np.int64], images: NDArray[np.int64], seq_len: int) -> tuple[int, int]:
    """The first fault and where it is; (0, 0) if there is none."""
    if ends[0] != 0:
        return _START, 0
    for place in range(1, len(ends)):
        if ends[place] < ends[place - 1]:
            return _DESCENDS, place
    valid = ends[-1]
    if valid > seq_len:
        return _BEYOND, 0
    document = 0
    last_stop = 0
    for place in range(len(images)):
        start, stop = images[place]
        if stop <= start:
            return _IMAGE_EMPTY, place
        if start < 0 or stop > valid:
            return _IMAGE_OUTSIDE, place
        if start < last_stop:
            return _IMAGE_ORDER, place
        while ends[document + 1] <= start:
            document += 1
        if stop > ends[document + 1]:
            return _IMAGE_CROSSES, place
        last_stop = stop
    return 0, 0


@njit(cache=True, nogil=True)
def _fill_position_ids(ends: NDArray[np.int64], positions: NDArray[np.int32]) -> None:
    for document in range(len(ends) - 1):
        start = ends[document]
        for place in range(start, ends[document + 1]):
            positions[place] = place - start


@njit(cache=True, nogil=True)
def _fill_document_ids(ends: NDArray[np.int64], documents: NDArray[np.int32]) -> None:
    for document in range(len(ends) - 1):
        documents[ends[document] : ends[document + 1]] = document
