"""How few rows any packing can have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Rounding functions tried by :func:`fekete_schepers_bound`.
_FUNCTIONS = 24


def lower_bound(counts: NDArray[np.int64], capacity: int) -> int:
    """Rows that no packing can do without: the larger of the two bounds below.

    Args:
        counts: int64 (m,), how many items have length v, for v < m <= capacity + 1.
        capacity: token places of a row.

    Returns:
        Rows; 0 if no item has tokens.
    """
    return max(martello_toth_bound(counts, capacity), fekete_schepers_bound(counts, capacity))


def martello_toth_bound(counts: NDArray[np.int64], capacity: int) -> int:
    """Martello and Toth's bound L2.

    For a threshold k: items longer than capacity - k share a row with none of k or more, items longer than half a
    row share it with no such other, and what items in [k, capacity / 2] do not fit beside the latter needs rows of
    its own. The bound is the largest over all k. (S. Martello and P. Toth, Lower bounds and reduction procedures
    for the bin packing problem, Discrete Applied Mathematics 28, 1990.)
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
    room = middle * capacity - (tokens[capacity - k] - tokens[half])
    short = tokens[half] - tokens[k - 1]
    return int(items[-1] - items[half]) + max(0, int(-((room - short) // capacity).min()))


def fekete_schepers_bound(counts: NDArray[np.int64], capacity: int) -> int:
    """Fekete and Schepers' bound: sees that of items longer than a fifth of a row only four fit.

    For k = 1, 2, …: an item of share x of a row counts x if (k + 1)·x is whole, else floor((k + 1)·x) / k. Items of a
    row never count more than 1 together. (S. P. Fekete and J. Schepers, New classes of fast lower bounds for bin
    packing problems, Mathematical Programming 91, 2001, function u^(k).)
    """
    lengths = np.flatnonzero(counts)
    lengths = lengths[lengths > 0]
    many = counts[lengths]
    best = 0
    for k in range(1, _FUNCTIONS + 1):
        whole, rest = np.divmod((k + 1) * lengths, capacity)
        # In units of 1 / (k (k + 1)).
        units = int((many * whole * np.where(rest == 0, k, k + 1)).sum())
        best = max(best, -(-units // (k * (k + 1))))
    return best
