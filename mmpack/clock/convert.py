"""Exact conversions to integer nanoseconds: container timestamps, sample counts, integers, floats, GPS weeks.

Every conversion rounds to the nearest nanosecond, halves up, from the original number and never from a running sum.
"""

from __future__ import annotations

import difflib
from fractions import Fraction
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from mmpack.clock._int64 import (
    Int64Array,
    IntArray,
    apply_unbounded,
    fits_int64,
    int64_array,
    require_int64,
    scale_and_round,
    scale_and_round_array,
)
from mmpack.errors import ConfigError, DataError

UNIT_NS: dict[str, int] = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
}
"""Nanoseconds of each unit of timestamps and durations, finest unit first."""

GPS_WEEK_UNIT = "gps_week_s"
"""Unit of timestamps that are a GPS week and seconds of the week, see :func:`gps_week_s_to_ns`."""

WEEK_S = 7 * 24 * 3600
_GREGORIAN_YEAR_S = 31_556_952  # 365.2425 days


def unit_ns(unit: str) -> int:
    """Returns the nanoseconds of one `unit`. Raises ConfigError that suggests the closest unit."""
    try:
        return UNIT_NS[unit]
    except KeyError:
        near = difflib.get_close_matches(unit, UNIT_NS, n=1)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        raise ConfigError(f"unknown unit {unit!r}", hint=f"{hint}Units are {', '.join(UNIT_NS)}") from None


@overload
def pts_to_ns(pts: int | np.integer[Any], time_base: Fraction, start_ns: int = 0) -> int: ...
@overload
def pts_to_ns(pts: IntArray, time_base: Fraction, start_ns: int = 0) -> Int64Array: ...
def pts_to_ns(
    pts: int | np.integer[Any] | IntArray, time_base: Fraction, start_ns: int = 0
) -> int | Int64Array:
    """Converts presentation timestamps to nanoseconds: start_ns + (pts·num·10^9·2 + den) // (2·den).

    Args:
        pts: one integer, or integers of any shape.
        time_base: seconds per unit of `pts`, num/den, such as Fraction(1, 90000); positive.
        start_ns: time of pts 0.

    Returns:
        A Python int for one pts; int64 of the same shape for an array. Both are exact.

    Raises:
        ConfigError: the time base is not a positive integer or Fraction.
        DataError: a result does not fit into int64, or `pts` are not integers.
    """
    ratio = _require_positive("time base", time_base) * UNIT_NS["s"]
    if isinstance(pts, int | np.integer):
        return scale_and_round(int(pts), ratio, start_ns)
    return scale_and_round_array(pts, ratio, start_ns)


@overload
def samples_to_ns(n: int | np.integer[Any], rate_hz: int | Fraction, t0_ns: int = 0) -> int: ...
@overload
def samples_to_ns(n: IntArray, rate_hz: int | Fraction, t0_ns: int = 0) -> Int64Array: ...
def samples_to_ns(
    n: int | np.integer[Any] | IntArray, rate_hz: int | Fraction, t0_ns: int = 0
) -> int | Int64Array:
    """Returns the time of audio sample `n`: t0_ns + n·10^9 / rate_hz, rounded.

    Return types and errors are those of :func:`pts_to_ns`.
    """
    time_base = 1 / _require_positive("rate", rate_hz)
    if isinstance(n, int | np.integer):
        return pts_to_ns(n, time_base, t0_ns)
    return pts_to_ns(n, time_base, t0_ns)


@overload
def first_sample_at_or_after(t_ns: int | np.integer[Any], rate_hz: int | Fraction, t0_ns: int = 0) -> int: ...
@overload
def first_sample_at_or_after(t_ns: IntArray, rate_hz: int | Fraction, t0_ns: int = 0) -> Int64Array: ...
def first_sample_at_or_after(
    t_ns: int | np.integer[Any] | IntArray, rate_hz: int | Fraction, t0_ns: int = 0
) -> int | Int64Array:
    """Returns the smallest n with samples_to_ns(n, rate_hz, t0_ns) >= t_ns: the exact inverse, rounding included.

    With p/q = 10^9 / rate_hz and d = t_ns - t0_ns, the condition is n >= q·(2·d - 1) / (2·p). The result is negative
    if t_ns is before t0_ns. Return types and errors are those of :func:`pts_to_ns`.
    """
    ratio = UNIT_NS["s"] / _require_positive("rate", rate_hz)
    p, q = ratio.numerator, ratio.denominator

    def first(t: int) -> int:
        return require_int64(-((q * (1 - 2 * (t - t0_ns))) // (2 * p)))

    if isinstance(t_ns, int | np.integer):
        return first(int(t_ns))
    t = int64_array(t_ns)
    if t.size == 0:
        return t
    ends = int(t.min()), int(t.max())
    for end in ends:
        first(end)
    if not fits_int64(2 * p * q, t0_ns, *(end - t0_ns for end in ends)):
        return apply_unbounded(first, t)
    # With d = quotient·p + remainder, only ceil(q·(2·remainder - 1) / (2·p)) is left, whose terms are below 2·p·q.
    quotient, remainder = np.divmod(t - t0_ns, p)
    with np.errstate(over="ignore"):
        return quotient * q - (q * (1 - 2 * remainder)) // (2 * p)


def integers_to_ns(values: IntArray, unit: str, *, where: str = "") -> Int64Array:
    """Converts integer timestamps in `unit` to int64 nanoseconds of the same shape.

    Args:
        values: integers of any shape.
        unit: key of :data:`UNIT_NS`.
        where: file or stream, for the message of an error.

    Raises:
        ConfigError: the unit is unknown.
        DataError: a timestamp does not fit into int64 nanoseconds, which nearly always means a wrong unit; the error
            names its index and year.
    """
    per_unit = unit_ns(unit)
    array = int64_array(values)
    if array.size:
        for index in (int(array.argmin()), int(array.argmax())):
            require_in_range(Fraction(int(array.flat[index])), unit, where=index_location(where, index))
    return array * np.int64(per_unit)


def floats_to_ns(values: NDArray[np.floating[Any]], unit: str, *, where: str = "") -> tuple[Int64Array, int]:
    """Converts float timestamps in `unit` to nanoseconds, correctly rounded, and finds their resolution.

    Args:
        values: float16, float32 or float64 of any shape.
        unit: key of :data:`UNIT_NS`.
        where: file or stream, for the message of an error.

    Returns:
        int64 nanoseconds of the same shape, and the resolution: the spacing of the floats at the largest magnitude, in
        ns, rounded up, at least 1. Seconds since 1970 in float64 have a resolution of 239 ns.

    Raises:
        ConfigError: the unit is unknown.
        DataError: a timestamp is not finite or does not fit into int64 nanoseconds (the error names its flat index),
            or the dtype is not a float.
    """
    per_unit = unit_ns(unit)
    floats = np.asarray(values)
    if floats.dtype not in (np.float16, np.float32, np.float64):
        raise DataError(
            f"float timestamps are needed, not {floats.dtype}",
            where=where,
            hint="Convert integers with integers_to_ns",
        )
    if floats.size == 0:
        return np.zeros(floats.shape, np.int64), 1
    finite = np.isfinite(floats)
    if not finite.all():
        index = int(np.argmin(finite))
        raise DataError(
            f"the timestamp is {floats.flat[index]}",
            where=index_location(where, index),
            hint="Remove the rows without a time",
        )
    v = floats.astype(np.float64).ravel()
    for index in (int(v.argmin()), int(v.argmax())):
        require_in_range(Fraction(float(v[index])), unit, where=index_location(where, index))

    fractional, integral = np.modf(v)
    scaled = fractional * per_unit
    rounded = np.rint(scaled)
    # The error of the product is at most per_unit·2^-53. Values so close to a half are rounded with Fraction instead.
    unsure = np.abs(scaled - rounded) >= 0.5 - per_unit * 2.0**-52
    t_ns = integral.astype(np.int64) * per_unit + rounded.astype(np.int64)
    for index in np.flatnonzero(unsure):
        t_ns[index] = scale_and_round(1, Fraction(float(v[index])) * per_unit)
    spacing = float(np.spacing(np.abs(floats).max()))
    return t_ns.reshape(floats.shape), float_spacing_ns(spacing, unit)


def index_location(where: str, index: int) -> str:
    """Formats the location of the timestamp `index` of `where`, for the message of an error."""
    return f"{where}, index {index}" if where else f"index {index}"


def float_spacing_ns(spacing: float, unit: str) -> int:
    """Converts a spacing of floats in `unit` to whole nanoseconds, rounded up, at least 1."""
    return max(1, -(-(Fraction(spacing) * unit_ns(unit)) // 1))


def require_in_range(value: Fraction, unit: str, *, where: str) -> None:
    """Raises DataError that names the year, unless `value` in `unit` fits into int64 nanoseconds."""
    t_ns = value * UNIT_NS[unit]
    if fits_int64((2 * t_ns + 1) // 2):
        return
    years = {other: _year(value * size) for other, size in UNIT_NS.items()}
    fitting = [f"{other}: that is the year {year}" for other, year in years.items() if 1990 <= year < 2100]
    raise DataError(
        f"the timestamp {float(value):.17g} {unit} does not fit into int64 nanoseconds "
        f"(counted from 1970 it is in the year {years[unit]})",
        where=where,
        hint=f"The unit is probably {fitting[0]}" if fitting else f"The unit is probably not {unit}",
    )


def _year(t_ns: Fraction) -> int:
    return 1970 + t_ns // (_GREGORIAN_YEAR_S * UNIT_NS["s"])


@overload
def gps_week_s_to_ns(week: int, seconds: int | float, *, where: str = "") -> int: ...
@overload
def gps_week_s_to_ns(
    week: NDArray[np.number[Any]],
    seconds: NDArray[np.integer[Any]] | NDArray[np.float64],
    *,
    where: str = "",
) -> Int64Array: ...
def gps_week_s_to_ns(
    week: int | NDArray[np.number[Any]],
    seconds: int | float | NDArray[np.integer[Any]] | NDArray[np.float64],
    *,
    where: str = "",
) -> int | Int64Array:
    """Converts GPS week and seconds of the week to nanoseconds since the GPS epoch, 1980-01-06T00:00:00 UTC.

    Args:
        week: full week numbers (not modulo 1024), integers or floats with integer values.
        seconds: 0 to 604,800 (both included), integers or float64, whose spacing at the end is 0.12 ns.
        where: file or stream, for the message of an error.

    Returns:
        A Python int for one time; int64 of the same shape for arrays.

    Raises:
        DataError: a week is not an integer, or seconds are outside the week or float32 (with a spacing of 62 ms).
    """
    weeks, second = np.asarray(week), np.asarray(seconds)
    if weeks.dtype.kind == "f":
        is_integer = np.isfinite(weeks) & (weeks == np.rint(weeks)) & (np.abs(weeks) < 2**31)
        if not is_integer.all():
            raise DataError(
                "the GPS week is not a whole number", where=index_location(where, int(np.argmin(is_integer)))
            )
        weeks = weeks.astype(np.int64)
    if second.dtype.kind == "f" and second.dtype != np.float64:
        raise DataError(
            f"GPS seconds of the week in {second.dtype} have steps of 62 ms or more",
            where=where,
            hint="Export them as float64",
        )
    inside = (second >= 0) & (second <= WEEK_S)
    if not inside.all():
        index = int(np.argmin(inside))
        raise DataError(
            f"{second.flat[index]} seconds of the GPS week are outside 0 .. {WEEK_S}",
            where=index_location(where, index),
            hint="Check whether the columns for week and seconds are exchanged",
        )
    within = floats_to_ns(second, "s")[0] if second.dtype.kind == "f" else integers_to_ns(second, "s")
    t_ns = scale_and_round_array(weeks, Fraction(WEEK_S * UNIT_NS["s"])) + within
    return int(t_ns) if np.ndim(t_ns) == 0 else t_ns


def _require_positive(noun: str, value: int | Fraction) -> Fraction:
    if not isinstance(value, int | Fraction) or value <= 0:
        raise ConfigError(
            f"a {noun} of {value!r} is not a positive integer or Fraction",
            hint="Give rates exactly: 29.97 frames/s is Fraction(30000, 1001)",
        )
    return Fraction(value)
