"""Batches of rows against what each array is defined as, told slowly."""

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
from tests.stream.small_streams import open_small_stream

LENGTH = 512


@pytest.fixture(scope="module")
def rows(mixed_shards: ShardSet, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    with open_small_stream(mixed_shards, tmp_path_factory.mktemp("collate")) as stream:
        return list(stream)


def test_every_array_is_in_a_batch_once(rows: list[Row]) -> None:
    assert sorted([*PER_POSITION, *INDEXED, *CONCATENATED, *PER_ROW, "pairs"]) == sorted(ROW_ARRAYS)
    assert set(collate(rows[:2])) == {*ROW_ARRAYS, "numbers", "keys"}


@settings(max_examples=20)
@given(chosen=st.lists(st.integers(0, 39), min_size=1, max_size=5))
def test_batches_are_what_they_are_defined_as(rows: list[Row], chosen: list[int]) -> None:
    picked = [rows[number] for number in chosen]
    batch = collate(picked)
    for name in ROW_ARRAYS:
        for part in batch[name] if name in PER_ROW else [batch[name]]:
            assert part.dtype == getattr(picked[0], name).dtype, name
    for number, row in enumerate(picked):
        for name in set(PER_POSITION) - {"slice_ids"}:
            assert (batch[name][number] == getattr(row, name)).all(), name
        for name in PER_ROW:
            assert (batch[name][number] == getattr(row, name)).all(), name
    for name in CONCATENATED:
        assert _is_in_turn(batch[name], [getattr(row, name) for row in picked]), name
    assert batch["numbers"].tolist() == [row.number for row in picked]
    assert batch["keys"] == [row.keys for row in picked]
    _check_places(picked, batch)
    _check_numbers(picked, batch)


def _is_in_turn(joined: NDArray[Any], parts: Sequence[NDArray[Any]]) -> bool:
    each_own = [one for part in parts for one in part]
    return len(joined) == len(each_own) and all(map(np.array_equal, joined, each_own))


def _check_places(rows: Sequence[Row], batch: dict[str, Any]) -> None:
    """An index leads to the same place of the flattened batch as it does in its row."""
    origin = [(number, place) for number in range(len(rows)) for place in range(LENGTH)]
    for name in INDEXED:
        found = [origin[place] for place in batch[name].ravel()]
        assert found == [
            (number, place) for number, row in enumerate(rows) for place in getattr(row, name).ravel()
        ], name


def _check_numbers(rows: Sequence[Row], batch: dict[str, Any]) -> None:
    """What counts slices and documents leads to those of the row it comes from."""
    slices = [(number, each) for number, row in enumerate(rows) for each in range(len(row.t_ns))]
    documents = [(number, each) for number, row in enumerate(rows) for each in range(len(row.keys))]
    for number, row in enumerate(rows):
        for found, own in zip(batch["slice_ids"][number], row.slice_ids, strict=True):
            assert (found == -1) if own == -1 else (slices[found] == (number, own))
    assert len(batch["t_ns"]) == len(slices)
    assert len(batch["document_valid"]) == len(batch["datasets"]) == len(documents)
    assert [documents[each] for each in batch["pairs"].ravel()] == [
        (number, each) for number, row in enumerate(rows) for each in row.pairs.ravel()
    ]


def test_the_rows_have_what_the_tests_are_about(rows: list[Row]) -> None:
    assert len(rows) == 40
    for name in (*INDEXED, "pairs", "t_ns", "image_spans", "actions", "audio_frames"):
        sizes = {len(getattr(row, name)) for row in rows}
        assert 0 in sizes, name
        assert len(sizes) > 1, name


def test_a_batch_gives_the_attention_of_its_rows(rows: list[Row]) -> None:
    torch = pytest.importorskip("torch")
    picked = [rows[0], next(row for row in rows if len(row.image_spans)), rows[-1]]
    batch = collate(picked)
    mask = build_block_mask(batch["cu_seqlens"], LENGTH, image_spans=batch["image_spans"])
    places = torch.arange(LENGTH)
    for number, row in enumerate(picked):
        seen = mask.mask_mod(torch.tensor(number), torch.tensor(0), places[:, None], places[None, :]).numpy()
        document, image = np.full(LENGTH, -1), np.full(LENGTH, -1)
        for each, (start, stop) in enumerate(zip(row.cu_seqlens, row.cu_seqlens[1:], strict=False)):
            document[start:stop] = each
        for each, (start, stop) in enumerate(row.image_spans):
            image[start:stop] = each
        same = (document[:, None] == document) & (document[:, None] >= 0)
        together = (image[:, None] == image) & (image[:, None] >= 0)
        assert (seen == (same & (np.tri(LENGTH, dtype=bool) | together))).all()


def test_batches_that_cannot_be_are_refused(rows: list[Row]) -> None:
    with pytest.raises(DataError, match="no rows"):
        collate([])
    with pytest.raises(DataError, match="512 places and of others"):
        collate([rows[0], replace(rows[1], input_ids=rows[1].input_ids[:-1])])
