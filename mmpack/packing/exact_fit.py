"""Rows that are completed exactly, where best fit decreasing leaves gaps that no item fits.

Best fit takes the longest item that fits and accepts the gap that remains: two videos of 4,800 and 3,200 tokens in a row
of 8,192 leave 192 positions, and the short items are used up before all such gaps are filled. Here each row starts with
the longest item left (its head), and the rest is looked up: one item that fills it, else two, else three. Only if there
are none, the longest item that fits is taken, and the search continues with the gap that remains. Of all pairs, the pair
with the smallest difference in length is taken, because later rows need short items.

As in :mod:`mmpack.packing.best_fit`, the content of a row is repeated as often as the remaining items allow. Each
repetition ends when a length is used up, so there are at most as many searches as distinct lengths. The search is limited
by a number of steps, never by seconds: a plan is the same on a slow machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from mmpack.packing import bitset
from mmpack.packing.best_fit import grow_array

#: Largest number of steps of the search for three items that fill one gap.
_MAX_TRIPLE_STEPS = 1 << 14


@njit(cache=True)
def add_length(remaining: Any, available: Any, length: int) -> None:
    """Adds one item of `length` > 0 to the remaining items."""
    remaining[length] += 1
    bitset.add(available, length)


@njit(cache=True, inline="always")
def remove_length(remaining: Any, available: Any, length: int) -> None:
    """Removes one item of `length` from the remaining items."""
    remaining[length] -= 1
    if remaining[length] == 0:
        bitset.remove(available, length)


@njit(cache=True)
def _find_pair(remaining: Any, available: Any, gap: int) -> Any:
    """Returns (a, steps): the smallest a >= gap - a for which items of a and of gap - a remain, or -1."""
    steps = 1
    a = bitset.next_member(available, (gap + 1) >> 1)
    while 0 <= a < gap:
        b = gap - a
        if remaining[b] > (1 if a == b else 0):
            return a, steps
        a = bitset.next_member(available, a + 1)
        steps += 1
    return -1, steps


@njit(cache=True)
def _find_triple(remaining: Any, available: Any, gap: int, max_length: int, max_steps: int) -> Any:
    """Searches three items a >= b >= gap - a - b that fill the gap, and takes the largest possible a.

    Returns:
        (a, b, steps); a and b are -1 if there are no such items.
    """
    steps = 0
    a = max_length
    while a > 0 and 3 * a >= gap and steps < max_steps:
        remaining[a] -= 1
        b, pair_steps = _find_pair(remaining, available, gap - a) if gap > a else (-1, 1)
        fits = 0 <= b <= a and remaining[b] > 0
        remaining[a] += 1
        steps += pair_steps
        if fits:
            return a, b, steps
        a = bitset.previous_member(available, a - 1)
    return -1, -1, steps


@njit(cache=True)
def complete_row(remaining: Any, available: Any, gap: int, row: Any, size: int, max_steps: int) -> Any:
    """Fills the gap of a row with remaining items.

    Args:
        remaining: int64 (capacity + 1,), number of remaining items by length; the items taken are subtracted.
        available: set of the lengths > 0 with remaining items (:mod:`mmpack.packing.bitset`); it is updated too.
        gap: number of positions to fill.
        row: int64, the lengths taken are written to `row[size:]`.
        size: number of lengths that `row` holds.
        max_steps: largest number of search steps; with 0, the longest item that fits is taken until none fits.

    Returns:
        (gap that remains, new size, search steps used).
    """
    steps = 0
    while gap > 0:
        longest = bitset.previous_member(available, gap)
        if longest < 0:
            break
        if longest < gap and steps < max_steps:
            a = b = -1
            if 2 * longest >= gap:
                a, used_steps = _find_pair(remaining, available, gap)
                steps += used_steps
                b = gap - a
            if a < 0 and 3 * longest >= gap:
                a, b, used_steps = _find_triple(
                    remaining, available, gap, longest, min(max_steps - steps, _MAX_TRIPLE_STEPS)
                )
                steps += used_steps
            if a > 0:
                for length in (a, b, gap - a - b):
                    if length > 0:
                        remove_length(remaining, available, length)
                        row[size] = length
                        size += 1
                return 0, size, steps
        remove_length(remaining, available, longest)
        row[size] = longest
        size += 1
        gap -= longest
    return gap, size, steps


@njit(cache=True)
def _sort_descending(row: Any, size: int) -> None:
    """Sorts `row[:size]` in place by insertion, because rows are short and nearly sorted."""
    for index in range(1, size):
        length = row[index]
        while index > 0 and row[index - 1] < length:
            row[index] = row[index - 1]
            index -= 1
        row[index] = length


@njit(cache=True)
def _level_cost(remaining: Any, available: Any, gap: int, row: Any, size: int, cost: float) -> Any:
    """Adds items to a row of one item so that Σ length² comes near `cost`; returns (gap to complete, new size).

    A token costs the length of its item. So the missing cost divided by the gap is the length that the next item should
    have: a row with a long head gets short items, a row with a short head gets long items.
    """
    missing = cost - float(row[0]) * row[0]
    while gap > 0:
        # Items shorter than an eighth of the gap are not taken, because expensive rows would use up the shortest items,
        # which the exact completion of later rows needs. The exact completion also needs a gap of two or three items.
        target = max(missing / gap, gap / 8)
        if gap <= 2.5 * target:
            break
        length = bitset.previous_member(available, int(target))
        if length < 0:
            length = bitset.next_member(available, 1)
        if length < 0 or length > gap:
            break
        remove_length(remaining, available, length)
        row[size] = length
        size += 1
        gap -= length
        missing -= float(length) * length
    return gap, size


@njit(cache=True, nogil=True)
def exact_fit(counts: Any, capacity: int, max_steps: int, level: bool) -> Any:
    """Plans completed rows; the plan has the form of :func:`mmpack.packing.best_fit.best_fit`.

    Args:
        counts: int64 (m,), `counts[v]` is the number of items of length v, for v < m <= capacity + 1; lengths of 0 are
            ignored.
        capacity: number of positions of a row.
        max_steps: largest number of search steps of the whole plan; later rows are filled with the longest items first.
        level: whether rows are brought near the same Σ length² before they are completed. Rows are then planned one by
            one.
    """
    remaining = np.zeros(capacity + 1, np.int64)
    remaining[1 : counts.size] = counts[1:]
    available = bitset.make_bitset(capacity + 1)
    items = tokens = 0
    cost = 0.0
    for v in range(1, capacity + 1):
        if remaining[v] > 0:
            bitset.add(available, v)
            items += remaining[v]
            tokens += remaining[v] * v
            cost += float(remaining[v]) * v * v
    row = np.empty(min(capacity, items), np.int64)
    group_rows, start = np.empty(256, np.int64), np.zeros(257, np.int64)
    part_length, part_count = np.empty(1024, np.int64), np.empty(1024, np.int64)
    groups = parts = 0
    longest = bitset.previous_member(available, capacity)
    while longest > 0:
        remove_length(remaining, available, longest)
        row[0] = longest
        gap, size = capacity - longest, 1
        if level:
            gap, size = _level_cost(remaining, available, gap, row, size, cost / max(1.0, tokens / capacity))
        gap, size, steps = complete_row(remaining, available, gap, row, size, max_steps)
        max_steps -= steps
        _sort_descending(row, size)
        part_length, part_count = grow_array(part_length, parts + size), grow_array(part_count, parts + size)
        begin = parts
        for index in range(size):
            if parts > begin and part_length[parts - 1] == row[index]:
                part_count[parts - 1] += 1
            else:
                part_length[parts], part_count[parts] = row[index], 1
                parts += 1
        repeats = 0 if level else remaining[longest] // part_count[begin]
        for part in range(begin, parts):
            repeats = min(repeats, remaining[part_length[part]] // part_count[part])
            tokens -= part_length[part] * part_count[part]
            cost -= float(part_length[part]) * part_length[part] * part_count[part]
        for part in range(begin, parts):
            remaining[part_length[part]] -= repeats * part_count[part]
            if remaining[part_length[part]] == 0:
                bitset.remove(available, part_length[part])
        group_rows, start = grow_array(group_rows, groups + 1), grow_array(start, groups + 2)
        group_rows[groups] = repeats + 1
        groups += 1
        start[groups] = parts
        longest = bitset.previous_member(available, capacity)
    return (
        group_rows[:groups].copy(),
        start[: groups + 1].copy(),
        part_length[:parts].copy(),
        part_count[:parts].copy(),
    )
