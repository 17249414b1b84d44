"""Times as text, compared with fractions."""

from decimal import Decimal
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpack.clock import UNIT_NS, decimal_to_ns, decimals_to_ns, format_ns, parse_duration
from mmpack.errors import ConfigError, DataError


def half_up(value: Fraction) -> int:
    return floor(value + Fraction(1, 2))


decimals = st.decimals(-(10**9), 10**9, places=None, allow_nan=False, allow_infinity=False).map(
    lambda value: f"{value:f}"
)


@given(
    st.lists(decimals.filter(lambda text: len(text) <= 64), min_size=1), st.sampled_from(["us", "ms", "s"])
)
def test_decimals_are_exact(texts: list[str], unit: str) -> None:
    expected = [half_up(Fraction(text) * UNIT_NS[unit]) for text in texts]
    assert [decimal_to_ns(text, unit) for text in texts] == expected
    t_ns, resolution_ns = decimals_to_ns(texts, unit)
    assert t_ns.dtype == np.int64
    assert t_ns.tolist() == expected
    assert resolution_ns >= 1


@pytest.mark.parametrize(
    ("texts", "unit", "resolution_ns"),
    [
        (["46408.547498", "46408.6"], "s", 1000),
        (["1.000000000", "2.000000000"], "s", 1),
        (["1673069018.503470", "1673069018.603470"], "s", 1000),
        (["1673069018.503469952", "1673069018.603469952"], "s", 1),
        (["1673069018.5034335", "1673069018.60347"], "s", 239),
        (["12.0", "13.0"], "us", 1000),
        (["12", " +13 ", "-0014"], "ms", 10**6),
        ([".5", "12."], "s", 10**8),
        (["1673069018503469952"], "ns", 1),
        ([], "s", 1),
    ],
)
def test_decimals_have_the_resolution_of_their_last_digit(
    texts: list[str], unit: str, resolution_ns: int
) -> None:
    assert decimals_to_ns(texts, unit)[1] == resolution_ns


@pytest.mark.parametrize("text", ["1.67306901850347e+18", "1673069018503469952.0"])
def test_nanoseconds_that_went_through_a_float_are_an_error(text: str) -> None:
    with pytest.raises(DataError, match=r"nanoseconds went through float64.*256 ns"):
        decimal_to_ns(text, "ns")
    with pytest.raises(DataError, match=r"imu\.csv, row 1: .*256 ns"):
        decimals_to_ns(["1673069018503469952", text], "ns", where="imu.csv")


def test_the_error_also_names_a_text_that_is_coarser_than_the_float() -> None:
    with pytest.raises(DataError, match="256 ns, and was printed in steps of 10000 ns"):
        decimal_to_ns("1.67306901850347e+18", "ns")
    with pytest.raises(DataError, match=r"seconds went through float64.*239 ns"):
        decimal_to_ns("1.673069018503469944e+09", "s")


@pytest.mark.parametrize(
    "text", ["", " ", ".", "-", "1,5", "nan", "inf", "1_000", "0x10", "١", "1e9999", "--1", "1" * 65, "t_ns"]
)
def test_text_that_is_not_a_decimal_is_an_error(text: str) -> None:
    with pytest.raises(DataError, match="is not a decimal number of s"):
        decimal_to_ns(text, "s")


def test_a_decimal_in_a_wrong_unit_is_an_error_with_the_year() -> None:
    with pytest.raises(DataError, match=r"row 1: .*year 2464.*") as caught:
        decimals_to_ns(["1.5", "15600000000"], "s")
    assert caught.value.hint == "The unit is probably not s"
    with pytest.raises(DataError, match="us: that is the year 2018"):
        decimal_to_ns("1532402927612460", "ms")


@given(
    st.integers(-(2 * 10**6), 2 * 10**6),
    st.integers(0, 9),
    st.sampled_from(list(UNIT_NS)),
    st.sampled_from(["", " "]),
)
def test_durations_are_exact(mantissa: int, num_decimals: int, unit: str, space: str) -> None:
    number = Decimal(mantissa).scaleb(-num_decimals)
    exact = Fraction(number) * UNIT_NS[unit]
    text = f"{number:f}{space}{unit}"
    if exact.denominator == 1:
        assert parse_duration(text) == exact
    else:
        with pytest.raises(ConfigError, match="whole number of nanoseconds"):
            parse_duration(text)


def test_durations_of_configurations_are_parsed() -> None:
    assert parse_duration("1ms") == 10**6
    assert parse_duration("-43.1 ms") == -43_100_000
    assert parse_duration("+.5s") == 5 * 10**8
    assert parse_duration("1.5min") == 90 * 10**9
    assert parse_duration("100.000000000s") == 100 * 10**9


@pytest.mark.parametrize(
    "text", ["", "1", "ms", "1 m", "1e3ms", "1ms 2us", "1.ms.", "one s", 5, None, "9" * 99 + "s"]
)
def test_text_that_is_not_a_duration_is_an_error(text: object) -> None:
    with pytest.raises(ConfigError, match="is not a duration"):
        parse_duration(text)  # type: ignore[arg-type]


def test_a_duration_beyond_int64_is_an_error() -> None:
    with pytest.raises(ConfigError, match="292 years"):
        parse_duration("9999999999s")


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (-40_000, "-40 us"),
        (2_474_900, "2.47 ms"),
        (999_499, "999 us"),
        (999_500, "1 ms"),
        (150_000_000, "150 ms"),
        (12_500_000_000, "12.5 s"),
        (59_960_000_000, "1 min"),
        (90_000_000_000, "1.5 min"),
        (3_661_000_000_000, "1.02 h"),
        (np.int64(4_444 * 3600 * 10**9), "4440 h"),
    ],
)
def test_known_durations_are_formatted(ns: int, text: str) -> None:
    assert format_ns(ns) == text


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_formatted_duration_keeps_three_digits(ns: int) -> None:
    number, unit = format_ns(ns).split()
    assert abs(Fraction(number) * UNIT_NS[unit] - ns) * 200 <= abs(ns)
