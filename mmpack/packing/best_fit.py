"""Best fit decreasing over the histogram of lengths.

Rows with the same content are one *run* (content, how many rows). A length is placed into whole runs at a
time, so the plan costs what the distinct lengths cost, not what the items cost. The number of rows is that of
best fit decreasing item by item: which of several equally full rows takes an item makes no difference to it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from mmpack.packing import bitset


@njit(cache=True)
def grow_array(array: Any, size: int) -> Any:
    """`array` itself if it has `size` places, else a copy with at least twice as many."""
    if size <= array.size:
        return array
    wider = np.empty(max(size, 2 * array.size), array.dtype)
    wider[: array.size] = array
    return wider


@njit(cache=True, nogil=True)
def best_fit(counts: Any, capacity: int) -> Any:
    """Plan of best fit decreasing.

    Args:
        counts: int64 (m,), how many items have length v, for v < m <= capacity + 1; lengths of 0 are ignored.
        capacity: token places of a row.

    Returns:
        (run_rows, run_start, part_length, part_count), all int64: run i stands for `run_rows[i]` equal rows,
        each holding `part_count[p]` items of `part_length[p]` for p in [run_start[i], run_start[i + 1]).
    """
    holes = bitset.make_bitset(capacity + 1)
    first = np.full(capacity + 1, -1, np.int64)  # by hole size: the first run in the list of runs with it
    # A run: its rows, the next run with the same hole, and its last part. A part points to the part before
    # it, so runs that were split share what they have in common.
    rows, follower, last = np.empty(256, np.int64), np.empty(256, np.int64), np.empty(256, np.int64)
    length, count, before = np.empty(256, np.int64), np.empty(256, np.int64), np.empty(256, np.int64)
    runs = 0
    parts = 0
    for v in range(counts.size - 1, 0, -1):
        left = counts[v]
        while left > 0:
            hole = bitset.next_member(holes, v)
            opened = hole < 0
            if opened:
                hole = capacity
            each = hole // v
            run = runs if opened else first[hole]
            if each <= left:
                taken = left // each if opened else min(rows[run], left // each)
            else:  # the last of this length do not fill a row up
                taken, each = 1, left
            left -= taken * each
            whole = not opened and taken == rows[run]
            if whole:
                first[hole] = follower[run]
                if first[hole] < 0:
                    bitset.remove(holes, hole)
            elif not opened:
                rows[run] -= taken
            target = run if whole else runs
            if not whole:
                rows, follower, last = (
                    grow_array(rows, runs + 1),
                    grow_array(follower, runs + 1),
                    grow_array(last, runs + 1),
                )
                runs += 1
            length, count, before = (
                grow_array(length, parts + 1),
                grow_array(count, parts + 1),
                grow_array(before, parts + 1),
            )
            length[parts], count[parts], before[parts] = v, each, -1 if opened else last[run]
            rows[target], last[target] = taken, parts
            parts += 1
            hole -= each * v
            follower[target] = first[hole]
            first[hole] = target
            bitset.add(holes, hole)
    return _expand_groups(rows[:runs], last, length, count, before)


@njit(cache=True, nogil=True)
def _expand_groups(rows: Any, last: Any, length: Any, count: Any, before: Any) -> Any:
    """The plan with every run's parts side by side, longest first."""
    start = np.zeros(rows.size + 1, np.int64)
    for run in range(rows.size):
        size = 0
        part = last[run]
        while part >= 0:
            size += 1
            part = before[part]
        start[run + 1] = start[run] + size
    part_length = np.empty(start[-1], np.int64)
    part_count = np.empty(start[-1], np.int64)
    for run in range(rows.size):
        place = start[run + 1]
        part = last[run]
        while part >= 0:
            place -= 1
            part_length[place] = length[part]
            part_count[place] = count[part]
            part = before[part]
    return rows.copy(), start, part_length, part_count
