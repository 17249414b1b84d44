"""Adds documents to the gaps of rows that are already packed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def fill_gaps(offsets: Any, ids: Any, lengths: Any, new_lengths: Any, capacity: int, max_rows: int) -> Any:
    """Adds documents by best fit, in their order, and stops at the first one that fits no row.

    Args:
        offsets: int64, offsets of the packed rows as in :class:`mmpack.packing.Packing`; at most `max_rows` rows.
        ids: int64, document indices of the packed rows as in :class:`mmpack.packing.Packing`.
        lengths: int64, lengths of the packed documents.
        new_lengths: int64, lengths of the documents to add.
        capacity: number of positions of a row.
        max_rows: largest number of rows; rows after the packed ones start empty.

    Returns:
        (offsets, ids, added): the rows with `added` more documents, whose indices start at `lengths.size`.
    """
    packed_rows = offsets.size - 1
    gap = np.full(max_rows, capacity, np.int64)
    for row in range(packed_rows):
        for i in range(offsets[row], offsets[row + 1]):
            gap[row] -= lengths[ids[i]]
    new_row = np.empty(new_lengths.size, np.int64)
    added = 0
    while added < new_lengths.size:
        best = -1
        for row in range(max_rows):
            if gap[row] >= new_lengths[added] and (best < 0 or gap[row] < gap[best]):
                best = row
        if best < 0:
            break
        gap[best] -= new_lengths[added]
        new_row[added] = best
        added += 1
    size = np.zeros(max_rows, np.int64)
    for row in range(packed_rows):
        size[row] = offsets[row + 1] - offsets[row]
    for i in range(added):
        size[new_row[i]] += 1
    rows = max_rows
    while rows > packed_rows and size[rows - 1] == 0:
        rows -= 1
    new_offsets = np.zeros(rows + 1, np.int64)
    for row in range(rows):
        new_offsets[row + 1] = new_offsets[row] + size[row]
    new_ids = np.empty(ids.size + added, np.int64)
    end = new_offsets[:-1].copy()
    for row in range(packed_rows):
        for i in range(offsets[row], offsets[row + 1]):
            new_ids[end[row]] = ids[i]
            end[row] += 1
    for i in range(added):
        new_ids[end[new_row[i]]] = lengths.size + i
        end[new_row[i]] += 1
    return new_offsets, new_ids, added
