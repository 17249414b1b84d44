"""Exact conversions to nanoseconds, compared with fractions."""

from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mmpack.clock import (
    UNIT_NS,
    first_sample_at_or_after,
    floats_to_ns,
    gps_week_s_to_ns,
    integers_to_ns,
    pts_to_ns,
    samples_to_ns,
)
from mmpack.errors import ConfigError, DataError

S = 10**9
TEN_YEARS_NS = 10 * 366 * 24 * 3600 * S
RATES = [Fraction(90_000), Fraction(30_000, 1001), Fraction(44_100), Fraction(48_000), Fraction(25)]

times = st.integers(-TEN_YEARS_NS, TEN_YEARS_NS)
rates = st.one_of(
    st.sampled_from(RATES), st.fractions(min_value=Fraction(1, 1000), max_value=3 * S, max_denominator=10**6)
)
starts = st.integers(-2 * 10**18, 2 * 10**18)


def half_up(value: Fraction) -> int:
    return floor(value + Fraction(1, 2))


@given(st.lists(times, min_size=1), rates, starts)
def test_pts_are_exact_over_ten_years(times_ns: list[int], rate: Fraction, start: int) -> None:
    pts = [int(t * rate / S) for t in times_ns]
    expected = [start + half_up(n / rate * S) for n in pts]
    assert [pts_to_ns(n, 1 / rate, start) for n in pts] == expected
    t_ns = pts_to_ns(np.array(pts, dtype=np.int64), 1 / rate, start)
    assert t_ns.dtype == np.int64
    assert t_ns.tolist() == expected


def test_pts_are_exact_where_int64_products_would_overflow() -> None:
    time_base = Fraction(2**61 - 1, 2**61 + 1)
    pts = np.array([[-5, 0], [7, 123_456_789]])
    expected = [[half_up(n * time_base * S) for n in row] for row in pts.tolist()]
    assert pts_to_ns(pts, time_base).tolist() == expected


def test_results_are_exact_although_intermediate_products_wrap_around() -> None:
    pts = np.array([-1, 3 * S, 3 * S + 1])
    start = -(2**63) + 1
    assert pts_to_ns(pts[1:] * 2, Fraction(2), start).tolist() == [
        int(n) * 4 * S + start for n in pts[1:].tolist()
    ]
    with pytest.raises(DataError, match="64 bits"):
        pts_to_ns(pts * 2, Fraction(2), start)


@given(st.lists(times, min_size=1), rates, starts)
def test_first_sample_is_the_exact_inverse(distances_ns: list[int], rate: Fraction, t0: int) -> None:
    assume(all(abs(t * rate / S) < 2**62 for t in distances_ns))
    timestamps = [t0 + t for t in distances_ns]
    first = [first_sample_at_or_after(t, rate, t0) for t in timestamps]
    for t, n in zip(timestamps, first, strict=True):
        assert samples_to_ns(n, rate, t0) >= t > samples_to_ns(n - 1, rate, t0)
    assert first_sample_at_or_after(np.array(timestamps), rate, t0).tolist() == first


@given(st.integers(-(10**10), 10**10), st.sampled_from(RATES), starts)
def test_the_first_sample_at_the_time_of_a_sample_is_that_sample(n: int, rate: Fraction, t0: int) -> None:
    assert first_sample_at_or_after(samples_to_ns(n, rate, t0), rate, t0) == n


def test_first_sample_is_exact_where_int64_terms_would_overflow() -> None:
    rate = Fraction(2**40 + 1, 2**20 - 1)
    timestamps = [-(10**15), -1, 0, 1, 10**15]
    expected = [first_sample_at_or_after(t, rate) for t in timestamps]
    assert first_sample_at_or_after(np.array(timestamps), rate).tolist() == expected


def test_empty_arrays_and_scalars_keep_their_shape() -> None:
    empty = np.zeros((0, 3), dtype=np.int32)
    assert pts_to_ns(empty, Fraction(1, 25)).shape == (0, 3)
    assert first_sample_at_or_after(empty, 25).shape == (0, 3)
    assert pts_to_ns(np.int32(3), Fraction(1, 90_000)) == 33_333
    assert pts_to_ns(np.array(3), Fraction(1, 90_000)).shape == ()


@pytest.mark.parametrize("rate", [0, -1, Fraction(-1, 2), 29.97, "25"])
def test_a_rate_that_is_not_exact_and_positive_is_an_error(rate: object) -> None:
    with pytest.raises(ConfigError, match="Fraction"):
        samples_to_ns(1, rate)  # type: ignore[call-overload]


def test_a_result_beyond_int64_is_an_error_for_scalars_and_arrays() -> None:
    for pts in (2**62, np.array([0, 2**62])):
        with pytest.raises(DataError, match="64 bits"):
            pts_to_ns(pts, Fraction(1, 25))
    with pytest.raises(DataError, match="not float64"):
        pts_to_ns(np.array([0.5]), Fraction(1, 25))  # type: ignore[call-overload]
    with pytest.raises(DataError, match="64 bits"):
        pts_to_ns(np.array([2**63], dtype=np.uint64), Fraction(1, S))


@given(st.lists(st.integers(-(2**31), 2**31 - 1)), st.sampled_from(["ns", "us", "ms", "s"]))
def test_integers_are_multiplied_by_their_unit(values: list[int], unit: str) -> None:
    t_ns = integers_to_ns(np.array(values, dtype=np.int32), unit)
    assert t_ns.tolist() == [value * UNIT_NS[unit] for value in values]


def test_an_integer_in_a_wrong_unit_is_an_error_with_year_and_hint() -> None:
    with pytest.raises(DataError, match=r"cam\.csv, index 1: .*year 2464.*") as caught:
        integers_to_ns(np.array([0, 15_600_000_000]), "s", where="cam.csv")
    assert caught.value.hint == "The unit is probably not s"
    with pytest.raises(DataError) as caught:
        integers_to_ns(np.array([1_532_402_927_612_460]), "ms")
    assert "us: that is the year 2018" in caught.value.hint
    with pytest.raises(ConfigError, match=r"'msec'.*Did you mean 'ms'"):
        integers_to_ns(np.array([0]), "msec")


float_values = st.floats(-2e9, 2e9, allow_subnormal=True)


@given(st.lists(float_values, min_size=1), st.sampled_from(list(UNIT_NS)))
@example([0.5e-9, 1.5e-9, -0.5e-9, 5e-324, -5e-324], "s")
@example([0.5, 1.5, -0.5, -1.5, 2.0**52 + 1], "ns")
@example([k / 1024 for k in range(-9, 9)], "us")
def test_floats_are_correctly_rounded(values: list[float], unit: str) -> None:
    assume(all(abs(value) * UNIT_NS[unit] < 2**62 for value in values))
    t_ns, resolution_ns = floats_to_ns(np.array(values), unit)
    assert t_ns.tolist() == [half_up(Fraction(value) * UNIT_NS[unit]) for value in values]
    spacing = Fraction(float(np.spacing(max(abs(value) for value in values))))
    assert resolution_ns == max(1, ceil(spacing * UNIT_NS[unit]))


@given(st.lists(st.floats(-(2**20), 2**20, width=32), min_size=1))
def test_float32_values_have_the_resolution_of_float32(values: list[float]) -> None:
    array = np.array(values, dtype=np.float32)
    t_ns, resolution_ns = floats_to_ns(array, "s")
    assert t_ns.tolist() == [half_up(Fraction(value) * S) for value in values]
    assert resolution_ns == max(1, ceil(Fraction(float(np.spacing(np.abs(array).max()))) * S))


def test_known_floats_have_the_known_resolution() -> None:
    assert floats_to_ns(np.array([1.67e9]), "s")[1] == 239
    assert floats_to_ns(np.array([1.67e18]), "ns")[1] == 256
    assert floats_to_ns(np.array([46408.547498]), "s")[1] == 1
    assert floats_to_ns(np.zeros((2, 0)), "s")[0].shape == (2, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_float_that_is_not_finite_is_an_error(bad: float) -> None:
    with pytest.raises(DataError, match="imu, index 2"):
        floats_to_ns(np.array([0.0, 1.0, bad, 2.0]), "s", where="imu")


def test_floats_beyond_int64_and_integers_are_errors() -> None:
    with pytest.raises(DataError, match=r"index 1: .*year"):
        floats_to_ns(np.array([0.0, 1e18]), "s")
    with pytest.raises(DataError, match="integers_to_ns"):
        floats_to_ns(np.array([1, 2]), "s")  # type: ignore[arg-type]


def test_gps_weeks_are_exact() -> None:
    assert gps_week_s_to_ns(0, 0) == 0
    assert gps_week_s_to_ns(2017, 1.5) == 2017 * 604_800 * S + 3 * S // 2
    week, seconds = np.array([2017.0, 2018.0]), np.array([604_799.9, 0.1])
    t_ns = gps_week_s_to_ns(week, seconds)
    assert t_ns.tolist() == [
        int(w) * 604_800 * S + half_up(Fraction(float(s)) * S) for w, s in zip(week, seconds, strict=True)
    ]
    assert np.diff(t_ns).tolist() == [200_000_000]


@pytest.mark.parametrize(
    ("week", "seconds", "message"),
    [
        ([2017.5], [0.0], "whole number"),
        ([np.nan], [0.0], "whole number"),
        ([1], [604_801], "exchanged"),
        ([1], [-1.0], "exchanged"),
        ([1], [np.nan], "exchanged"),
        ([1], np.array([1.0], dtype=np.float32), "float64"),
    ],
)
def test_an_impossible_gps_week_is_an_error(week: list[float], seconds: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        gps_week_s_to_ns(np.array(week), np.array(seconds))
