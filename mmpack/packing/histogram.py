"""From lengths to counts, and from a plan over counts back to items."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

# A class of n items is walked in steps of p mod n. For a prime p > n that visits every item once, so no greatest
# common divisor is needed. Any primes above 2^32 would do.
_PRIMES = np.array(
    [
        4294967311, 6442450967, 9663676447, 14495514629, 21743271967, 32614907909, 48922361863, 73383542849,
        110075314273, 165112971367, 247669456939, 371504185369, 557256278057, 835884417031, 1253826625537, 1880739938353,
    ],
    np.int64,
)  # fmt: skip

#: Rows of a run that are written together.
_BLOCK_ROWS = 128


@njit(cache=True, nogil=True)
def count_lengths(lengths: Any, capacity: int) -> Any:
    """(counts, tokens, first): items by length, their sum, and the first item outside [0, capacity] or -1.

    Args:
        lengths: int32 or int64 (n,).
        capacity: token places of a row.
    """
    counts = np.zeros(capacity + 1, np.int64)
    tokens = 0
    for i in range(lengths.size):
        length = np.int64(lengths[i])
        if np.uint64(length) > np.uint64(capacity):
            return counts, tokens, i
        counts[np.uint64(length)] += 1
        tokens += length
    return counts, tokens, -1


@njit(cache=True, nogil=True)
def order_by_length(lengths: Any, counts: Any, ids: Any) -> None:
    """Counting sort: writes the item numbers to `ids`, shortest first, equal ones as they came.

    Args:
        lengths: int32 or int64 (n,).
        counts: int64, items by length.
        ids: int32 or int64 (n,), written.
    """
    place = np.empty(counts.size, np.uint64)  # unsigned indices spare the test for negative ones
    total = 0
    for v in range(counts.size):
        place[v] = total
        total += counts[v]
    for i in range(lengths.size):
        v = np.uint64(lengths[i])
        ids[place[v]] = i
        place[v] += np.uint64(1)


@njit(cache=True, inline="always")
def splitmix64(x: Any) -> Any:
    """splitmix64's finaliser (Steele, Lea and Flood, 2014): 64 well mixed bits of 64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True, nogil=True)
def assign_items(
    ordered: Any, counts: Any, seed: int, run_rows: Any, run_start: Any, part_length: Any, part_count: Any
) -> Any:
    """Give the places of a plan to items.

    Args:
        ordered: int32 or int64 (n,), item numbers, shortest first.
        counts: int64, items by length.
        seed: which items of a length go where: every length's items are walked from a start and with a stride
            drawn from it.
        run_rows, run_start, part_length, part_count: the plan, see :func:`mmpack.packing.best_fit.best_fit`.

    Returns:
        (ids int64 (n,), offsets int64 (rows + 1,)). Items of length 0 end the last row.
    """
    base = np.empty(counts.size, np.int64)
    cursor = np.zeros(counts.size, np.int64)
    stride = np.zeros(counts.size, np.int64)
    total = 0
    for v in range(counts.size):
        base[v] = total
        total += counts[v]
        if counts[v] > 1:
            drawn = splitmix64(np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + splitmix64(np.uint64(v)))
            cursor[v] = np.int64(drawn >> np.uint64(8)) % counts[v]
            stride[v] = _PRIMES[np.int64(drawn & np.uint64(15))] % counts[v]
    rows = run_rows.sum()
    if rows == 0 and total > 0:
        rows = 1
    ids = np.empty(total, np.int64)
    offsets = np.zeros(rows + 1, np.int64)
    place = row = 0
    for run in range(run_rows.size):
        first, behind = run_start[run], run_start[run + 1]
        width = part_count[first:behind].sum()
        # Part by part over a block of rows: the walk stays in registers, the block in the fastest cache.
        for start in range(0, run_rows[run], _BLOCK_ROWS):
            block = min(_BLOCK_ROWS, run_rows[run] - start)
            column = place
            for part in range(first, behind):
                v, many = part_length[part], part_count[part]
                at, step, size = cursor[v], stride[v], counts[v]
                items = ordered[base[v] : base[v] + size]
                for down in range(column, column + block * width, width):
                    for right in range(many):
                        ids[down + right] = items[at]
                        at += step
                        at -= size if at >= size else 0
                cursor[v] = at
                column += many
            for _ in range(block):
                place += width
                row += 1
                offsets[row] = place
    for i in range(counts[0]):
        ids[place + i] = ordered[i]
    offsets[rows] = total
    return ids, offsets
