"""A set of small integers as bits in 64-bit words, with one summary word per 64 words.

The search for the next or the previous member reads a few words only, whatever the range of the set. This makes it cheap
to find the smallest gap that an item fits into and the longest item that fits into a gap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic


def _count_trailing_zeros_code(typingctx: Any, word: Any) -> Any:
    """Generates code for the number of zero bits below the lowest set bit of a uint64 that is not 0."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), code


_count_trailing_zeros: Any = intrinsic(_count_trailing_zeros_code)


def _count_leading_zeros_code(typingctx: Any, word: Any) -> Any:
    """Generates code for the number of zero bits above the highest set bit of a uint64 that is not 0."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), code


_count_leading_zeros: Any = intrinsic(_count_leading_zeros_code)


@njit(cache=True, inline="always")
def make_bitset(size: int) -> Any:
    """Returns an empty set of integers in [0, size): (words, summary), both uint64."""
    words = (size >> 6) + 1
    return np.zeros(words, np.uint64), np.zeros((words >> 6) + 1, np.uint64)


@njit(cache=True, inline="always")
def add(bits: Any, value: int) -> None:
    """Adds `value` to the set."""
    words, summary = bits
    word = value >> 6
    words[word] |= np.uint64(1) << np.uint64(value & 63)
    summary[word >> 6] |= np.uint64(1) << np.uint64(word & 63)


@njit(cache=True, inline="always")
def remove(bits: Any, value: int) -> None:
    """Removes `value` from the set if it is a member."""
    words, summary = bits
    word = value >> 6
    words[word] &= ~(np.uint64(1) << np.uint64(value & 63))
    if words[word] == 0:
        summary[word >> 6] &= ~(np.uint64(1) << np.uint64(word & 63))


@njit(cache=True)
def next_member(bits: Any, value: int) -> int:
    """Returns the smallest member >= `value`, or -1; `value` is in [0, size]."""
    words, summary = bits
    word = value >> 6
    rest = words[word] >> np.uint64(value & 63)
    if rest != 0:
        return value + _count_trailing_zeros(rest)
    word += 1
    block = word >> 6
    if block >= summary.size:
        return -1
    above = (summary[block] >> np.uint64(word & 63)) << np.uint64(word & 63)
    while above == 0:
        block += 1
        if block >= summary.size:
            return -1
        above = summary[block]
    word = (block << 6) + _count_trailing_zeros(above)
    return (word << 6) + _count_trailing_zeros(words[word])


@njit(cache=True)
def previous_member(bits: Any, value: int) -> int:
    """Returns the largest member <= `value`, or -1; `value` is in [0, size]."""
    words, summary = bits
    word = value >> 6
    rest = words[word] << np.uint64(63 - (value & 63))
    if rest != 0:
        return value - _count_leading_zeros(rest)
    word -= 1
    if word < 0:
        return -1
    block = word >> 6
    below = summary[block] << np.uint64(63 - (word & 63))
    if below != 0:
        word -= _count_leading_zeros(below)
    else:
        block -= 1
        while block >= 0 and summary[block] == 0:
            block -= 1
        if block < 0:
            return -1
        word = (block << 6) + 63 - _count_leading_zeros(summary[block])
    return (word << 6) + 63 - _count_leading_zeros(words[word])
