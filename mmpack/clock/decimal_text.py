"""Times as text: exact decimals in, durations of a config in, short figures for a screen out."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Context, Decimal
from fractions import Fraction
from itertools import pairwise

import numpy as np

from mmpack.clock._int64 import Int64Array, fits_int64, scale_and_round, scale_and_round_array
from mmpack.clock.convert import UNIT_NS, float_spacing_ns, require_in_range, unit_ns
from mmpack.errors import ConfigError, DataError

_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_DECIMAL = re.compile(r"\s*([+-]?)(?=\.?[0-9])([0-9]*)(?:\.([0-9]*))?\s*")
_SCIENTIFIC = re.compile(rf"\s*{_NUMBER}[eE][+-]?[0-9]{{1,3}}\s*")
_DURATION = re.compile(rf"\s*({_NUMBER})\s*({'|'.join(UNIT_NS)})\s*")
_NAMES = {
    "ns": "nanoseconds",
    "us": "microseconds",
    "ms": "milliseconds",
    "s": "seconds",
    "min": "minutes",
    "h": "hours",
}
_MAX_CHARS = 64  # characters: longer is no time stamp, and int() is quadratic in them
_FLOAT64_INTEGERS = 2**53  # the integers below this are all float64 values
_SCREEN = Context(prec=3, rounding=ROUND_HALF_UP)


def decimal_to_ns(text: str, unit: str, *, where: str = "") -> int:
    """One plain decimal in `unit` to nanoseconds, exactly, digits past the nanosecond rounded half up.

    Raises:
        ConfigError: unknown unit.
        DataError: the text is no decimal, is past int64 ns, or shows that the number went through a float
            ('1.67306901850347e+18', '1673069018503469952.0').
    """
    per_unit = unit_ns(unit)
    mantissa, decimals = _parse(text, unit, where)
    require_in_range(Fraction(mantissa, 10**decimals), unit, where=where)
    return scale_and_round(mantissa, Fraction(per_unit, 10**decimals))


def decimals_to_ns(
    texts: Sequence[str], unit: str, *, where: str = "", first_row: int = 0
) -> tuple[Int64Array, int]:
    """Plain decimals in `unit` to nanoseconds, exact as in :func:`decimal_to_ns`, and their resolution.

    The resolution is one step of the last decimal place in use. Texts that are all the shortest print of a
    float64 and have more places than a float64 holds at that size get the spacing of the float instead.

    Returns:
        int64 nanoseconds of shape (len(texts),), and the resolution in ns, at least 1.

    Raises:
        ConfigError, DataError: as :func:`decimal_to_ns`; the row is named, counted from `first_row`.
    """
    per_unit = unit_ns(unit)
    if not texts:
        return np.zeros(0, np.int64), 1
    prefix = f"{where}, row" if where else "row"
    parsed: list[tuple[int, int]] = []
    for row, text in enumerate(texts, first_row):
        try:
            parsed.append(_parse(text, unit, ""))
        except DataError as error:
            raise DataError(error.message, where=f"{prefix} {row}", hint=error.hint) from None

    places = max(decimals for _, decimals in parsed)
    scaled = [mantissa * 10 ** (places - decimals) for mantissa, decimals in parsed]
    ratio = Fraction(per_unit, 10**places)
    ends = min(scaled), max(scaled)
    for end in ends:
        require_in_range(Fraction(end, 10**places), unit, where=f"{prefix} {first_row + scaled.index(end)}")
    if fits_int64(*ends):
        t_ns = scale_and_round_array(np.array(scaled, dtype=np.int64), ratio)
    else:
        t_ns = np.array([scale_and_round(value, ratio) for value in scaled], dtype=np.int64)

    resolution_ns = max(1, per_unit // 10**places)
    largest = max(map(abs, scaled)) / 10**places
    float_ns = float_spacing_ns(float(np.spacing(largest)), unit)
    if resolution_ns < float_ns and all(repr(float(text)) == text.strip() for text in texts):
        resolution_ns = float_ns
    return t_ns, resolution_ns


def parse_duration(text: str) -> int:
    """A duration of a config, such as '1ms', '-43.1 ms' or '1.5 min', to nanoseconds, exactly.

    Raises:
        ConfigError: no number with a unit of :data:`UNIT_NS`, not a whole number of nanoseconds, or past
            int64.
    """
    match = _DURATION.fullmatch(text) if isinstance(text, str) and len(text) <= _MAX_CHARS else None
    if match is None:
        raise ConfigError(
            f"{text!r} is not a duration",
            hint=f"Write a number and a unit ({', '.join(UNIT_NS)}), such as '1ms'",
        )
    exact = Fraction(match[1]) * UNIT_NS[match[2]]
    if exact.denominator != 1:
        raise ConfigError(
            f"{text!r} is not a whole number of nanoseconds", hint="A nanosecond is the finest step"
        )
    if not fits_int64(exact.numerator):
        raise ConfigError(f"{text!r} is longer than 292 years, the most that int64 nanoseconds hold")
    return exact.numerator


def format_ns(ns: int) -> str:
    """A duration for a screen, three digits in the largest unit that fits: '2.47 ms', '-40 us', '1.5 min'."""
    exact = Decimal(int(ns))
    for (unit, size), (_, next_size) in pairwise(UNIT_NS.items()):
        figure = _SCREEN.divide(exact, Decimal(size))
        if abs(figure) * size < next_size:
            return f"{figure.normalize():f} {unit}"
        if abs(exact) < next_size:  # 59.96 s rounds to 60 s, which is 1 min
            exact = figure * size
    return f"{_SCREEN.divide(exact, Decimal(UNIT_NS['h'])).normalize():f} h"


def _parse(text: str, unit: str, where: str) -> tuple[int, int]:
    """A plain decimal as (mantissa, decimals): its value is mantissa / 10^decimals."""
    match = _DECIMAL.fullmatch(text) if len(text) <= _MAX_CHARS else None
    if match is None:
        if _SCIENTIFIC.fullmatch(text) and math.isfinite(float(text)):
            raise _float_precision_error(text, unit, where)
        shown = text if len(text) <= _MAX_CHARS else text[:_MAX_CHARS] + "…"
        raise DataError(
            f"{shown!r} is not a decimal number of {unit}",
            where=where,
            hint="Is this the column of the time stamps?",
        )
    sign, whole, fraction = match.groups()
    if fraction and not fraction.strip("0") and int(whole or "0") >= _FLOAT64_INTEGERS:
        raise _float_precision_error(text, unit, where)
    if fraction is None or fraction == "0":
        # '12.0' is how an integer prints that became a float: its decimal place is not in use.
        return int(sign + (whole or "0")), 0
    return int(sign + whole + fraction), len(fraction)


def _float_precision_error(text: str, unit: str, where: str) -> DataError:
    kept_ns = float_spacing_ns(float(np.spacing(abs(float(text)))), unit)
    exponent = int(Decimal(text.strip()).as_tuple().exponent)
    printed_ns = int(Fraction(10) ** exponent * UNIT_NS[unit])
    print_loss = f", and was printed in steps of {printed_ns} ns" if printed_ns > kept_ns else ""
    return DataError(
        f"{text.strip()!r}: {_NAMES[unit]} went through float64, "
        f"which at this size has steps of {kept_ns} ns{print_loss}",
        where=where,
        hint="Export the stamps again as integers, or read the column as floats so that the loss is declared",
    )
