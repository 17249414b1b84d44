"""A seeded order of n things, place by place, without a list of them.

Blocks of neighbours are permuted by a Feistel network whose values outside [0, blocks) are walked on (cycle
walking: Black and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002), and the places within a block by
another one. So the order is a bijection for every seed, costs no memory, and any place of it is found at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from mmpack.packing.histogram import splitmix64

#: Four rounds make a pseudorandom permutation of a pseudorandom round function (Luby and Rackoff, 1988).
_ROUNDS = 4


@njit(cache=True)
def derive_key(key: Any, number: int) -> Any:
    """Another key, uint64, for each number."""
    return splitmix64(np.uint64(key) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(number + 1))


@njit(cache=True)
def permute_index(index: Any, n: int, key: Any) -> Any:
    """Where `place` in [0, n) goes: a bijection on [0, n) for each key (uint64)."""
    half = np.uint64(1)
    while np.uint64(1) << (np.uint64(2) * half) < np.uint64(n):
        half += np.uint64(1)
    low = (np.uint64(1) << half) - np.uint64(1)
    value = np.uint64(index)
    while True:
        left, right = value >> half, value & low
        for number in range(_ROUNDS):
            left, right = right, left ^ (splitmix64(right ^ derive_key(key, number)) & low)
        value = left << half | right
        if value < np.uint64(n):
            return np.int64(value)


@njit(cache=True, nogil=True)
def epoch_order(first: int, count: int, n: int, block: int, key: Any, step: int = 1) -> Any:
    """Things at the places first, first + step, ..., first + (count - 1) * step of an endless series of epochs.

    Epoch e holds the places [e·n, (e + 1)·n), each thing once, in an order of its own.

    Args:
        first: the first place.
        count: how many.
        n: things, at least 1.
        block: neighbours that stay together; the last block may be shorter.
        key: uint64.
        step: from place to place.

    Returns:
        int64 (count,), in [0, n).
    """
    found = np.empty(count, np.int64)
    full, rest = n // block, n % block
    for i in range(count):
        epoch, place = (first + i * step) // n, (first + i * step) % n
        own = derive_key(key, epoch)
        # The short block lies anywhere among the others.
        short = np.int64(derive_key(own, 0) % np.uint64(full + 1)) * block
        if rest and short <= place < short + rest:
            number, inside, size = full, place - short, rest
        else:
            if rest and place >= short + rest:
                place -= rest
            number, inside, size = (
                permute_index(place // block, full, derive_key(own, 1)),
                place % block,
                block,
            )
        found[i] = number * block + permute_index(inside, size, derive_key(own, 2 + number))
    return found
