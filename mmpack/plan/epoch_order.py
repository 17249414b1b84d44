"""A seeded order of n items, computed index by index without a list of the items.

A Feistel network permutes blocks of neighbours; values outside [0, blocks) go through the network again (cycle walking:
Black and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002). A second Feistel network permutes the items of a
block. So the order is a bijection for every seed, needs no memory, and takes constant time for any index.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from mmpack.packing.histogram import splitmix64

#: Four rounds turn a pseudorandom round function into a pseudorandom permutation (Luby and Rackoff, 1988).
_ROUNDS = 4


@njit(cache=True)
def derive_key(key: Any, number: int) -> Any:
    """Derives a key (uint64) for each number from `key` (uint64)."""
    return splitmix64(np.uint64(key) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(number + 1))


@njit(cache=True)
def permute_index(index: Any, n: int, key: Any) -> Any:
    """Maps `index` in [0, n) to another index in [0, n): a bijection for each key (uint64)."""
    half = np.uint64(1)
    while np.uint64(1) << (np.uint64(2) * half) < np.uint64(n):
        half += np.uint64(1)
    low = (np.uint64(1) << half) - np.uint64(1)
    value = np.uint64(index)
    while True:
        left, right = value >> half, value & low
        for round_index in range(_ROUNDS):
            left, right = right, left ^ (splitmix64(right ^ derive_key(key, round_index)) & low)
        value = left << half | right
        if value < np.uint64(n):
            return np.int64(value)


@njit(cache=True, nogil=True)
def epoch_order(first: int, count: int, n: int, block: int, key: Any, step: int = 1) -> Any:
    """Computes the items at indices first, first + step, ..., first + (count - 1) · step of an endless series of epochs.

    Epoch e consists of the indices [e·n, (e + 1)·n). It has each item once, in an order of its own.

    Args:
        first: first index.
        count: number of indices.
        n: number of items, at least 1.
        block: number of neighbouring items that stay together; the last block may be shorter.
        key: uint64, seed of the order.
        step: distance between indices.

    Returns:
        int64 (count,), items in [0, n).
    """
    items = np.empty(count, np.int64)
    num_full_blocks, short_size = n // block, n % block
    for i in range(count):
        epoch, index = (first + i * step) // n, (first + i * step) % n
        epoch_key = derive_key(key, epoch)
        # The short block gets a random position among the full blocks, so that it does not always end an epoch.
        short_start = np.int64(derive_key(epoch_key, 0) % np.uint64(num_full_blocks + 1)) * block
        if short_size and short_start <= index < short_start + short_size:
            block_index, inside, size = num_full_blocks, index - short_start, short_size
        else:
            if short_size and index >= short_start + short_size:
                index -= short_size
            block_index, inside, size = (
                permute_index(index // block, num_full_blocks, derive_key(epoch_key, 1)),
                index % block,
                block,
            )
        items[i] = block_index * block + permute_index(inside, size, derive_key(epoch_key, 2 + block_index))
    return items
