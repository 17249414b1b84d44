"""Exact conversions to integer nanoseconds: container stamps, sample counts, integers, floats, GPS weeks.

One rounding everywhere: to the nearest nanosecond, halves up, from the original number and never from a
running sum.
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
"""Nanoseconds in each unit that a stamp or a duration can be given in, finest first."""

WEEK_S = 7 * 24 * 3600
_GREGORIAN_YEAR_S = 31_556_952  # 365.2425 days


def unit_ns(unit: str) -> int:
    """Nanoseconds in `unit`; raise :class:`ConfigError` naming the nearest known unit."""
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
    """Presentation time stamps to nanoseconds: start_ns + (pts·num·10^9·2 + den) // (2·den).

    Args:
        pts: one integer, or integers of any shape.
        time_base: seconds per unit of `pts`, such as Fraction(1, 90000); positive.
        start_ns: the time of pts 0.

    Returns:
        A Python int for one pts; for an array, int64 of its shape. Both are exact.

    Raises:
        ConfigError: the time base is not a positive rational.
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
    """The time of sample `n`: t0_ns + n·10^9 / rate_hz, rounded. Returns and raises as :func:`pts_to_ns`."""
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
    """The smallest n with samples_to_ns(n, rate_hz, t0_ns) >= t_ns: the exact inverse, rounding included.

    Writing 10^9 / rate_hz as p/q and d = t_ns - t0_ns, the condition is n >= q·(2·d - 1) / (2·p). Negative
    where t_ns lies before t0_ns. Returns and raises as :func:`pts_to_ns`.
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
    # d = whole·p + part leaves ceil(q·(2·part - 1) / (2·p)), whose terms are below 2·p·q.
    whole, part = np.divmod(t - t0_ns, p)
    with np.errstate(over="ignore"):
        return whole * q - (q * (1 - 2 * part)) // (2 * p)


def integers_to_ns(values: IntArray, unit: str, *, where: str = "") -> Int64Array:
    """Integer stamps in `unit` to int64 nanoseconds of the same shape; `where` is for an error's message.

    Raises:
        ConfigError: unknown unit.
        DataError: a stamp is past int64 nanoseconds, which nearly always means a wrong unit; its index and
            year are named.
    """
    per_unit = unit_ns(unit)
    array = int64_array(values)
    if array.size:
        for index in (int(array.argmin()), int(array.argmax())):
            require_in_range(Fraction(int(array.flat[index])), unit, where=index_location(where, index))
    return array * np.int64(per_unit)


def floats_to_ns(values: NDArray[np.floating[Any]], unit: str, *, where: str = "") -> tuple[Int64Array, int]:
    """Float stamps in `unit` to nanoseconds, each correctly rounded, and the resolution the floats had.

    Args:
        values: float16, float32 or float64 of any shape.
        unit: a key of :data:`UNIT_NS`.
        where: file or stream, for the message of an error.

    Returns:
        int64 nanoseconds of the same shape, and the spacing of the floats at the largest magnitude, in ns,
        rounded up, at least 1. Epoch seconds in float64 have 239 ns.

    Raises:
        ConfigError: unknown unit.
        DataError: a stamp is not finite or past int64 nanoseconds (its flat index is named), or the dtype is
            not a float.
    """
    per_unit = unit_ns(unit)
    given = np.asarray(values)
    if given.dtype not in (np.float16, np.float32, np.float64):
        raise DataError(
            f"float stamps are needed, not {given.dtype}",
            where=where,
            hint="Integers go through integers_to_ns",
        )
    if given.size == 0:
        return np.zeros(given.shape, np.int64), 1
    finite = np.isfinite(given)
    if not finite.all():
        index = int(np.argmin(finite))
        raise DataError(
            f"the stamp is {given.flat[index]}",
            where=index_location(where, index),
            hint="Remove the rows without a time",
        )
    v = given.astype(np.float64).ravel()
    for index in (int(v.argmin()), int(v.argmax())):
        require_in_range(Fraction(float(v[index])), unit, where=index_location(where, index))

    part, whole = np.modf(v)
    scaled = part * per_unit
    rounded = np.rint(scaled)
    # The product is off by at most per_unit·2^-53. Where that could carry it across a half, Fraction decides.
    unsure = np.abs(scaled - rounded) >= 0.5 - per_unit * 2.0**-52
    t_ns = whole.astype(np.int64) * per_unit + rounded.astype(np.int64)
    for index in np.flatnonzero(unsure):
        t_ns[index] = scale_and_round(1, Fraction(float(v[index])) * per_unit)
    spacing = float(np.spacing(np.abs(given).max()))
    return t_ns.reshape(given.shape), float_spacing_ns(spacing, unit)


def index_location(where: str, index: int) -> str:
    """The place of one stamp of `where`, for the message of an error."""
    return f"{where}, index {index}" if where else f"index {index}"


def float_spacing_ns(spacing: float, unit: str) -> int:
    """A spacing of floats in `unit` as whole nanoseconds, rounded up, at least 1."""
    return max(1, -(-(Fraction(spacing) * unit_ns(unit)) // 1))


def require_in_range(value: Fraction, unit: str, *, where: str) -> None:
    """Raise :class:`DataError` if `value` in `unit` is past int64 nanoseconds, naming its year."""
    t_ns = value * UNIT_NS[unit]
    if fits_int64((2 * t_ns + 1) // 2):
        return
    years = {other: _year(value * size) for other, size in UNIT_NS.items()}
    fitting = [f"{other}: that is the year {year}" for other, year in years.items() if 1990 <= year < 2100]
    raise DataError(
        f"the stamp {float(value):.17g} {unit} does not fit into int64 nanoseconds "
        f"(counted from 1970 it lies in the year {years[unit]})",
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
    """GPS week and seconds of the week to nanoseconds since the GPS epoch, 1980-01-06T00:00:00 UTC.

    Args:
        week: full week numbers (not modulo 1024), integers or whole floats.
        seconds: 0 to 604,800 (the end is allowed), integers or float64, whose spacing there is 0.12 ns.
        where: file or stream, for the message of an error.

    Raises:
        DataError: a week is not whole, seconds lie outside the week, or are float32 (62 ms apart).
    """
    weeks, second = np.asarray(week), np.asarray(seconds)
    if weeks.dtype.kind == "f":
        whole = np.isfinite(weeks) & (weeks == np.rint(weeks)) & (np.abs(weeks) < 2**31)
        if not whole.all():
            raise DataError(
                "the GPS week is not a whole number", where=index_location(where, int(np.argmin(whole)))
            )
        weeks = weeks.astype(np.int64)
    if second.dtype.kind == "f" and second.dtype != np.float64:
        raise DataError(
            f"GPS seconds of the week in {second.dtype} are 62 ms apart or more",
            where=where,
            hint="Export them as float64",
        )
    inside = (second >= 0) & (second <= WEEK_S)
    if not inside.all():
        index = int(np.argmin(inside))
        raise DataError(
            f"{second.flat[index]} seconds of the GPS week lie outside 0 .. {WEEK_S}",
            where=index_location(where, index),
            hint="Are the columns for week and seconds exchanged?",
        )
    within = floats_to_ns(second, "s")[0] if second.dtype.kind == "f" else integers_to_ns(second, "s")
    t_ns = scale_and_round_array(weeks, Fraction(WEEK_S * UNIT_NS["s"])) + within
    return int(t_ns) if np.ndim(t_ns) == 0 else t_ns


def _require_positive(what: str, value: int | Fraction) -> Fraction:
    if not isinstance(value, int | Fraction) or value <= 0:
        raise ConfigError(
            f"a {what} of {value!r} is not a positive integer or Fraction",
            hint="Give rates exactly: 29.97 frames/s is Fraction(30000, 1001)",
        )
    return Fraction(value)


GPS_WEEK_UNIT = "gps_week_s"
