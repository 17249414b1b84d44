"""A step's rows dealt to ranks, equally many to each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

#: Swaps tried per step before it is left as it is; a few are the rule.
_SWAPS = 64


@njit(cache=True, nogil=True)
def assign_rows_to_ranks(costs: Any, members: Any, ranks: int) -> Any:
    """Longest processing time first, then swaps between the busiest rank and another.

    Graham, Bounds on multiprocessing timing anomalies, SIAM Journal on Applied Mathematics 17, 1969; here a rank
    takes no more than its share of rows.

    Args:
        costs: float64, by row.
        members: int64 (steps, batch), row numbers.
        ranks: divides batch.

    Returns:
        int64 (steps, ranks, batch // ranks), a rank's rows by descending cost.
    """
    steps, batch = members.shape
    share = batch // ranks
    dealt = np.empty((steps, ranks, share), np.int64)
    for step in range(steps):
        rows = members[step][np.argsort(-costs[members[step]], kind="mergesort")]
        load = np.zeros(ranks)
        size = np.zeros(ranks, np.int64)
        for row in rows:
            best = -1
            for rank in range(ranks):
                if size[rank] < share and (best < 0 or load[rank] < load[best]):
                    best = rank
            dealt[step, best, size[best]] = row
            size[best] += 1
            load[best] += costs[row]
        for _ in range(_SWAPS):
            if not _improve_by_swap(costs, dealt[step], load):
                break
        for rank in range(ranks):
            own = dealt[step, rank]
            own[:] = own[np.argsort(-costs[own], kind="mergesort")]
    return dealt


@njit(cache=True)
def _improve_by_swap(costs: Any, dealt: Any, load: Any) -> bool:
    """Swap the two rows that lower the busiest rank's load most; false if none do."""
    busy = np.argmax(load)
    best = load[busy]
    mine = other = theirs = -1
    for rank in range(load.size):
        for i in range(dealt.shape[1]):
            for j in range(dealt.shape[1]):
                moved = costs[dealt[busy, i]] - costs[dealt[rank, j]]
                after = max(load[busy] - moved, load[rank] + moved)
                if moved > 0 and after < best * (1 - 1e-12):
                    best, mine, other, theirs = after, i, rank, j
    if mine < 0:
        return False
    row, swapped = dealt[busy, mine], dealt[other, theirs]
    dealt[busy, mine], dealt[other, theirs] = swapped, row
    load[busy] += costs[swapped] - costs[row]
    load[other] += costs[row] - costs[swapped]
    return True
