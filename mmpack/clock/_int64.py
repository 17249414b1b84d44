"""Exact integer arithmetic on int64 arrays, with Python integers where 64 bits are not enough."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmpack.errors import DataError

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1

Int64Array = NDArray[np.int64]
IntArray = NDArray[np.integer[Any]]


def fits_int64(*values: int) -> bool:
    """Returns True if an int64 can hold every value."""
    return all(INT64_MIN <= value <= INT64_MAX for value in values)


def require_int64(value: int) -> int:
    """Returns `value`. Raises DataError if an int64 cannot hold it."""
    if not fits_int64(value):
        raise DataError(
            f"{value} does not fit into 64 bits (in ns, 292 years before or after the epoch)",
            hint="Check the unit, the rate and the start",
        )
    return value


def int64_array(values: ArrayLike) -> Int64Array:
    """Converts integers of any dtype and shape to int64 of the same shape.

    Raises:
        DataError: the values are not integers, or one does not fit into int64.
    """
    array = np.asarray(values)
    if array.size == 0:
        return np.zeros(array.shape, np.int64)
    if array.dtype.kind not in "iu":
        raise DataError(f"integers are needed, not {array.dtype}", hint="Convert floats with floats_to_ns")
    if array.dtype == np.uint64:
        require_int64(int(array.max()))
    return array.astype(np.int64, copy=False)


def apply_unbounded(function: Callable[[int], int], values: Int64Array) -> Int64Array:
    """Applies `function` to each value in Python integers: slow, but exact for integers of any size."""
    results = [require_int64(function(value)) for value in values.ravel().tolist()]
    return np.array(results, dtype=np.int64).reshape(values.shape)


def scale_and_round(n: int, ratio: Fraction, start: int = 0) -> int:
    """Returns start + n·ratio, rounded to the nearest integer, halves up. Raises DataError beyond int64."""
    p, q = ratio.numerator, ratio.denominator
    return require_int64((2 * n * p + q) // (2 * q) + start)


def scale_and_round_array(n: IntArray, ratio: Fraction, start: int = 0) -> Int64Array:
    """Applies :func:`scale_and_round` to every element, exactly, for a positive ratio.

    With ratio = p/q, n = h·q + r and 0 <= r < q, n·p/q rounds to h·p + (2·r·p + q) // (2·q). Only the terms of the
    quotient must not overflow; they are at most 2·(q - 1)·p + q, which is checked. The other products and sums may
    wrap around, because arithmetic modulo 2^64 gives the correct int64 if the result fits into int64. The results at
    the smallest and the largest n are checked in Python integers, and the function is monotone between them.
    """
    n = int64_array(n)
    if n.size == 0:
        return n
    for end in (n.min(), n.max()):
        scale_and_round(int(end), ratio, start)
    p, q = ratio.numerator, ratio.denominator
    if not fits_int64(2 * (q - 1) * p + q, p, 2 * q, start):
        return apply_unbounded(lambda value: scale_and_round(value, ratio, start), n)
    with np.errstate(over="ignore"):
        quotient, remainder = np.divmod(n, q)
        return quotient * p + (2 * remainder * p + q) // (2 * q) + start
