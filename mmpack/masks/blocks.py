"""Blocks: which squares of the mask are empty, partial or full, in FlexAttention's eight index arrays.

The mask is cut into squares of `block_size` places a side. A row of squares holds consecutive queries; their
intervals of keys (see `spans`) both begin and end later and later, and they touch. So the squares that hold
anything are one run, the full ones are a run within it, and the same is true of every column. The arrays
are written from these runs: no place of the L x L mask is looked at.
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
"""Kinds of a square: no place may attend, some may, all may."""

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

# Arrays start at multiples of 64 bytes, in numbers of int32: kernels compiled for aligned tensors copy others first.
_ALIGNED = 16


@dataclass(frozen=True, slots=True)
class BlockIndex:
    """The blocks of a batch of rows, before they are tensors.

    All arrays are int32. `*_num_blocks` are (rows, 1, blocks): how many squares there are in each row of
    squares (`kv`) or column (`q`), the partial and the `full_` ones apart. `*_indices` are (rows, 1, blocks,
    blocks): which, ascending; behind them stand the others, ascending too, as torch leaves them.
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
    """(rows, seq_len): the first key that each query attends to; seq_len on pads."""
    stop: NDArray[np.int32]
    """(rows, seq_len): the key after the last; 0 on pads."""
    block_size: int

    @property
    def seq_len(self) -> int:
        """Places of a row."""
        return self.first.shape[1]

    def kinds(self, row: int = 0) -> NDArray[np.int8]:
        """(blocks, blocks), int8, [query, key]: EMPTY, PARTIAL or FULL, read from the `kv` arrays."""
        blocks = self.kv_indices.shape[-1]
        found = np.full((blocks, blocks), EMPTY, np.int8)
        for block in range(blocks):
            partial = self.kv_num_blocks[row, 0, block]
            full = self.full_kv_num_blocks[row, 0, block]
            found[block, self.kv_indices[row, 0, block, :partial]] = PARTIAL
            found[block, self.full_kv_indices[row, 0, block, :full]] = FULL
        return found

    def attends(self, query: int, key: int, row: int = 0) -> bool:
        """What FlexAttention does at one place: the square's kind, and inside a partial one the interval."""
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
    """The index arrays of one row or a batch of rows, in numpy; :func:`mmpack.masks.build_block_mask` for torch.

    Args:
        cu_seqlens: (documents + 1,) integers, or a list of such arrays, one a row.
        seq_len: places of each row; need not be a multiple of block_size.
        block_size: places a side of a square.
        image_spans: (images, 2) integers, or for a batch a list of such arrays (None for a row without).

    Raises:
        DataError: block_size below 1, spans that cannot be (as `check_spans`; for a batch with its row), or
            not as many entries of image_spans as rows.
    """
    if block_size < 1:
        raise DataError(f"blocks of {block_size} places cannot be", where="block_size", hint="Use 128.")
    batch: list[tuple[Any, Any]]
    if _is_batch(cu_seqlens):
        rows: Sequence[Any] = cu_seqlens  # type: ignore[assignment]
        images: Sequence[Any] = [None] * len(rows) if image_spans is None else image_spans  # type: ignore[assignment]
        if len(images) != len(rows):
            raise DataError(f"{len(images)} entries for {len(rows)} rows", where="image_spans")
        batch = list(zip(rows, images, strict=True))
    else:
        batch = [(cu_seqlens, image_spans)]
    checked = []
    for row, (ends, spans) in enumerate(batch):
        try:
            checked.append(check_spans(ends, seq_len, spans))
        except DataError as error:
            if len(batch) == 1:
                raise
            raise DataError(error.message, where=f"row {row}, {error.where}", hint=error.hint) from None
    size, parts = _buffer_layout(len(batch), seq_len, block_size)
    buffer = np.empty(size, np.int32)
    arrays = [buffer[start:stop].reshape(shape) for start, stop, shape in parts]
    for row, spans in enumerate(checked):
        _fill_buffers(spans.cu_seqlens, spans.images, block_size, row, *arrays)
    return BlockIndex(*arrays, block_size=block_size)  # type: ignore[call-arg]


@lru_cache(maxsize=64)
def _buffer_layout(
    rows: int, seq_len: int, block_size: int
) -> tuple[int, tuple[tuple[int, int, tuple[int, ...]], ...]]:
    """Length of one buffer for all arrays of :class:`BlockIndex`; start, stop and shape of each in order."""
    blocks = -(-seq_len // block_size)
    counts, indices, places = (rows, 1, blocks), (rows, 1, blocks, blocks), (rows, seq_len)
    parts = []
    start = 0
    for shape in (*(counts, indices) * 4, places, places):
        stop = start + prod(shape)
        parts.append((start, stop, shape))
        start = -(-stop // _ALIGNED) * _ALIGNED
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
    """The keys of each query, [first, stop)."""
    for document in range(len(ends) - 1):
        first[ends[document] : ends[document + 1]] = ends[document]
    for place in range(ends[-1]):
        stop[place] = place + 1
    for image in range(len(images)):
        stop[images[image, 0] : images[image, 1]] = images[image, 1]
    first[ends[-1] :] = len(first)
    stop[ends[-1] :] = 0


@njit(cache=True, nogil=True)
def _block_ranges(first, stop, valid, block_size):
    """For each row of squares, [begin, end) of the squares that hold anything and of the full ones.

    Both edges of both never descend, rows of pads included; a run that ends before it begins is empty.
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
        # A square that the row's end or a pad cuts is never full.
        if last - begin + 1 == block_size:
            full[0, block] = (first[last] + block_size - 1) // block_size
            full[1, block] = stop[begin] // block_size
    return some, full


@njit(cache=True, nogil=True)
def _transpose_ranges(runs):
    """The runs of the columns, from those of the rows."""
    blocks = runs.shape[1]
    found = np.empty_like(runs)
    begin = 0
    end = 0
    for column in range(blocks):
        while begin < blocks and runs[1, begin] <= column:
            begin += 1
        while end < blocks and runs[0, end] <= column:
            end += 1
        found[0, column] = begin
        found[1, column] = end
    return found


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
    """Writes begin, ..., end - 1 from place `at` on; returns the place after."""
    # A slice of its own and int32 values: the loop becomes vector stores, which is most of the time here.
    part = line[at : at + end - begin]
    value = np.int32(begin)
    for place in range(len(part)):
        part[place] = value + np.int32(place)
    return at + len(part)
