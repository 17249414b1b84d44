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
from mmpack.packing.best_fit import grown

#: Steps after which the search for three items is given up, for this hole.
_TRIPLE_STEPS = 1 << 14


@njit(cache=True)
def put(left: Any, have: Any, length: int) -> None:
    """One more item of `length` > 0 is left."""
    left[length] += 1
    bitset.add(have, length)


@njit(cache=True, inline="always")
def take(left: Any, have: Any, length: int) -> None:
    """One item of `length` less is left."""
    left[length] -= 1
    if left[length] == 0:
        bitset.remove(have, length)


@njit(cache=True)
def _pair(left: Any, have: Any, hole: int) -> Any:
    """(a, steps): the smallest a >= hole - a with items of a and hole - a left, or -1."""
    steps = 1
    a = bitset.at_least(have, (hole + 1) >> 1)
    while 0 <= a < hole:
        b = hole - a
        if left[b] > (1 if a == b else 0):
            return a, steps
        a = bitset.at_least(have, a + 1)
        steps += 1
    return -1, steps


@njit(cache=True)
def _triple(left: Any, have: Any, hole: int, longest: int, limit: int) -> Any:
    """(a, b, steps): items of a >= b >= hole - a - b are left, with the largest such a; -1 if there are none."""
    steps = 0
    a = longest
    while a > 0 and 3 * a >= hole and steps < limit:
        left[a] -= 1
        b, taken = _pair(left, have, hole - a) if hole > a else (-1, 1)
        fits = 0 <= b <= a and left[b] > 0
        left[a] += 1
        steps += taken
        if fits:
            return a, b, steps
        a = bitset.at_most(have, a - 1)
    return -1, -1, steps


@njit(cache=True)
def complete(left: Any, have: Any, hole: int, row: Any, size: int, limit: int) -> Any:
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
    while hole > 0:
        longest = bitset.at_most(have, hole)
        if longest < 0:
            break
        if longest < hole and steps < limit:
            a = b = -1
            if 2 * longest >= hole:
                a, taken = _pair(left, have, hole)
                steps += taken
                b = hole - a
            if a < 0 and 3 * longest >= hole:
                a, b, taken = _triple(left, have, hole, longest, min(limit - steps, _TRIPLE_STEPS))
                steps += taken
            if a > 0:
                for length in (a, b, hole - a - b):
                    if length > 0:
                        take(left, have, length)
                        row[size] = length
                        size += 1
                return 0, size, steps
        take(left, have, longest)
        row[size] = longest
        size += 1
        hole -= longest
    return hole, size, steps


@njit(cache=True)
def _longest_first(row: Any, size: int) -> None:
    """Sort row[:size] in place. Insertion: rows are short and nearly sorted."""
    for place in range(1, size):
        length = row[place]
        while place > 0 and row[place - 1] < length:
            row[place] = row[place - 1]
            place -= 1
        row[place] = length


@njit(cache=True)
def _level(left: Any, have: Any, hole: int, row: Any, size: int, cost: float) -> Any:
    """Bring a row of one item near a cost of Σ length², leaving a hole to complete; (hole left, size).

    A token of an item costs the item's length. So what is missing in cost, divided by the hole, is the length
    that the next item should have: a long head gets short items beside it, a short head long ones.
    """
    missing = cost - float(row[0]) * row[0]
    while hole > 0:
        # No shorter than an eighth of the hole, or heavy rows would use up the shortest items, which the exact
        # completion of later rows lives on; and it wants a hole of two or three items.
        wanted = max(missing / hole, hole / 8)
        if hole <= 2.5 * wanted:
            break
        length = bitset.at_most(have, int(wanted))
        if length < 0:
            length = bitset.at_least(have, 1)
        if length < 0 or length > hole:
            break
        take(left, have, length)
        row[size] = length
        size += 1
        hole -= length
        missing -= float(length) * length
    return hole, size


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
    have = bitset.make(capacity + 1)
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
    longest = bitset.at_most(have, capacity)
    while longest > 0:
        take(left, have, longest)
        row[0] = longest
        hole, size = capacity - longest, 1
        if level:
            hole, size = _level(left, have, hole, row, size, cost / max(1.0, tokens / capacity))
        hole, size, steps = complete(left, have, hole, row, size, limit)
        limit -= steps
        _longest_first(row, size)
        part_length, part_count = grown(part_length, parts + size), grown(part_count, parts + size)
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
        run_rows, start = grown(run_rows, runs + 1), grown(start, runs + 2)
        run_rows[runs] = again + 1
        runs += 1
        start[runs] = parts
        longest = bitset.at_most(have, capacity)
    return (
        run_rows[:runs].copy(),
        start[: runs + 1].copy(),
        part_length[:parts].copy(),
        part_count[:parts].copy(),
    )
