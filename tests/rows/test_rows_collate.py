"""Tests of collation against a slow check of the definition of each array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmpack import ShardSet
from mmpack.errors import DataError
from mmpack.masks import build_block_mask
from mmpack.rows.collate import CONCATENATED, INDEXED, PER_POSITION, PER_ROW
from mmpack.rows.row import ROW_ARRAYS
from mmpack.stream import Row, collate
from tests.examples import examples
from tests.stream.small_streams import open_small_stream

LENGTH = 512


@pytest.fixture(scope="module")
def rows(mixed_shards: ShardSet, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    with open_small_stream(mixed_shards, tmp_path_factory.mktemp("collate")) as stream:
        return list(stream)


def test_every_row_array_is_in_a_batch_once(rows: list[Row]) -> None:
    assert sorted([*PER_POSITION, *INDEXED, *CONCATENATED, *PER_ROW, "pairs"]) == sorted(ROW_ARRAYS)
    assert set(collate(rows[:2])) == {*ROW_ARRAYS, "numbers", "keys"}


@settings(max_examples=examples(20))
@given(chosen=st.lists(st.integers(0, 39), min_size=1, max_size=5))
def test_batches_follow_their_definition(rows: list[Row], chosen: list[int]) -> None:
    picked = [rows[index] for index in chosen]
    batch = collate(picked)
    for name in ROW_ARRAYS:
        for part in batch[name] if name in PER_ROW else [batch[name]]:
            assert part.dtype == getattr(picked[0], name).dtype, name
    for index, row in enumerate(picked):
        for name in set(PER_POSITION) - {"slice_ids"}:
            assert (batch[name][index] == getattr(row, name)).all(), name
        for name in PER_ROW:
            assert (batch[name][index] == getattr(row, name)).all(), name
    for name in CONCATENATED:
        assert _is_concatenation(batch[name], [getattr(row, name) for row in picked]), name
    assert batch["numbers"].tolist() == [row.number for row in picked]
    assert batch["keys"] == [row.keys for row in picked]
    _check_positions(picked, batch)
    _check_slices_and_documents(picked, batch)


def _is_concatenation(joined: NDArray[Any], parts: Sequence[NDArray[Any]]) -> bool:
    expected = [item for part in parts for item in part]
    return len(joined) == len(expected) and all(map(np.array_equal, joined, expected))


def _check_positions(rows: Sequence[Row], batch: dict[str, Any]) -> None:
    """Asserts that an index selects the same position in the flattened batch as in its row."""
    origin = [(index, position) for index in range(len(rows)) for position in range(LENGTH)]
    for name in INDEXED:
        selected = [origin[position] for position in batch[name].ravel()]
        assert selected == [
            (index, position) for index, row in enumerate(rows) for position in getattr(row, name).ravel()
        ], name


def _check_slices_and_documents(rows: Sequence[Row], batch: dict[str, Any]) -> None:
    """Asserts that indices of slices and documents select those of the row that they come from."""
    slices = [(index, item) for index, row in enumerate(rows) for item in range(len(row.t_ns))]
    documents = [(index, item) for index, row in enumerate(rows) for item in range(len(row.keys))]
    for index, row in enumerate(rows):
        for in_batch, in_row in zip(batch["slice_ids"][index], row.slice_ids, strict=True):
            assert (in_batch == -1) if in_row == -1 else (slices[in_batch] == (index, in_row))
    assert len(batch["t_ns"]) == len(slices)
    assert len(batch["document_valid"]) == len(batch["datasets"]) == len(documents)
    assert [documents[item] for item in batch["pairs"].ravel()] == [
        (index, item) for index, row in enumerate(rows) for item in row.pairs.ravel()
    ]


def test_the_test_rows_have_empty_and_non_empty_arrays(rows: list[Row]) -> None:
    assert len(rows) == 40
    for name in (*INDEXED, "pairs", "t_ns", "image_spans", "actions", "audio_frames"):
        sizes = {len(getattr(row, name)) for row in rows}
        assert 0 in sizes, name
        assert len(sizes) > 1, name


def test_the_mask_of_a_batch_is_the_mask_of_its_rows(rows: list[Row]) -> None:
    torch = pytest.importorskip("torch")
    picked = [rows[0], next(row for row in rows if len(row.image_spans)), rows[-1]]
    batch = collate(picked)
    mask = build_block_mask(batch["cu_seqlens"], LENGTH, image_spans=batch["image_spans"])
    positions = torch.arange(LENGTH)
    for index, row in enumerate(picked):
        attends = mask.mask_mod(
            torch.tensor(index), torch.tensor(0), positions[:, None], positions[None, :]
        ).numpy()
        document, image = np.full(LENGTH, -1), np.full(LENGTH, -1)
        for item, (start, stop) in enumerate(zip(row.cu_seqlens, row.cu_seqlens[1:], strict=False)):
            document[start:stop] = item
        for item, (start, stop) in enumerate(row.image_spans):
            image[start:stop] = item
        same_document = (document[:, None] == document) & (document[:, None] >= 0)
        same_image = (image[:, None] == image) & (image[:, None] >= 0)
        assert (attends == (same_document & (np.tri(LENGTH, dtype=bool) | same_image))).all()


def test_empty_batches_and_different_lengths_raise_errors(rows: list[Row]) -> None:
    with pytest.raises(DataError, match="at least one row"):
        collate([])
    with pytest.raises(DataError, match="not all rows have 512 positions"):
        collate([rows[0], replace(rows[1], input_ids=rows[1].input_ids[:-1])])
