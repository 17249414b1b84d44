"""Random permutations that are the same in every version of every library.

The random streams of numpy may change from release to release (NEP 19), but the documents of a row must not change.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mmpack.packing.histogram import splitmix64


def permutation(n: int, seed: int) -> NDArray[np.int64]:
    """Returns the integers 0, ..., n - 1 in a random order: int64 (n,).

    Args:
        n: number of integers.
        seed: integer in [0, 2**64).
    """
    return _shuffle(n, np.uint64(seed))


@njit(cache=True, nogil=True)
def _shuffle(n: int, seed: Any) -> Any:
    """Shuffles 0, ..., n - 1 by Durstenfeld's method (Communications of the ACM 7, 1964) with splitmix64."""
    order = np.arange(n)
    state = seed
    for last in range(n - 1, 0, -1):
        state += np.uint64(0x9E3779B97F4A7C15)
        # The remainder favours small values by less than n / 2**64.
        chosen = np.int64(splitmix64(state) % np.uint64(last + 1))
        order[last], order[chosen] = order[chosen], order[last]
    return order
