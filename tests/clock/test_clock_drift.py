"""Drift fits: estimates, intervals and rejections."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmpack.clock import DriftFit, fit_drift, period_drift
from mmpack.clock.drift import lower_envelope_slope, theil_sen_slope
from mmpack.errors import ConfigError, DataError
from tests.examples import examples

S = 10**9
PERIOD = 50_000_000


def series(seconds: int, ppm: float, start: int = 10**14) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    x = start + np.arange(0, seconds * S, PERIOD)
    return x, x + 777 + np.rint((x - x[0]) * ppm * 1e-6).astype(np.int64)


def lasting_jitter(rng: np.random.Generator, n: int, sd_ns: float, persistence: float) -> NDArray[np.int64]:
    """First-order autoregressive noise: a share `persistence` of each value remains in the next."""
    noise = np.empty(n)
    noise[0] = rng.normal(0, sd_ns)
    for i, step in enumerate(rng.normal(0, sd_ns * np.sqrt(1 - persistence**2), n - 1), start=1):
        noise[i] = persistence * noise[i - 1] + step
    return np.rint(noise).astype(np.int64)


def covers(fit: DriftFit, ppm: float) -> bool:
    return fit.ppm_low <= ppm <= fit.ppm_high


@pytest.mark.parametrize("method", ["theil-sen", "envelope"])
@pytest.mark.parametrize("start", [0, 10**14, 1_700_000_000 * S])
def test_a_line_is_fitted_exactly_with_an_interval_of_the_resolution(method: str, start: int) -> None:
    x, y = series(60, 12.5, start)
    fit = fit_drift(x, y, method=method, resolution_ns=1000)  # type: ignore[arg-type]
    assert fit.rejection_reason == ""
    assert fit.ppm == pytest.approx(12.5, abs=1e-3)
    assert fit.ppm_high - fit.ppm_low == pytest.approx(2 * 1000 / fit.span_ns * 1e6, rel=1e-6)
    assert (fit.n, fit.x0_ns, fit.span_ns) == (x.size, start, int(x[-1] - x[0]))
    assert abs(fit.offset_ns - 777) <= 1
    assert fit.residual_p99_ns <= 2


@pytest.mark.parametrize("persistence", [0.0, 0.9])
def test_the_interval_covers_the_true_drift(persistence: float) -> None:
    num_covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        ppm = rng.uniform(-50, 50)
        x, y = series(60, ppm)
        num_covered += covers(fit_drift(x, y + lasting_jitter(rng, x.size, 100_000, persistence)), ppm)
    assert num_covered >= 54


def test_the_envelope_covers_the_true_drift_and_beats_least_squares_on_latencies() -> None:
    num_covered, num_closer = 0, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        ppm = rng.uniform(-50, 50)
        x, y = series(120, ppm)
        y = y + np.rint(rng.exponential(9e6, x.size)).astype(np.int64)
        fit = fit_drift(x, y, method="envelope")
        least_squares = np.polyfit((x - x[0]) / S, (y - x - (y[0] - x[0])) / S, 1)[0] * 1e6
        num_covered += covers(fit, ppm)
        num_closer += abs(fit.ppm - ppm) < abs(least_squares - ppm)
    assert num_covered >= 52
    assert num_closer >= 54


def test_gross_outliers_do_not_move_theil_sen() -> None:
    x, y = series(60, -14.0)
    y[::20] += 40_000_000
    fit = fit_drift(x, y)
    assert fit.ppm == pytest.approx(-14, abs=0.1)
    assert fit.residual_p99_ns >= 30_000_000


def test_the_order_of_the_points_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    x, y = series(60, 3.0)
    y = y + lasting_jitter(rng, x.size, 5000, 0.5)
    order = rng.permutation(x.size)
    assert fit_drift(x[order], y[order]) == fit_drift(x, y)


point_sets = st.lists(
    st.tuples(st.integers(0, 50), st.integers(-1000, 1000)), min_size=2, max_size=30, unique_by=lambda p: p[0]
).map(lambda pairs: np.array(sorted(pairs), dtype=np.float64).T)


@given(point_sets)
def test_theil_sen_is_the_median_of_all_slopes(points: NDArray[np.float64]) -> None:
    u, e = points
    slopes = [(e[j] - e[i]) / (u[j] - u[i]) for i, j in combinations(range(u.size), 2)]
    assert theil_sen_slope(u, e) == pytest.approx(float(np.median(slopes)), abs=1e-9)


# A point of the hull is exactly at the mean, so a chord that turns about it does not move down there.
@example(np.array([[0.0, 18, 26, 27, 28, 47, 50], [0, 0, 0, 0, -1, 0, 1]]))
@given(point_sets)
def test_the_envelope_is_the_highest_line_below_all_points(points: NDArray[np.float64]) -> None:
    u, e = points
    slope = lower_envelope_slope(u, e)
    height = float((e - slope * (u - u.mean())).min())
    pairs = combinations(range(u.size), 2)
    candidates = [(e[j] - e[i]) / (u[j] - u[i]) for i, j in pairs]
    best = max(float((e - other * (u - u.mean())).min()) for other in candidates)
    assert height == pytest.approx(best, abs=1e-6)


def test_a_fit_of_many_points_is_deterministic() -> None:
    rng = np.random.default_rng(1)
    x, y = series(1000, 7.0)
    y = y + np.rint(rng.normal(0, 50_000, x.size)).astype(np.int64)
    fit = fit_drift(x, y)
    assert fit == fit_drift(x, y)
    assert fit.n == 20_000
    assert fit.ppm == pytest.approx(7, abs=0.02)


def test_a_rejected_fit_has_a_reason_and_keeps_its_numbers() -> None:
    x, y = series(10, 20.0)
    short = fit_drift(x, y)
    assert "span of 9.95 s is shorter than 30 s" in short.rejection_reason
    assert short.ppm == pytest.approx(20, abs=0.01)
    assert fit_drift(x, y, min_span_ns=5 * S).rejection_reason == ""

    few = fit_drift(x[:15] * 20, y[:15] * 20)
    assert few.rejection_reason == "15 points are fewer than 16"
    assert few.ppm == pytest.approx(20, abs=0.01)
    assert few.ppm_low == -np.inf

    x, y = series(60, 0.0)
    wild = fit_drift(x, y + lasting_jitter(np.random.default_rng(0), x.size, 9e6, 0.9))
    assert "ppm is wider than 50 ppm" in wild.rejection_reason
    assert np.isfinite(wild.ppm)


@pytest.mark.parametrize("x", [[], [5], [5] * 20])
def test_points_at_one_time_have_no_drift(x: list[int]) -> None:
    fit = fit_drift(x, x)
    assert "at one time" in fit.rejection_reason
    assert np.isnan(fit.ppm)
    assert (fit.offset_ns, fit.residual_p99_ns) == (0, 0)


def test_repeated_timestamps_do_not_change_the_fit() -> None:
    x, y = series(60, 5.0)
    fit = fit_drift(np.repeat(x, 3), np.repeat(y, 3))
    assert fit.ppm == pytest.approx(5, abs=0.01)
    edges = np.repeat([0, 60 * S], [3, 29])
    assert fit_drift(edges, edges).ppm_high == np.inf


def test_wrong_arguments_are_errors() -> None:
    with pytest.raises(ConfigError, match="least-squares"):
        fit_drift([1], [1], method="least-squares")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="paired"):
        fit_drift([1, 2], [1])
    with pytest.raises(DataError, match="integers"):
        fit_drift([1.0, 2.0], [1, 2])
    with pytest.raises(ConfigError, match="not positive"):
        period_drift([1, 2], 0)


@settings(max_examples=examples(25), deadline=None)
@given(
    st.floats(-100, 100),
    st.integers(0, 2**32 - 1),
    st.sampled_from([Fraction(PERIOD), Fraction(1001 * S, 30_000)]),
)
def test_a_period_is_fitted_in_spite_of_gaps_repeats_and_backward_timestamps(
    ppm: float, seed: int, period: Fraction
) -> None:
    rng = np.random.default_rng(seed)
    true_period = float(period) * (1 + ppm * 1e-6)
    t = 4 * 10**13 + np.rint(np.arange(1200) * true_period + rng.normal(0, 40_000, 1200)).astype(np.int64)
    frames = np.sort(rng.choice(1200, 1100, replace=False))
    frames = np.insert(frames, 500, frames[500])
    t = t[frames]
    t[700] += int(0.6 * period)
    t[300], t[301] = t[301], t[300]
    fit = period_drift(t, period)
    assert fit.rejection_reason == ""
    assert fit.ppm == pytest.approx(ppm, abs=0.5)


def test_a_drift_of_more_than_half_a_period_is_fitted() -> None:
    t = np.rint(np.arange(40_000) * PERIOD * (1 + 40e-6)).astype(np.int64)
    assert period_drift(t, PERIOD).ppm == pytest.approx(40, abs=0.01)


def test_steps_of_an_unclear_number_of_periods_are_rejected() -> None:
    rng = np.random.default_rng(0)
    t = np.cumsum(rng.integers(PERIOD // 10, 2 * PERIOD, 2000))
    assert period_drift(t, PERIOD).rejection_reason != ""
    alternating = np.cumsum(np.tile([PERIOD * 7 // 10, PERIOD * 13 // 10], 1000))
    assert "not a whole number of periods of 50 ms" in period_drift(alternating, PERIOD).rejection_reason
    assert "at one time" in period_drift([], PERIOD).rejection_reason
