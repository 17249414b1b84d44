"""Times as text: parses exact decimals and durations of a configuration, and formats short durations."""

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
_MAX_CHARS = 64  # a longer text is not a timestamp, and the time of int() is quadratic in the length
_FLOAT64_INTEGERS = 2**53  # float64 represents every integer below this exactly
_SCREEN = Context(prec=3, rounding=ROUND_HALF_UP)


def decimal_to_ns(text: str, unit: str, *, where: str = "") -> int:
    """Converts one plain decimal in `unit` to nanoseconds, exactly; digits below one nanosecond are rounded half up.

    Raises:
        ConfigError: the unit is unknown.
        DataError: the text is not a decimal, does not fit into int64 ns, or shows that the number was converted to a
            float before ('1.67306901850347e+18', '1673069018503469952.0').
    """
    per_unit = unit_ns(unit)
    mantissa, decimals = _parse(text, unit, where)
    require_in_range(Fraction(mantissa, 10**decimals), unit, where=where)
    return scale_and_round(mantissa, Fraction(per_unit, 10**decimals))


def decimals_to_ns(
    texts: Sequence[str], unit: str, *, where: str = "", first_row: int = 0
) -> tuple[Int64Array, int]:
    """Converts plain decimals in `unit` to nanoseconds, exactly as :func:`decimal_to_ns`, and finds their resolution.

    The resolution is one unit of the last decimal digit in use. If every text is the shortest representation of a
    float64 and they have more digits than a float64 can hold at this size, the resolution is the spacing of the floats.

    Args:
        texts: the decimals.
        unit: key of :data:`UNIT_NS`.
        where: file or stream, for the message of an error.
        first_row: row number of the first text, for the message of an error.

    Returns:
        int64 nanoseconds of shape (len(texts),), and the resolution in ns, at least 1.

    Raises:
        ConfigError, DataError: as in :func:`decimal_to_ns`; the error names the row.
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

    num_decimals = max(decimals for _, decimals in parsed)
    scaled = [mantissa * 10 ** (num_decimals - decimals) for mantissa, decimals in parsed]
    ratio = Fraction(per_unit, 10**num_decimals)
    ends = min(scaled), max(scaled)
    for end in ends:
        require_in_range(
            Fraction(end, 10**num_decimals), unit, where=f"{prefix} {first_row + scaled.index(end)}"
        )
    if fits_int64(*ends):
        t_ns = scale_and_round_array(np.array(scaled, dtype=np.int64), ratio)
    else:
        t_ns = np.array([scale_and_round(value, ratio) for value in scaled], dtype=np.int64)

    resolution_ns = max(1, per_unit // 10**num_decimals)
    largest = max(map(abs, scaled)) / 10**num_decimals
    float_ns = float_spacing_ns(float(np.spacing(largest)), unit)
    if resolution_ns < float_ns and all(repr(float(text)) == text.strip() for text in texts):
        resolution_ns = float_ns
    return t_ns, resolution_ns


def parse_duration(text: str, *, where: str = "") -> int:
    """Converts a duration of a configuration, such as '1ms', '-43.1 ms' or '1.5 min', to nanoseconds, exactly.

    Args:
        text: number and unit.
        where: key of the duration, for messages.

    Raises:
        ConfigError: the text is not a number with a unit of :data:`UNIT_NS`, is not a whole number of nanoseconds, or
            does not fit into int64.
    """
    match = _DURATION.fullmatch(text) if isinstance(text, str) and len(text) <= _MAX_CHARS else None
    if match is None:
        raise ConfigError(
            f"{text!r} is not a duration",
            where=where,
            hint=f"Write a number and a unit ({', '.join(UNIT_NS)}), such as '1ms'",
        )
    exact = Fraction(match[1]) * UNIT_NS[match[2]]
    if exact.denominator != 1:
        raise ConfigError(
            f"{text!r} is not a whole number of nanoseconds",
            where=where,
            hint="Round it to whole nanoseconds",
        )
    if not fits_int64(exact.numerator):
        raise ConfigError(
            f"{text!r} is longer than 292 years, the most that int64 nanoseconds hold", where=where
        )
    return exact.numerator


def format_ns(ns: int) -> str:
    """Formats a duration with three digits in the largest unit that fits: '2.47 ms', '-40 us', '1.5 min'."""
    exact = Decimal(int(ns))
    for (unit, size), (_, next_size) in pairwise(UNIT_NS.items()):
        figure = _SCREEN.divide(exact, Decimal(size))
        if abs(figure) * size < next_size:
            return f"{figure.normalize():f} {unit}"
        if abs(exact) < next_size:  # 59.96 s rounds to 60 s, which is 1 min
            exact = figure * size
    return f"{_SCREEN.divide(exact, Decimal(UNIT_NS['h'])).normalize():f} h"


def _parse(text: str, unit: str, where: str) -> tuple[int, int]:
    """Parses a plain decimal to (mantissa, decimals) with the value mantissa / 10^decimals. Raises DataError."""
    match = _DECIMAL.fullmatch(text) if len(text) <= _MAX_CHARS else None
    if match is None:
        if _SCIENTIFIC.fullmatch(text) and math.isfinite(float(text)):
            raise _float_precision_error(text, unit, where)
        excerpt = text if len(text) <= _MAX_CHARS else text[:_MAX_CHARS] + "…"
        raise DataError(
            f"{excerpt!r} is not a decimal number of {unit}",
            where=where,
            hint="Check that this is the column of the timestamps",
        )
    sign, integer, fraction = match.groups()
    if fraction and not fraction.strip("0") and int(integer or "0") >= _FLOAT64_INTEGERS:
        raise _float_precision_error(text, unit, where)
    if fraction is None or fraction == "0":
        # '12.0' is an integer that was converted to a float: its decimal digit is not in use.
        return int(sign + (integer or "0")), 0
    return int(sign + integer + fraction), len(fraction)


def _float_precision_error(text: str, unit: str, where: str) -> DataError:
    spacing_ns = float_spacing_ns(float(np.spacing(abs(float(text)))), unit)
    exponent = int(Decimal(text.strip()).as_tuple().exponent)
    printed_ns = int(Fraction(10) ** exponent * UNIT_NS[unit])
    print_loss = f", and was printed in steps of {printed_ns} ns" if printed_ns > spacing_ns else ""
    return DataError(
        f"{text.strip()!r}: {_NAMES[unit]} went through float64, "
        f"which at this size has steps of {spacing_ns} ns{print_loss}",
        where=where,
        hint="Export the timestamps again as integers, or read the column as floats so that the loss is declared",
    )
