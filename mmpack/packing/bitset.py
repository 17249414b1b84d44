"""A set of small integers as bits in words of 64, with a summary word per 64 words.

Finding the next or the previous member reads a handful of words however many integers the set spans. This is
what makes "the smallest hole that fits" and "the longest item that fits" cheap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic


def _lowest_code(typingctx: Any, word: Any) -> Any:
    """Number of zero bits below the lowest set bit of a uint64 that is not 0."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), code


_lowest: Any = intrinsic(_lowest_code)


def _leading_code(typingctx: Any, word: Any) -> Any:
    """Number of zero bits above the highest set bit of a uint64 that is not 0."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), code


_leading: Any = intrinsic(_leading_code)


@njit(cache=True, inline="always")
def make_bitset(size: int) -> Any:
    """An empty set of integers in [0, size): (words, summary)."""
    words = (size >> 6) + 1
    return np.zeros(words, np.uint64), np.zeros((words >> 6) + 1, np.uint64)


@njit(cache=True, inline="always")
def add(bits: Any, value: int) -> None:
    """Put `value` in."""
    words, summary = bits
    word = value >> 6
    words[word] |= np.uint64(1) << np.uint64(value & 63)
    summary[word >> 6] |= np.uint64(1) << np.uint64(word & 63)


@njit(cache=True, inline="always")
def remove(bits: Any, value: int) -> None:
    """Take `value` out; it may be absent."""
    words, summary = bits
    word = value >> 6
    words[word] &= ~(np.uint64(1) << np.uint64(value & 63))
    if words[word] == 0:
        summary[word >> 6] &= ~(np.uint64(1) << np.uint64(word & 63))


@njit(cache=True)
def next_member(bits: Any, value: int) -> int:
    """The smallest member >= `value` (which is in [0, size]), or -1."""
    words, summary = bits
    word = value >> 6
    rest = words[word] >> np.uint64(value & 63)
    if rest != 0:
        return value + _lowest(rest)
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
    word = (block << 6) + _lowest(above)
    return (word << 6) + _lowest(words[word])


@njit(cache=True)
def previous_member(bits: Any, value: int) -> int:
    """The largest member <= `value` (which is in [0, size]), or -1."""
    words, summary = bits
    word = value >> 6
    rest = words[word] << np.uint64(63 - (value & 63))
    if rest != 0:
        return value - _leading(rest)
    word -= 1
    if word < 0:
        return -1
    block = word >> 6
    below = summary[block] << np.uint64(63 - (word & 63))
    if below != 0:
        word -= _leading(below)
    else:
        block -= 1
        while block >= 0 and summary[block] == 0:
            block -= 1
        if block < 0:
            return -1
        word = (block << 6) + 63 - _leading(summary[block])
    return (word << 6) + 63 - _leading(words[word])
