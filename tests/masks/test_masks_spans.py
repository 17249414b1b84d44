"""cu_seqlens, positions, documents, the dense reference, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpack.errors import DataError
from mmpack.masks import check_spans, cu_seqlens, dense_mask, document_ids, position_ids
from tests.masks.random_rows import RandomRow, random_rows


def test_a_small_row_by_hand() -> None:
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
def test_positions_and_documents_follow_the_lengths(lengths: list[int], pads: int) -> None:
    seq_len = sum(lengths) + pads + 1
    ends = cu_seqlens(lengths)
    expected = [number for number, length in enumerate(lengths) for _ in range(length)]
    assert document_ids(ends, seq_len).tolist() == expected + [-1] * (pads + 1)
    positions = [place for length in lengths for place in range(length)]
    assert position_ids(ends, seq_len).tolist() == positions + [0] * (pads + 1)


@given(random_rows(longest=60))
def test_dense_mask_is_what_its_words_say(row: RandomRow) -> None:
    mask = dense_mask(row.ends, row.seq_len, image_spans=row.images)
    document = document_ids(row.ends, row.seq_len)
    for query in range(row.seq_len):
        for key in range(row.seq_len):
            inside = any(a <= query < b and a <= key < b for a, b in row.images)
            same = document[query] >= 0 and document[query] == document[key]
            assert mask[query, key] == (same and (key <= query or inside))


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint16])
def test_any_integers_are_taken(kind: type) -> None:
    ends = np.array([0, 4, 9], kind)
    assert document_ids(ends, 10).tolist() == [0] * 4 + [1] * 5 + [-1]
    assert document_ids(ends[::2], 10).tolist() == [0] * 9 + [-1]


def test_no_documents_is_a_row_of_pads() -> None:
    assert cu_seqlens([]).tolist() == [0]
    assert document_ids([0], 3).tolist() == [-1, -1, -1]


REFUSED: list[tuple[Any, int, Any, str]] = [
    ([], 8, None, r"documents \+ 1"),
    ([[0, 8]], 8, None, r"documents \+ 1"),
    ([0.0, 8.0], 8, None, "float64"),
    (["0", "8"], 8, None, "integers"),
    ([1, 8], 8, None, "starts with 1"),
    ([0, 5, 4, 8], 8, None, r"cu_seqlens\[2\]: descends from 5 to 4"),
    ([0, 5, 9], 8, None, "end at 9, the row at 8"),
    ([0], 0, None, "a row of 0 places"),
    ([0, 8], 8, [1, 2, 3], r"\(images, 2\)"),
    ([0, 8], 8, [[1.0, 2.0]], "float64"),
    ([0, 8], 8, [(2, 2)], "no places"),
    ([0, 8], 8, [(2, 5), (4, 6)], r"image_spans\[1\].*at 5"),
    ([0, 8], 8, [(4, 6), (2, 3)], r"image_spans\[1\]"),
    ([0, 6], 8, [(4, 7)], "outside the documents, places 0 to 5"),
    ([0, 6], 8, [(-1, 3)], "outside"),
    ([0, 3, 6], 8, [(0, 1), (2, 4)], "crosses the end of document 0 at 3"),
    ([0, 3, 3, 6], 8, [(1, 2), (3, 7)], "outside"),
]


@pytest.mark.parametrize(("ends", "seq_len", "images", "message"), REFUSED)
def test_impossible_spans_are_refused(ends: Any, seq_len: int, images: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_spans(ends, seq_len, images)


@pytest.mark.parametrize("lengths", [[3, -1], [2**31], [2**30, 2**30], [2**62, 2**62], [[1, 2]], [1.5]])
def test_impossible_lengths_are_refused(lengths: Any) -> None:
    with pytest.raises(DataError, match="lengths"):
        cu_seqlens(lengths)
