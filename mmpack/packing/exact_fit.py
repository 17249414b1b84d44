"""Rows completed exactly, where best fit decreasing leaves holes nobody fits.

Best fit takes the longest item that fits and lives with the hole that leaves: two videos of 4,800 and 3,200
tokens in a row of 8,192 leave 192 places, and short items run out before such holes do. Here a row is headed by
the longest item left, and the rest of it is looked up: one item that fills it, else two, else three; only if
there are none is the longest item that fits put in, and the search goes on with what remains. Of two items the
pair nearest to equal is taken, because short items are what later rows need.

As in :mod:`mmpack.packing.best_fit`, a row found is used as often as its items last. Each use ends a length, so
there are at most as many searches as distinct lengths. The search is counted in steps, never in seconds: a plan
is the same on a slow machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from mmpack.packing import bitset
from mmpack.packing.best_fit import grow_array

#: Steps after which the search for three items is given up, for this hole.
_TRIPLE_STEPS = 1 << 14


@njit(cache=True)
def add_length(remaining: Any, have: Any, length: int) -> None:
    """One more item of `length` > 0 is left."""
    remaining[length] += 1
    bitset.add(have, length)


@njit(cache=True, inline="always")
def remove_length(remaining: Any, have: Any, length: int) -> None:
    """One item of `length` less is left."""
    remaining[length] -= 1
    if remaining[length] == 0:
        bitset.remove(have, length)


@njit(cache=True)
def _find_pair(remaining: Any, have: Any, gap: int) -> Any:
    """(a, steps): the smallest a >= hole - a with items of a and hole - a left, or -1."""
    steps = 1
    a = bitset.next_member(have, (gap + 1) >> 1)
    while 0 <= a < gap:
        b = gap - a
        if remaining[b] > (1 if a == b else 0):
            return a, steps
        a = bitset.next_member(have, a + 1)
        steps += 1
    return -1, steps


@njit(cache=True)
def _find_triple(remaining: Any, have: Any, gap: int, max_length: int, limit: int) -> Any:
    """(a, b, steps): items of a >= b >= hole - a - b are left, with the largest such a; -1 if there are none."""
    steps = 0
    a = max_length
    while a > 0 and 3 * a >= gap and steps < limit:
        remaining[a] -= 1
        b, taken = _find_pair(remaining, have, gap - a) if gap > a else (-1, 1)
        fits = 0 <= b <= a and remaining[b] > 0
        remaining[a] += 1
        steps += taken
        if fits:
            return a, b, steps
        a = bitset.previous_member(have, a - 1)
    return -1, -1, steps


@njit(cache=True)
def complete_row(remaining: Any, have: Any, gap: int, row: Any, size: int, limit: int) -> Any:
    """Fill a row's hole.

    Args:
        left: int64 (capacity + 1,), items left by length; those taken are deducted.
        have: the lengths > 0 with items left (:mod:`mmpack.packing.bitset`); kept true.
        hole: token places to fill.
        row: int64, lengths taken are written to row[size:].
        size: how many lengths `row` holds.
        limit: search steps allowed; without any, the longest item that fits is taken until none does.

    Returns:
        (hole left, size, steps taken).
    """
    steps = 0
    while gap > 0:
        longest = bitset.previous_member(have, gap)
        if longest < 0:
            break
        if longest < gap and steps < limit:
            a = b = -1
            if 2 * longest >= gap:
                a, taken = _find_pair(remaining, have, gap)
                steps += taken
                b = gap - a
            if a < 0 and 3 * longest >= gap:
                a, b, taken = _find_triple(remaining, have, gap, longest, min(limit - steps, _TRIPLE_STEPS))
                steps += taken
            if a > 0:
                for length in (a, b, gap - a - b):
                    if length > 0:
                        remove_length(remaining, have, length)
                        row[size] = length
                        size += 1
                return 0, size, steps
        remove_length(remaining, have, longest)
        row[size] = longest
        size += 1
        gap -= longest
    return gap, size, steps


@njit(cache=True)
def _complete_with_longest(row: Any, size: int) -> None:
    """Sort row[:size] in place. Insertion: rows are short and nearly sorted."""
    for place in range(1, size):
        length = row[place]
        while place > 0 and row[place - 1] < length:
            row[place] = row[place - 1]
            place -= 1
        row[place] = length


@njit(cache=True)
def _level_cost(remaining: Any, have: Any, gap: int, row: Any, size: int, cost: float) -> Any:
    """Bring a row of one item near a cost of Σ length², leaving a hole to complete; (hole left, size).

    A token of an item costs the item's length. So what is missing in cost, divided by the hole, is the length
    that the next item should have: a long head gets short items beside it, a short head long ones.
    """
    missing = cost - float(row[0]) * row[0]
    while gap > 0:
        # No shorter than an eighth of the hole, or heavy rows would use up the shortest items, which the exact
        # completion of later rows lives on; and it wants a hole of two or three items.
        wanted = max(missing / gap, gap / 8)
        if gap <= 2.5 * wanted:
            break
        length = bitset.previous_member(have, int(wanted))
        if length < 0:
            length = bitset.next_member(have, 1)
        if length < 0 or length > gap:
            break
        remove_length(remaining, have, length)
        row[size] = length
        size += 1
        gap -= length
        missing -= float(length) * length
    return gap, size


@njit(cache=True, nogil=True)
def exact_fit(counts: Any, capacity: int, limit: int, level: bool) -> Any:
    """Plan of completed rows, as :func:`mmpack.packing.best_fit.best_fit` gives it.

    Args:
        counts: int64 (m,), how many items have length v, for v < m <= capacity + 1; lengths of 0 are ignored.
        capacity: token places of a row.
        limit: search steps for the whole plan; the rows after them are filled longest first.
        level: bring rows near the same Σ length² before they are completed. Rows are planned one by one then.
    """
    left = np.zeros(capacity + 1, np.int64)
    left[1 : counts.size] = counts[1:]
    have = bitset.make_bitset(capacity + 1)
    items = tokens = 0
    cost = 0.0
    for v in range(1, capacity + 1):
        if left[v] > 0:
            bitset.add(have, v)
            items += left[v]
            tokens += left[v] * v
            cost += float(left[v]) * v * v
    row = np.empty(min(capacity, items), np.int64)
    run_rows, start = np.empty(256, np.int64), np.zeros(257, np.int64)
    part_length, part_count = np.empty(1024, np.int64), np.empty(1024, np.int64)
    runs = parts = 0
    longest = bitset.previous_member(have, capacity)
    while longest > 0:
        remove_length(left, have, longest)
        row[0] = longest
        hole, size = capacity - longest, 1
        if level:
            hole, size = _level_cost(left, have, hole, row, size, cost / max(1.0, tokens / capacity))
        hole, size, steps = complete_row(left, have, hole, row, size, limit)
        limit -= steps
        _complete_with_longest(row, size)
        part_length, part_count = grow_array(part_length, parts + size), grow_array(part_count, parts + size)
        begin = parts
        for place in range(size):
            if parts > begin and part_length[parts - 1] == row[place]:
                part_count[parts - 1] += 1
            else:
                part_length[parts], part_count[parts] = row[place], 1
                parts += 1
        again = 0 if level else left[longest] // part_count[begin]
        for part in range(begin, parts):
            again = min(again, left[part_length[part]] // part_count[part])
            tokens -= part_length[part] * part_count[part]
            cost -= float(part_length[part]) * part_length[part] * part_count[part]
        for part in range(begin, parts):
            left[part_length[part]] -= again * part_count[part]
            if left[part_length[part]] == 0:
                bitset.remove(have, part_length[part])
        run_rows, start = grow_array(run_rows, runs + 1), grow_array(start, runs + 2)
        run_rows[runs] = again + 1
        runs += 1
        start[runs] = parts
        longest = bitset.previous_member(have, capacity)
    return (
        run_rows[:runs].copy(),
        start[: runs + 1].copy(),
        part_length[:parts].copy(),
        part_count[:parts].copy(),
    )
