"""The assignment of the rows of a step to ranks, with an equal number of rows for each rank."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

#: Largest number of swaps per step; usually there are only a few.
_MAX_SWAPS = 64


@njit(cache=True, nogil=True)
def assign_rows_to_ranks(costs: Any, step_rows: Any, ranks: int) -> Any:
    """Assigns rows by longest processing time first, then swaps rows between the busiest rank and another rank.

    The method is that of R. L. Graham, Bounds on multiprocessing timing anomalies, SIAM Journal on Applied Mathematics
    17, 1969, except that every rank takes the same number of rows.

    Args:
        costs: float64 (rows,), cost of each row.
        step_rows: int64 (steps, batch), row indices of each step.
        ranks: number of ranks; it divides `batch`.

    Returns:
        int64 (steps, ranks, batch // ranks), row indices of each rank by descending cost.
    """
    steps, batch = step_rows.shape
    share = batch // ranks
    assigned = np.empty((steps, ranks, share), np.int64)
    for step in range(steps):
        rows = step_rows[step][np.argsort(-costs[step_rows[step]], kind="mergesort")]
        load = np.zeros(ranks)
        size = np.zeros(ranks, np.int64)
        for row in rows:
            best = -1
            for rank in range(ranks):
                if size[rank] < share and (best < 0 or load[rank] < load[best]):
                    best = rank
            assigned[step, best, size[best]] = row
            size[best] += 1
            load[best] += costs[row]
        for _ in range(_MAX_SWAPS):
            if not _improve_by_swap(costs, assigned[step], load):
                break
        for rank in range(ranks):
            own = assigned[step, rank]
            own[:] = own[np.argsort(-costs[own], kind="mergesort")]
    return assigned


@njit(cache=True)
def _improve_by_swap(costs: Any, assigned: Any, load: Any) -> bool:
    """Makes the swap that lowers the load of the busiest rank most; returns False if no swap lowers it."""
    busy = np.argmax(load)
    best = load[busy]
    best_i = best_rank = best_j = -1
    for rank in range(load.size):
        for i in range(assigned.shape[1]):
            for j in range(assigned.shape[1]):
                moved = costs[assigned[busy, i]] - costs[assigned[rank, j]]
                after = max(load[busy] - moved, load[rank] + moved)
                if moved > 0 and after < best * (1 - 1e-12):
                    best, best_i, best_rank, best_j = after, i, rank, j
    if best_i < 0:
        return False
    row, other_row = assigned[busy, best_i], assigned[best_rank, best_j]
    assigned[busy, best_i], assigned[best_rank, best_j] = other_row, row
    load[busy] += costs[other_row] - costs[row]
    load[best_rank] += costs[row] - costs[other_row]
    return True
