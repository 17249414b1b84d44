"""Histograms of lengths, and the assignment of items to a plan made from a histogram."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

# The n items of a length are visited in steps of p mod n. A prime p > n visits every item once, so no greatest common
# divisor is needed. Any primes above 2^32 would serve.
_PRIMES = np.array(
    [
        4294967311, 6442450967, 9663676447, 14495514629, 21743271967, 32614907909, 48922361863, 73383542849,
        110075314273, 165112971367, 247669456939, 371504185369, 557256278057, 835884417031, 1253826625537, 1880739938353,
    ],
    np.int64,
)  # fmt: skip

#: Number of rows of a group that are written together.
_BLOCK_ROWS = 128


@njit(cache=True, nogil=True)
def count_lengths(lengths: Any, capacity: int) -> Any:
    """Counts the items of each length in [0, capacity].

    Args:
        lengths: int32 or int64 (n,).
        capacity: number of positions of a row.

    Returns:
        (counts, tokens, invalid): number of items by length, int64 (capacity + 1,); sum of the lengths; index of the
        first item whose length is outside [0, capacity], or -1. The first two are incomplete if an item is invalid.
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
    """Writes the item indices to `ids` by counting sort: shortest first, items of equal length in their order.

    Args:
        lengths: int32 or int64 (n,).
        counts: int64, number of items by length.
        ids: int32 or int64 (n,), the output.
    """
    next_index = np.empty(
        counts.size, np.uint64
    )  # unsigned, because numba tests signed indices for negative values
    total = 0
    for v in range(counts.size):
        next_index[v] = total
        total += counts[v]
    for i in range(lengths.size):
        v = np.uint64(lengths[i])
        ids[next_index[v]] = i
        next_index[v] += np.uint64(1)


@njit(cache=True, inline="always")
def splitmix64(x: Any) -> Any:
    """Mixes 64 bits by the finaliser of splitmix64 (Steele, Lea and Flood, 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True, nogil=True)
def assign_items(
    ordered: Any, counts: Any, seed: int, group_rows: Any, group_start: Any, part_length: Any, part_count: Any
) -> Any:
    """Assigns items to the rows of a plan.

    Args:
        ordered: int32 or int64 (n,), item indices, shortest first.
        counts: int64, number of items by length.
        seed: seed of the choice among items of equal length: the items of each length are visited from a start and with
            a stride that are derived from it.
        group_rows, group_start, part_length, part_count: the plan, see :func:`mmpack.packing.best_fit.best_fit`.

    Returns:
        (ids int64 (n,), offsets int64 (rows + 1,)). Items of length 0 are at the end of the last row.
    """
    base = np.empty(counts.size, np.int64)
    cursor = np.zeros(counts.size, np.int64)
    stride = np.zeros(counts.size, np.int64)
    total = 0
    for v in range(counts.size):
        base[v] = total
        total += counts[v]
        if counts[v] > 1:
            bits = splitmix64(np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + splitmix64(np.uint64(v)))
            cursor[v] = np.int64(bits >> np.uint64(8)) % counts[v]
            stride[v] = _PRIMES[np.int64(bits & np.uint64(15))] % counts[v]
    rows = group_rows.sum()
    if rows == 0 and total > 0:
        rows = 1
    ids = np.empty(total, np.int64)
    offsets = np.zeros(rows + 1, np.int64)
    end = row = 0
    for group in range(group_rows.size):
        first_part, end_part = group_start[group], group_start[group + 1]
        width = part_count[first_part:end_part].sum()
        # Each part is written for a whole block of rows: its cursor stays in registers, the block in the fastest cache.
        for start in range(0, group_rows[group], _BLOCK_ROWS):
            block = min(_BLOCK_ROWS, group_rows[group] - start)
            column = end
            for part in range(first_part, end_part):
                v, items_per_row = part_length[part], part_count[part]
                at, step, size = cursor[v], stride[v], counts[v]
                items = ordered[base[v] : base[v] + size]
                for row_start in range(column, column + block * width, width):
                    for i in range(items_per_row):
                        ids[row_start + i] = items[at]
                        at += step
                        at -= size if at >= size else 0
                cursor[v] = at
                column += items_per_row
            for _ in range(block):
                end += width
                row += 1
                offsets[row] = end
    for i in range(counts[0]):
        ids[end + i] = ordered[i]
    offsets[rows] = total
    return ids, offsets
