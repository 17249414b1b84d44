"""A second implementation of `mmpack.plan.epoch_order`, in numpy, with which tests compare the compiled one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_Words = NDArray[np.uint64]

_ROUNDS = 4
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def epoch_order_reference(
    first: int, count: int, n: int, block: int, key: int, step: int = 1
) -> NDArray[np.int64]:
    """Computes the same items as :func:`mmpack.plan.epoch_order.epoch_order`, which documents the arguments."""
    series_index = first + step * np.arange(count, dtype=np.int64)
    epoch_keys = _derive_key(np.full(count, key, np.uint64), series_index // n)
    index = series_index % n
    num_full_blocks, short_size = divmod(n, block)
    # The short block gets a random position among the full blocks.
    short_start = (_derive_key(epoch_keys, 0) % np.uint64(num_full_blocks + 1)).astype(np.int64) * block
    in_short = (short_size > 0) & (short_start <= index) & (index < short_start + short_size)
    inside = np.where(in_short, index - short_start, 0)
    index = np.where(index >= short_start + short_size, index - short_size, index)
    block_index = np.full(count, num_full_blocks, np.int64)
    in_full = ~in_short
    block_index[in_full] = _permute_index(
        index[in_full] // block, num_full_blocks, _derive_key(epoch_keys[in_full], 1)
    )
    inside[in_full] = index[in_full] % block
    block_keys = _derive_key(epoch_keys, block_index + 2)
    inside[in_full] = _permute_index(inside[in_full], block, block_keys[in_full])
    inside[in_short] = _permute_index(inside[in_short], short_size, block_keys[in_short])
    return block_index * block + inside


def _splitmix64(x: _Words) -> _Words:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _derive_key(key: _Words, number: NDArray[np.int64] | int) -> _Words:
    return _splitmix64(key + _GOLDEN * (np.atleast_1d(np.asarray(number)) + 1).astype(np.uint64))


def _permute_index(index: NDArray[np.int64], n: int, key: _Words) -> NDArray[np.int64]:
    half = max(1, (max(n - 1, 1).bit_length() + 1) // 2)
    shift, low = np.uint64(half), np.uint64((1 << half) - 1)
    round_keys = [_derive_key(key, round_index) for round_index in range(_ROUNDS)]
    value = index.astype(np.uint64)
    walking = np.arange(len(value))
    while len(walking):
        left, right = value[walking] >> shift, value[walking] & low
        for round_key in round_keys:
            left, right = right, left ^ (_splitmix64(right ^ round_key[walking]) & low)
        value[walking] = left << shift | right
        walking = walking[value[walking] >= np.uint64(n)]
    return value.astype(np.int64)
