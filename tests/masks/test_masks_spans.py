"""Tests of cu_seqlens, position ids, document ids, the dense mask, and the errors for invalid spans."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpack.errors import DataError
from mmpack.masks import check_spans, cu_seqlens, dense_mask, document_ids, position_ids
from tests.masks.random_rows import RandomRow, random_rows


def test_arrays_of_a_small_row_equal_handwritten_ones() -> None:
    ends = cu_seqlens([3, 0, 2])
    assert ends.tolist() == [0, 3, 3, 5]
    assert ends.dtype == np.int32
    assert position_ids(ends, 7).tolist() == [0, 1, 2, 0, 1, 0, 0]
    assert document_ids(ends, 7).tolist() == [0, 0, 0, 2, 2, -1, -1]
    mask = dense_mask(ends, 7, image_spans=[(1, 3)]).astype(int).tolist()
    assert mask == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ]


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(0, 30))
def test_position_ids_and_document_ids_follow_from_the_lengths(lengths: list[int], padding: int) -> None:
    seq_len = sum(lengths) + padding + 1
    ends = cu_seqlens(lengths)
    expected = [document for document, length in enumerate(lengths) for _ in range(length)]
    assert document_ids(ends, seq_len).tolist() == expected + [-1] * (padding + 1)
    positions = [position for length in lengths for position in range(length)]
    assert position_ids(ends, seq_len).tolist() == positions + [0] * (padding + 1)


@given(random_rows(max_seq_len=60))
def test_dense_mask_equals_its_definition(row: RandomRow) -> None:
    mask = dense_mask(row.ends, row.seq_len, image_spans=row.images)
    document = document_ids(row.ends, row.seq_len)
    for query in range(row.seq_len):
        for key in range(row.seq_len):
            inside = any(a <= query < b and a <= key < b for a, b in row.images)
            same = document[query] >= 0 and document[query] == document[key]
            assert mask[query, key] == (same and (key <= query or inside))


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16])
def test_all_integer_types_are_accepted(dtype: type) -> None:
    ends = np.array([0, 4, 9], dtype)
    assert document_ids(ends, 10).tolist() == [0] * 4 + [1] * 5 + [-1]
    assert document_ids(ends[::2], 10).tolist() == [0] * 9 + [-1]


def test_a_row_without_documents_is_padding() -> None:
    assert cu_seqlens([]).tolist() == [0]
    assert document_ids([0], 3).tolist() == [-1, -1, -1]


INVALID_SPANS: list[tuple[Any, int, Any, str]] = [
    ([], 8, None, r"documents \+ 1"),
    ([[0, 8]], 8, None, r"documents \+ 1"),
    ([0.0, 8.0], 8, None, "float64"),
    (["0", "8"], 8, None, "integers"),
    ([1, 8], 8, None, "starts with 1"),
    ([0, 5, 4, 8], 8, None, r"cu_seqlens\[2\]: descends from 5 to 4"),
    ([0, 5, 9], 8, None, "end at position 9, but the row ends at 8"),
    ([0], 0, None, "a row cannot have 0 positions"),
    ([0, 8], 8, [1, 2, 3], r"\(images, 2\)"),
    ([0, 8], 8, [[1.0, 2.0]], "float64"),
    ([0, 8], 8, [(2, 2)], "no positions"),
    ([0, 8], 8, [(2, 5), (4, 6)], r"image_spans\[1\].*at 5"),
    ([0, 8], 8, [(4, 6), (2, 3)], r"image_spans\[1\]"),
    ([0, 6], 8, [(4, 7)], "outside the documents, positions 0 to 5"),
    ([0, 6], 8, [(-1, 3)], "outside"),
    ([0, 3, 6], 8, [(0, 1), (2, 4)], "crosses the end of document 0 at 3"),
    ([0, 3, 3, 6], 8, [(1, 2), (3, 7)], "outside"),
]


@pytest.mark.parametrize(("ends", "seq_len", "images", "message"), INVALID_SPANS)
def test_invalid_spans_raise_data_errors(ends: Any, seq_len: int, images: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_spans(ends, seq_len, images)


@pytest.mark.parametrize("lengths", [[3, -1], [2**31], [2**30, 2**30], [2**62, 2**62], [[1, 2]], [1.5]])
def test_invalid_lengths_raise_data_errors(lengths: Any) -> None:
    with pytest.raises(DataError, match="lengths"):
        cu_seqlens(lengths)
