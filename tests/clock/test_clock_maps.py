"""Clock maps: the formula, inverses, fits and leap seconds."""

from datetime import UTC, datetime
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpack.clock import ClockMap, leap_second_map
from mmpack.errors import ClockError, DataError

S = 10**9
TEN_YEARS_NS = 10 * 365 * 86_400 * S
anchors = st.integers(-(2 * 10**18), 2 * 10**18)
drifts = st.floats(-1000, 1000)
distances = st.lists(st.integers(-TEN_YEARS_NS, TEN_YEARS_NS), min_size=1)


@given(anchors, anchors, drifts, distances)
def test_the_map_follows_its_formula_within_a_nanosecond(a: int, b: int, ppm: float, d: list[int]) -> None:
    clock_map = ClockMap(source="x", target="y", anchor_source_ns=a, anchor_target_ns=b, drift_ppm=ppm)
    mapped_ns = clock_map.apply(np.array(d) + a)
    assert mapped_ns.dtype == np.int64
    for distance, mapped in zip(d, mapped_ns.tolist(), strict=True):
        assert abs(mapped - (b + distance + distance * Fraction(ppm) / 10**6)) <= 1
        assert clock_map.apply(distance + a) == mapped


@given(anchors, anchors, drifts, distances)
def test_the_round_trip_is_within_a_nanosecond(a: int, b: int, ppm: float, d: list[int]) -> None:
    clock_map = ClockMap(source="x", target="y", anchor_source_ns=a, anchor_target_ns=b, drift_ppm=ppm)
    t = np.array(d) + a
    back = clock_map.inverse().apply(clock_map.apply(t))
    assert np.abs(back - t).max() <= 1


@given(drifts, st.integers(-TEN_YEARS_NS, TEN_YEARS_NS))
def test_consecutive_timestamps_keep_their_order(ppm: float, d: int) -> None:
    t = np.arange(d, d + 200)
    assert (
        np.diff(
            ClockMap(source="x", target="y", anchor_source_ns=0, anchor_target_ns=0, drift_ppm=ppm).apply(t)
        )
        >= 0
    ).all()


def test_a_map_without_drift_is_exact_up_to_the_ends_of_int64() -> None:
    clock_map = ClockMap(source="x", target="y", anchor_source_ns=0, anchor_target_ns=5)
    assert clock_map.apply(np.array([2**63 - 6, -(2**63)])).tolist() == [2**63 - 1, -(2**63) + 5]
    with pytest.raises(DataError, match="64 bits"):
        clock_map.apply(np.array([0, 2**63 - 5]))
    assert clock_map.apply(np.zeros((0, 2), dtype=np.int64)).shape == (0, 2)


@pytest.mark.parametrize("ppm", [float("nan"), float("inf"), 10_001.0, -10_001.0, -1e6, -2e6])
def test_a_drift_above_one_percent_is_an_error(ppm: float) -> None:
    with pytest.raises(ClockError, match="more than 1 %"):
        ClockMap(source="x", target="y", anchor_source_ns=0, anchor_target_ns=0, drift_ppm=ppm)


@pytest.mark.parametrize("ppm", [10_000.0, -9_900.0])
def test_a_map_with_the_largest_drift_has_an_inverse(ppm: float) -> None:
    clock_map = ClockMap(
        source="x", target="y", anchor_source_ns=1, anchor_target_ns=2, drift_ppm=ppm, residual_ns=7, note="n"
    )
    inverse = clock_map.inverse()
    assert (inverse.source, inverse.target, inverse.residual_ns, inverse.note) == ("y", "x", 7, "n")
    assert inverse.inverse().drift_ppm == pytest.approx(ppm, rel=1e-12)


def test_a_fit_recovers_the_map() -> None:
    rng = np.random.default_rng(3)
    x = 10**14 + np.arange(0, 120 * S, 50_000_000)
    true_map = ClockMap(
        source="imu",
        target="machine",
        anchor_source_ns=10**14,
        anchor_target_ns=1_500_000_000 * S,
        drift_ppm=23.0,
    )
    y = true_map.apply(x) + rng.normal(0, 20_000, x.size).round().astype(np.int64)
    fitted = ClockMap.fit(x, y, "imu", "machine")
    assert (fitted.source, fitted.target, fitted.note) == ("imu", "machine", "")
    assert fitted.drift_ppm == pytest.approx(23, abs=0.2)
    assert np.abs(fitted.apply(x) - true_map.apply(x)).max() < 10_000
    assert 30_000 < fitted.residual_ns < 80_000


@pytest.mark.parametrize(("method", "offset_ns"), [("theil-sen", 700), ("envelope", 600)])
def test_a_rejected_drift_is_not_applied(method: str, offset_ns: int) -> None:
    x = np.arange(0, 5 * S, S // 20)
    y = x + np.tile([600, 700, 700, 900], x.size // 4)
    fitted = ClockMap.fit(x, y, "a", "b", method)  # type: ignore[arg-type]
    assert fitted.drift_ppm == 0
    assert "shorter than" in fitted.note
    assert fitted.apply(0) == offset_ns
    assert fitted.residual_ns == 900 - offset_ns


def test_a_fit_without_pairs_is_an_error() -> None:
    with pytest.raises(ClockError, match="no pairs"):
        ClockMap.fit([], [], "a", "b")
    with pytest.raises(DataError, match=r"2 timestamps .* 1 of the other"):
        ClockMap.fit([1, 2], [1], "a", "b")


def utc_ns(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp()) * S  # type: ignore[misc, arg-type]


GPS_EPOCH = utc_ns(1980, 1, 6)


@pytest.mark.parametrize(
    ("utc", "gps_ahead_s"),
    [
        (utc_ns(1980, 1, 6), 0),
        (utc_ns(2008, 12, 31), 14),
        (utc_ns(2016, 12, 31, 23, 59, 59), 17),
        (utc_ns(2017, 1, 1), 18),
        (utc_ns(2024, 5, 5), 18),
    ],
)
def test_known_leap_seconds_are_applied(utc: int, gps_ahead_s: int) -> None:
    gps = utc - GPS_EPOCH + gps_ahead_s * S
    tai = utc + (gps_ahead_s + 19) * S
    timestamps = {"utc": utc, "gps": gps, "tai": tai}
    for source, t_ns in timestamps.items():
        for target, expected in timestamps.items():
            assert leap_second_map(source, target, t_ns).apply(t_ns) == expected


@given(st.integers(utc_ns(1972, 1, 1), utc_ns(2100, 1, 1)), st.sampled_from(["tai", "gps"]))
def test_the_round_trip_from_utc_is_exact(t_ns: int, other: str) -> None:
    other_ns = leap_second_map("utc", other, t_ns).apply(t_ns)
    assert leap_second_map(other, "utc", other_ns).apply(other_ns) == t_ns


def test_a_map_without_a_fixed_relation_is_an_error() -> None:
    with pytest.raises(ClockError, match="a leap second is between"):
        leap_second_map("utc", "gps", np.array([utc_ns(2016, 12, 31), utc_ns(2017, 1, 2)]))
    with pytest.raises(ClockError, match="'boot' has no fixed relation"):
        leap_second_map("boot", "utc", 0)
    with pytest.raises(ClockError, match="'glonass' is not a clock domain"):
        leap_second_map("utc", "glonass", 0)
    with pytest.raises(ClockError, match="since 1972"):
        leap_second_map("utc", "tai", 0)
    with pytest.raises(ClockError, match="no timestamp"):
        leap_second_map("utc", "tai", np.zeros(0, dtype=np.int64))
