"""Tests of the text form of a row."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmpack.rows.row import ROW_ARRAYS, Row


def test_a_printed_row_is_one_line() -> None:
    arrays: dict[str, Any] = {name: np.zeros(0, np.int32) for name in ROW_ARRAYS}
    arrays |= {"input_ids": np.zeros(4096, np.int32), "cu_seqlens": np.array([0, 3000, 4000], np.int32)}
    arrays |= {"document_valid": np.array([True, False]), "patches": np.zeros((2500, 16, 16, 3), np.uint8)}
    row = Row(number=20, keys=(("a",), ("b",)), **arrays)
    assert repr(row) == "Row 20: 3,000 of 4,096 positions, 2 documents, 0 slices, 2,500 patches"
