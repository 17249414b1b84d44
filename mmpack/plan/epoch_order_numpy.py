"""The order of `mmpack.plan.epoch_order`, place by place the same, without a compiler.

What is compiled takes a third of a second to load. Rows are planned by the ten thousand and need it; who reads samples
looks up a thousand places at a time, and starts at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_Words = NDArray[np.uint64]

_ROUNDS = 4
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def epoch_order_numpy(
    first: int, count: int, n: int, block: int, key: int, step: int = 1
) -> NDArray[np.int64]:
    """See :func:`mmpack.plan.epoch_order.order`."""
    places = first + step * np.arange(count, dtype=np.int64)
    own = _derive_key(np.full(count, key, np.uint64), places // n)
    place = places % n
    full, rest = divmod(n, block)
    # The short block lies anywhere among the others.
    short = (_derive_key(own, 0) % np.uint64(full + 1)).astype(np.int64) * block
    in_short = (rest > 0) & (short <= place) & (place < short + rest)
    inside = np.where(in_short, place - short, 0)
    place = np.where(place >= short + rest, place - rest, place)
    number = np.full(count, full, np.int64)
    long = ~in_short
    number[long] = _permute_index(place[long] // block, full, _derive_key(own[long], 1))
    inside[long] = place[long] % block
    keys = _derive_key(own, number + 2)
    inside[long] = _permute_index(inside[long], block, keys[long])
    inside[in_short] = _permute_index(inside[in_short], rest, keys[in_short])
    return number * block + inside


def _splitmix64(x: _Words) -> _Words:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _derive_key(key: _Words, number: NDArray[np.int64] | int) -> _Words:
    return _splitmix64(key + _GOLDEN * (np.atleast_1d(np.asarray(number)) + 1).astype(np.uint64))


def _permute_index(index: NDArray[np.int64], n: int, key: _Words) -> NDArray[np.int64]:
    half = max(1, (max(n - 1, 1).bit_length() + 1) // 2)
    shift, low = np.uint64(half), np.uint64((1 << half) - 1)
    keys = [_derive_key(key, number) for number in range(_ROUNDS)]
    value = index.astype(np.uint64)
    walking = np.arange(len(value))
    while len(walking):
        left, right = value[walking] >> shift, value[walking] & low
        for own in keys:
            left, right = right, left ^ (_splitmix64(right ^ own[walking]) & low)
        value[walking] = left << shift | right
        walking = walking[value[walking] >= np.uint64(n)]
    return value.astype(np.int64)
