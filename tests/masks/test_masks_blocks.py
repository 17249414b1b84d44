"""Comparison of the block index with the dense mask: any block size, ragged rows, padding, batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmpack.errors import DataError
from mmpack.masks import build_block_index, dense_mask
from mmpack.masks.blocks import EMPTY, FIELDS, FULL, PARTIAL
from tests.masks.random_rows import RandomRow, random_rows


def count_block_kinds(mask: NDArray[np.bool_], block_size: int) -> NDArray[np.int8]:
    """Computes the kind of every block by counting its True elements."""
    blocks = -(-len(mask) // block_size)
    padded = np.zeros((blocks * block_size,) * 2, bool)
    padded[: len(mask), : len(mask)] = mask
    counts = padded.reshape(blocks, block_size, blocks, block_size).sum((1, 3))
    return np.where(counts == 0, EMPTY, np.where(counts == block_size**2, FULL, PARTIAL)).astype(np.int8)


@given(random_rows(), st.sampled_from([1, 2, 7, 16, 32, 128, 1000]), st.booleans())
def test_block_kinds_equal_those_of_the_dense_mask(
    row: RandomRow, block_size: int, with_images: bool
) -> None:
    images = row.images if with_images else None
    index = build_block_index(row.ends, row.seq_len, block_size=block_size, image_spans=images)
    mask = dense_mask(row.ends, row.seq_len, image_spans=images)
    expected = count_block_kinds(mask, block_size)
    assert np.array_equal(index.kinds(), expected)
    for name, kind in (("", PARTIAL), ("full_", FULL)):
        for side, blocks in (("kv", expected), ("q", expected.T)):
            counts = getattr(index, f"{name}{side}_num_blocks")[0, 0]
            indices = getattr(index, f"{name}{side}_indices")[0, 0]
            assert np.array_equal(counts, (blocks == kind).sum(1))
            # The blocks of the kind come first, then the other blocks; both ascend.
            assert np.array_equal(indices, np.argsort(blocks != kind, axis=1, kind="stable"))


@given(random_rows(max_seq_len=300))
def test_key_intervals_expand_to_the_dense_mask(row: RandomRow) -> None:
    index = build_block_index(row.ends, row.seq_len, image_spans=row.images)
    keys = np.arange(row.seq_len)
    mask = (index.first[0][:, None] <= keys) & (keys < index.stop[0][:, None])
    assert np.array_equal(mask, dense_mask(row.ends, row.seq_len, image_spans=row.images))


@given(random_rows(max_seq_len=40), st.sampled_from([3, 8]))
def test_attends_equals_the_dense_mask(row: RandomRow, block_size: int) -> None:
    index = build_block_index(row.ends, row.seq_len, block_size=block_size, image_spans=row.images)
    mask = dense_mask(row.ends, row.seq_len, image_spans=row.images)
    positions = range(row.seq_len)
    assert [[index.attends(query, key) for key in positions] for query in positions] == mask.tolist()


@given(random_rows(max_seq_len=200), random_rows(max_seq_len=200))
def test_a_batch_equals_its_rows(one: RandomRow, other: RandomRow) -> None:
    seq_len = max(one.seq_len, other.seq_len)
    both = build_block_index([one.ends, other.ends], seq_len, block_size=32, image_spans=[one.images, None])
    single = (
        build_block_index(one.ends, seq_len, block_size=32, image_spans=one.images),
        build_block_index(other.ends, seq_len, block_size=32),
    )
    for name in (*FIELDS, "first", "stop"):
        stacked = np.concatenate([getattr(index, name) for index in single])
        assert np.array_equal(getattr(both, name), stacked), name
    assert np.array_equal(both.kinds(1), single[1].kinds())


def test_arrays_are_contiguous_and_aligned_to_64_bytes() -> None:
    index = build_block_index([0, 100, 333], 333, block_size=32)
    base = index.kv_num_blocks.__array_interface__["data"][0]
    for name in (*FIELDS, "first", "stop"):
        array = getattr(index, name)
        assert array.flags.c_contiguous
        assert (array.__array_interface__["data"][0] - base) % 64 == 0


def test_errors_of_a_batch_name_the_row() -> None:
    with pytest.raises(DataError, match=r"row 1, cu_seqlens\[2\]: descends"):
        build_block_index([[0, 8], [0, 5, 4]], 8)
    with pytest.raises(DataError, match="1 entries for 2 rows"):
        build_block_index([[0, 8], [0, 5]], 8, image_spans=[None])
    with pytest.raises(DataError, match="a block cannot have 0 positions"):
        build_block_index([0, 8], 8, block_size=0)
