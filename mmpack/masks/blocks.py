"""The empty, partial and full blocks of a mask, as the eight index arrays of FlexAttention.

The mask is divided into square blocks with `block_size` positions per side. A block row covers consecutive queries. The
first keys of these queries never descend, nor do their last keys, and the key intervals (see `spans`) leave no gap between
them. So the non-empty blocks of a block row form one range, the full blocks form a range within it, and the same is true for
every block column. The index arrays are written from these ranges, without a look at the single elements of the L x L mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from numbers import Integral
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from mmpack.errors import DataError
from mmpack.masks.spans import check_spans

EMPTY, PARTIAL, FULL = 0, 1, 2
"""Kinds of a block: no, some or all of its (query, key) pairs attend."""

FIELDS = (
    "kv_num_blocks",
    "kv_indices",
    "full_kv_num_blocks",
    "full_kv_indices",
    "q_num_blocks",
    "q_indices",
    "full_q_num_blocks",
    "full_q_indices",
)
"""The index arrays, named as in `torch.nn.attention.flex_attention.BlockMask` and in its order."""

# Number of int32 in 64 bytes. Arrays start at multiples of 64 bytes, because kernels that were compiled for aligned tensors
# copy other tensors first.
_ALIGNMENT = 16


@dataclass(frozen=True, slots=True)
class BlockIndex:
    """The blocks of a batch of rows as numpy arrays.

    All arrays are int32. `*_num_blocks` are (rows, 1, blocks): number of blocks in each block row (`kv`) or block column
    (`q`); the arrays with `full_` count full blocks, the others partial blocks. `*_indices` are (rows, 1, blocks, blocks):
    the indices of these blocks, ascending; after them follow the indices of all other blocks, ascending too, as in torch.
    """

    kv_num_blocks: NDArray[np.int32]
    kv_indices: NDArray[np.int32]
    full_kv_num_blocks: NDArray[np.int32]
    full_kv_indices: NDArray[np.int32]
    q_num_blocks: NDArray[np.int32]
    q_indices: NDArray[np.int32]
    full_q_num_blocks: NDArray[np.int32]
    full_q_indices: NDArray[np.int32]
    first: NDArray[np.int32]
    """(rows, seq_len): first key that each query attends to; seq_len for padding."""
    stop: NDArray[np.int32]
    """(rows, seq_len): key after the last key that each query attends to; 0 for padding."""
    block_size: int

    @property
    def seq_len(self) -> int:
        """The number of positions of a row."""
        return self.first.shape[1]

    def kinds(self, row: int = 0) -> NDArray[np.int8]:
        """Returns the kind of each block, read from the `kv` arrays: int8 (blocks, blocks), [query, key]."""
        blocks = self.kv_indices.shape[-1]
        kinds = np.full((blocks, blocks), EMPTY, np.int8)
        for block in range(blocks):
            partial = self.kv_num_blocks[row, 0, block]
            full = self.full_kv_num_blocks[row, 0, block]
            kinds[block, self.kv_indices[row, 0, block, :partial]] = PARTIAL
            kinds[block, self.full_kv_indices[row, 0, block, :full]] = FULL
        return kinds

    def attends(self, query: int, key: int, row: int = 0) -> bool:
        """Returns whether `query` attends to `key` by the rule of FlexAttention.

        The kind of the block decides; in a partial block, the key interval of the query decides.
        """
        block, key_block = query // self.block_size, key // self.block_size
        full = self.full_kv_num_blocks[row, 0, block]
        if key_block in self.full_kv_indices[row, 0, block, :full]:
            return True
        partial = self.kv_num_blocks[row, 0, block]
        if key_block not in self.kv_indices[row, 0, block, :partial]:
            return False
        return bool(self.first[row, query] <= key < self.stop[row, query])


def build_block_index(
    cu_seqlens: ArrayLike | Sequence[ArrayLike],
    seq_len: int,
    *,
    block_size: int = 128,
    image_spans: ArrayLike | Sequence[ArrayLike | None] | None = None,
) -> BlockIndex:
    """Builds the index arrays of one row or a batch of rows; :func:`mmpack.masks.build_block_mask` returns them as tensors.

    Args:
        cu_seqlens: (documents + 1,) integers, or a list of such arrays, one per row.
        seq_len: number of positions of each row; it need not be a multiple of `block_size`.
        block_size: number of positions per side of a block.
        image_spans: (images, 2) integers, or for a batch a list of such arrays (None for a row without images).

    Raises:
        DataError: `block_size` is less than 1; spans are invalid (see `check_spans`; the message names the row of a
            batch); or the number of entries of `image_spans` differs from the number of rows.
    """
    if block_size < 1:
        raise DataError(f"a block cannot have {block_size} positions", where="block_size", hint="Use 128.")
    batch: list[tuple[Any, Any]]
    if _is_batch(cu_seqlens):
        rows: Sequence[Any] = cu_seqlens  # type: ignore[assignment]
        images: Sequence[Any] = [None] * len(rows) if image_spans is None else image_spans  # type: ignore[assignment]
        if len(images) != len(rows):
            raise DataError(
                f"{len(images)} entries for {len(rows)} rows",
                where="image_spans",
                hint="Give one entry per row, None for a row without images.",
            )
        batch = list(zip(rows, images, strict=True))
    else:
        batch = [(cu_seqlens, image_spans)]
    rows_spans = []
    for row, (ends, spans) in enumerate(batch):
        try:
            rows_spans.append(check_spans(ends, seq_len, spans))
        except DataError as error:
            if len(batch) == 1:
                raise
            raise DataError(error.message, where=f"row {row}, {error.where}", hint=error.hint) from None
    size, parts = _buffer_layout(len(batch), seq_len, block_size)
    buffer = np.empty(size, np.int32)
    arrays = [buffer[start:stop].reshape(shape) for start, stop, shape in parts]
    for row, spans in enumerate(rows_spans):
        _fill_buffers(spans.cu_seqlens, spans.images, block_size, row, *arrays)
    return BlockIndex(*arrays, block_size=block_size)  # type: ignore[call-arg]


@lru_cache(maxsize=64)
def _buffer_layout(
    rows: int, seq_len: int, block_size: int
) -> tuple[int, tuple[tuple[int, int, tuple[int, ...]], ...]]:
    """Returns the size of one buffer for all arrays of :class:`BlockIndex`, and (start, stop, shape) of each array in order."""
    blocks = -(-seq_len // block_size)
    counts, indices, positions = (rows, 1, blocks), (rows, 1, blocks, blocks), (rows, seq_len)
    parts = []
    start = 0
    for shape in (*(counts, indices) * 4, positions, positions):
        stop = start + prod(shape)
        parts.append((start, stop, shape))
        start = -(-stop // _ALIGNMENT) * _ALIGNMENT
    return start, tuple(parts)


def _is_batch(ends: Any) -> bool:
    return isinstance(ends, (list, tuple)) and len(ends) > 0 and not isinstance(ends[0], Integral)


@njit(cache=True, nogil=True)
def _fill_buffers(
    ends,
    images,
    block_size,
    row,
    kv_num,
    kv_idx,
    full_kv_num,
    full_kv_idx,
    q_num,
    q_idx,
    full_q_num,
    full_q_idx,
    first,
    stop,
):
    _key_intervals(ends, images, first[row], stop[row])
    some, full = _block_ranges(first[row], stop[row], ends[-1], block_size)
    _write_indices(some, full, kv_num[row, 0], kv_idx[row, 0], full_kv_num[row, 0], full_kv_idx[row, 0])
    some, full = _transpose_ranges(some), _transpose_ranges(full)
    _write_indices(some, full, q_num[row, 0], q_idx[row, 0], full_q_num[row, 0], full_q_idx[row, 0])


@njit(cache=True, nogil=True)
def _key_intervals(ends, images, first, stop):
    """Writes the key interval [first, stop) of each query."""
    for document in range(len(ends) - 1):
        first[ends[document] : ends[document + 1]] = ends[document]
    for position in range(ends[-1]):
        stop[position] = position + 1
    for image in range(len(images)):
        stop[images[image, 0] : images[image, 1]] = images[image, 1]
    first[ends[-1] :] = len(first)
    stop[ends[-1] :] = 0


@njit(cache=True, nogil=True)
def _block_ranges(first, stop, valid, block_size):
    """Returns the ranges [begin, end) of the non-empty and of the full blocks of each block row, both int32 (2, blocks).

    Begins and ends never descend, even in block rows of padding; a range that ends before it begins is empty.
    """
    seq_len = len(first)
    blocks = (seq_len + block_size - 1) // block_size
    some = np.full((2, blocks), blocks, np.int32)
    full = np.full((2, blocks), blocks, np.int32)
    for block in range((valid + block_size - 1) // block_size):
        begin = block * block_size
        last = min(begin + block_size, valid) - 1
        some[0, block] = first[begin] // block_size
        some[1, block] = (stop[last] - 1) // block_size + 1
        # A block that extends into padding or beyond the end of the row is never full.
        if last - begin + 1 == block_size:
            full[0, block] = (first[last] + block_size - 1) // block_size
            full[1, block] = stop[begin] // block_size
    return some, full


@njit(cache=True, nogil=True)
def _transpose_ranges(row_ranges):
    """Returns the ranges of the block columns, computed from those of the block rows."""
    blocks = row_ranges.shape[1]
    column_ranges = np.empty_like(row_ranges)
    begin = 0
    end = 0
    for column in range(blocks):
        while begin < blocks and row_ranges[1, begin] <= column:
            begin += 1
        while end < blocks and row_ranges[0, end] <= column:
            end += 1
        column_ranges[0, column] = begin
        column_ranges[1, column] = end
    return column_ranges


@njit(cache=True, nogil=True)
def _write_indices(some, full, num, idx, full_num, full_idx):
    blocks = len(num)
    for block in range(blocks):
        begin = some[0, block]
        end = max(some[1, block], begin)
        full_begin = full[0, block]
        full_end = full[1, block]
        if full_end <= full_begin:
            full_begin = full_end = end
        num[block] = end - begin - (full_end - full_begin)
        line = idx[block]
        at = _write_range(line, 0, begin, full_begin)
        at = _write_range(line, at, full_end, end)
        at = _write_range(line, at, 0, begin)
        at = _write_range(line, at, full_begin, full_end)
        _write_range(line, at, end, blocks)
        full_num[block] = full_end - full_begin
        line = full_idx[block]
        at = _write_range(line, 0, full_begin, full_end)
        at = _write_range(line, at, 0, full_begin)
        _write_range(line, at, full_end, blocks)


@njit(cache=True, nogil=True)
def _write_range(line, at, begin, end):
    """Writes begin, ..., end - 1 to `line` from index `at` on; returns the next index."""
    # With a separate slice and int32 values the loop is compiled to vector stores; most of the time is spent here.
    part = line[at : at + end - begin]
    value = np.int32(begin)
    for index in range(len(part)):
        part[index] = value + np.int32(index)
    return at + len(part)
