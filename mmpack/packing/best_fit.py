"""Best fit decreasing over the histogram of lengths.

Rows with the same content form one *group* (content, number of rows). A length is placed into whole groups at a time, so
the cost of planning depends on the number of distinct lengths, not on the number of items. The number of rows is the same
as that of best fit decreasing item by item, because it does not matter which of several equally full rows takes an item.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from mmpack.packing import bitset


@njit(cache=True)
def grow_array(array: Any, size: int) -> Any:
    """Returns `array` itself if it has at least `size` elements, else a copy with at least twice as many elements."""
    if size <= array.size:
        return array
    larger = np.empty(max(size, 2 * array.size), array.dtype)
    larger[: array.size] = array
    return larger


@njit(cache=True, nogil=True)
def best_fit(counts: Any, capacity: int) -> Any:
    """Plans rows by best fit decreasing.

    Args:
        counts: int64 (m,), `counts[v]` is the number of items of length v, for v < m <= capacity + 1; lengths of 0 are
            ignored.
        capacity: number of positions of a row.

    Returns:
        (group_rows, group_start, part_length, part_count), all int64: group g stands for `group_rows[g]` equal rows, each
        of which holds `part_count[p]` items of length `part_length[p]` for p in [group_start[g], group_start[g + 1]).
    """
    gaps = bitset.make_bitset(capacity + 1)
    first_group = np.full(
        capacity + 1, -1, np.int64
    )  # by gap: the first group in the list of groups with this gap
    # A group has a number of rows, the next group with the same gap, and a last part. Each part refers to the part
    # before it, so groups that were split share their common parts.
    rows, next_group, last_part = np.empty(256, np.int64), np.empty(256, np.int64), np.empty(256, np.int64)
    length, count, previous_part = np.empty(256, np.int64), np.empty(256, np.int64), np.empty(256, np.int64)
    groups = 0
    parts = 0
    for v in range(counts.size - 1, 0, -1):
        left = counts[v]
        while left > 0:
            gap = bitset.next_member(gaps, v)
            is_new = gap < 0
            if is_new:
                gap = capacity
            per_row = gap // v
            group = groups if is_new else first_group[gap]
            if per_row <= left:
                filled_rows = left // per_row if is_new else min(rows[group], left // per_row)
            else:  # the remaining items of this length are too few to use the whole gap of a row
                filled_rows, per_row = 1, left
            left -= filled_rows * per_row
            uses_whole_group = not is_new and filled_rows == rows[group]
            if uses_whole_group:
                first_group[gap] = next_group[group]
                if first_group[gap] < 0:
                    bitset.remove(gaps, gap)
            elif not is_new:
                rows[group] -= filled_rows
            target = group if uses_whole_group else groups
            if not uses_whole_group:
                rows, next_group, last_part = (
                    grow_array(rows, groups + 1),
                    grow_array(next_group, groups + 1),
                    grow_array(last_part, groups + 1),
                )
                groups += 1
            length, count, previous_part = (
                grow_array(length, parts + 1),
                grow_array(count, parts + 1),
                grow_array(previous_part, parts + 1),
            )
            length[parts], count[parts], previous_part[parts] = v, per_row, -1 if is_new else last_part[group]
            rows[target], last_part[target] = filled_rows, parts
            parts += 1
            gap -= per_row * v
            next_group[target] = first_group[gap]
            first_group[gap] = target
            bitset.add(gaps, gap)
    return _expand_groups(rows[:groups], last_part, length, count, previous_part)


@njit(cache=True, nogil=True)
def _expand_groups(rows: Any, last_part: Any, length: Any, count: Any, previous_part: Any) -> Any:
    """Returns the plan with the parts of each group in consecutive elements, longest first."""
    start = np.zeros(rows.size + 1, np.int64)
    for group in range(rows.size):
        size = 0
        part = last_part[group]
        while part >= 0:
            size += 1
            part = previous_part[part]
        start[group + 1] = start[group] + size
    part_length = np.empty(start[-1], np.int64)
    part_count = np.empty(start[-1], np.int64)
    for group in range(rows.size):
        index = start[group + 1]
        part = last_part[group]
        while part >= 0:
            index -= 1
            part_length[index] = length[part]
            part_count[index] = count[part]
            part = previous_part[part]
    return rows.copy(), start, part_length, part_count
