"""Lower bounds on the number of rows of a packing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Number of rounding functions that :func:`fekete_schepers_bound` tries.
_NUM_FUNCTIONS = 24


def lower_bound(counts: NDArray[np.int64], capacity: int) -> int:
    """Returns the number of rows that every packing needs: the larger of the two bounds below.

    Args:
        counts: int64 (m,), `counts[v]` is the number of items of length v, for v < m <= capacity + 1.
        capacity: number of positions of a row.

    Returns:
        Number of rows; 0 if no item has tokens.
    """
    return max(martello_toth_bound(counts, capacity), fekete_schepers_bound(counts, capacity))


def martello_toth_bound(counts: NDArray[np.int64], capacity: int) -> int:
    """Computes the bound L2 of Martello and Toth.

    For a threshold k: an item longer than capacity - k shares no row with an item of length k or more; two items longer
    than half a row share no row; and the tokens of items with lengths in [k, capacity / 2] that do not fit next to items
    longer than half a row need additional rows. The bound is the maximum over all k. (S. Martello and
    P. Toth, Lower bounds and reduction procedures for the bin packing problem, Discrete Applied Mathematics 28, 1990.)
    """
    full = np.zeros(capacity + 1, np.int64)
    full[1 : counts.size] = counts[1:]
    items = np.cumsum(full)
    tokens = np.cumsum(full * np.arange(capacity + 1))
    half = capacity // 2
    if not half:
        return int(items[-1])
    k = np.arange(1, half + 1)
    middle = items[capacity - k] - items[half]
    free = middle * capacity - (tokens[capacity - k] - tokens[half])
    short_tokens = tokens[half] - tokens[k - 1]
    return int(items[-1] - items[half]) + max(0, int(-((free - short_tokens) // capacity).min()))


def fekete_schepers_bound(counts: NDArray[np.int64], capacity: int) -> int:
    """Computes the bound of Fekete and Schepers, which uses for example that only four items longer than 1/5 row fit a row.

    For k = 1, 2, …, 24: an item that takes the share x of a row counts x if (k + 1)·x is an integer, else
    floor((k + 1)·x) / k. The items of one row never count more than 1 together. (S. P. Fekete and
    J. Schepers, New classes of fast lower bounds for bin packing problems, Mathematical Programming 91, 2001, function u^(k).)
    """
    lengths = np.flatnonzero(counts)
    lengths = lengths[lengths > 0]
    multiplicity = counts[lengths]
    best = 0
    for k in range(1, _NUM_FUNCTIONS + 1):
        quotient, rest = np.divmod((k + 1) * lengths, capacity)
        # Integers in units of 1 / (k (k + 1)) make the sum exact.
        units = int((multiplicity * quotient * np.where(rest == 0, k, k + 1)).sum())
        best = max(best, -(-units // (k * (k + 1))))
    return best
