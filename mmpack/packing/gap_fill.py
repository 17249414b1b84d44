"""More documents into the holes of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def fill_gaps(offsets: Any, ids: Any, lengths: Any, more: Any, capacity: int, rows: int) -> Any:
    """Best fit, in the order given, up to the first that fits nowhere.

    Args:
        offsets, ids: int64, rows of documents as in :class:`mmpack.packing.Packing`; at most `rows` of them.
        lengths: int64, of the documents there are.
        more: int64, of those to add.
        capacity: token places of a row.
        rows: how many there may be; those beyond the given ones are empty.

    Returns:
        (offsets, ids, added): the rows with `added` documents more, numbered on from `lengths.size`.
    """
    given = offsets.size - 1
    hole = np.full(rows, capacity, np.int64)
    for row in range(given):
        for place in range(offsets[row], offsets[row + 1]):
            hole[row] -= lengths[ids[place]]
    row_of = np.empty(more.size, np.int64)
    added = 0
    while added < more.size:
        best = -1
        for row in range(rows):
            if hole[row] >= more[added] and (best < 0 or hole[row] < hole[best]):
                best = row
        if best < 0:
            break
        hole[best] -= more[added]
        row_of[added] = best
        added += 1
    size = np.zeros(rows, np.int64)
    for row in range(given):
        size[row] = offsets[row + 1] - offsets[row]
    for i in range(added):
        size[row_of[i]] += 1
    used = rows
    while used > given and size[used - 1] == 0:
        used -= 1
    result = np.zeros(used + 1, np.int64)
    for row in range(used):
        result[row + 1] = result[row] + size[row]
    found = np.empty(ids.size + added, np.int64)
    at = result[:-1].copy()
    for row in range(given):
        for place in range(offsets[row], offsets[row + 1]):
            found[at[row]] = ids[place]
            at[row] += 1
    for i in range(added):
        found[at[row_of[i]]] = lengths.size + i
        at[row_of[i]] += 1
    return result, found, added
