"""Drift of one clock against another: a robust slope in parts per million, with a confidence interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmpack.clock._int64 import Int64Array, int64_array, scale_and_round_array
from mmpack.clock.decimal_text import format_ns
from mmpack.errors import ConfigError, DataError

Method = Literal["theil-sen", "envelope"]

MIN_SPAN_NS = 30 * 10**9
"""Shortest span accepted by default; receive timestamps with 9 ms of jitter need more than twice this span."""

MIN_POINTS = 16
"""Smallest number of points of an accepted fit."""
MAX_WIDTH_PPM = 50.0
"""Widest accepted 95 % interval: crystals differ by tens of ppm, so a wider interval contains no information."""

_BLOCKS = 8
# Student's t, two-sided 95 %, 4 degrees of freedom. The outer blocks determine the slope most: with weights w, the
# squared distances from the middle, eight blocks count as (Σw)² / Σw² = 4.5 independent blocks (Satterthwaite).
_T_95 = 2.776
_MAX_PAIRS = 500_000

_Floats = NDArray[np.float64]
_Estimator = Callable[[_Floats, _Floats], float]


@dataclass(frozen=True, kw_only=True)
class DriftFit:
    """The drift of clock y against clock x: y = x + offset_ns + ppm·1e-6·(x - x0_ns).

    Attributes:
        ppm: estimated drift; NaN if there are fewer than two different x.
        ppm_low, ppm_high: ends of the 95 % interval; infinite below 16 points.
        offset_ns: y - x at x0_ns, on the fitted line.
        x0_ns: smallest x.
        residual_p99_ns: 99th percentile of |y - fit|; for the envelope the residuals are latencies.
        span_ns: largest minus smallest x.
        n: number of points.
        rejection_reason: reason why the fit must not be used, in one sentence; empty if it may be used.
    """

    ppm: float
    ppm_low: float
    ppm_high: float
    offset_ns: int
    x0_ns: int
    residual_p99_ns: int
    span_ns: int
    n: int
    rejection_reason: str


def fit_drift(
    x_ns: ArrayLike,
    y_ns: ArrayLike,
    *,
    method: Method = "theil-sen",
    min_span_ns: int = MIN_SPAN_NS,
    resolution_ns: int = 1,
) -> DriftFit:
    """Fits the drift of clock y against clock x to timestamps of the same instants on both clocks.

    "theil-sen" is the median slope over pairs of points, for errors of either sign: all pairs up to 1,000 points, above
    that the pairs at evenly spaced lags (Sen 1968, doi:10.1080/01621459.1968.10480934). "envelope" is for y that are
    receive timestamps, whose delay is always positive: the edge of the lower convex hull of y - x below the mean x
    (Moon, Skelly and Towsley 1999, doi:10.1109/INFCOM.1999.749287).

    The interval is a jackknife that leaves out each of eight consecutive blocks in turn, so jitter that lasts for many
    points widens it. Jitter that lasts as long as a block, an eighth of the span, is not fully included. The half width
    of the interval is at least the resolution divided by the span.

    Args:
        x_ns, y_ns: int64 of shape (n,), in any order, without sentinels (check them before).
        method: "theil-sen" or "envelope".
        min_span_ns: smallest span; a fit over a shorter span gets a rejection reason.
        resolution_ns: resolution of the coarser of the two clocks.

    Raises:
        ConfigError: the method is unknown.
        DataError: the shapes differ, or the timestamps are not integers.
    """
    slope = _get_estimator(method)
    x, y = _sort_pairs(x_ns, y_ns)
    n = int(x.size)
    span_ns = int(x[-1]) - int(x[0]) if n else 0
    if span_ns == 0:
        offset_ns, residual_ns = fit_offset(x, y, method) if n else (0, 0)
        x0_ns = int(x[0]) if n else 0
        reason = f"{n} points at one time do not define a drift"
        return DriftFit(
            ppm=math.nan,
            ppm_low=-math.inf,
            ppm_high=math.inf,
            offset_ns=offset_ns,
            x0_ns=x0_ns,
            residual_p99_ns=residual_ns,
            span_ns=span_ns,
            n=n,
            rejection_reason=reason,
        )

    difference = y - x
    u = (x - x[0]).astype(np.float64)
    e = (difference - difference[0]).astype(np.float64)
    drift = slope(u, e)
    half_width = max(_half_width(slope, u, e, drift), resolution_ns / span_ns)
    level, residual_ns = _fit_level(e - drift * u, method)
    ppm, half_ppm = drift * 1e6, half_width * 1e6
    return DriftFit(
        ppm=ppm,
        ppm_low=ppm - half_ppm,
        ppm_high=ppm + half_ppm,
        offset_ns=int(difference[0]) + level,
        x0_ns=int(x[0]),
        residual_p99_ns=residual_ns,
        span_ns=span_ns,
        n=n,
        rejection_reason=_find_rejection_reason(n, span_ns, min_span_ns, 2 * half_ppm),
    )


def period_drift(
    t_ns: ArrayLike,
    nominal_period_ns: int | Fraction,
    *,
    method: Method = "theil-sen",
    min_span_ns: int = MIN_SPAN_NS,
    resolution_ns: int = 1,
) -> DriftFit:
    """Fits the drift of a regular series against its nominal period: positive if the true period is longer.

    The step between two timestamps is rounded to a number of periods, so missing, repeated and late frames cause no
    drift. If more than 1 % of the steps differ by more than a quarter period from a whole number of periods, the periods
    cannot be counted, and the fit gets a rejection reason.

    Args:
        t_ns: int64 of shape (n,), in order of capture.
        nominal_period_ns: exact period; Fraction(1001 * 10**9, 30000) for 29.97 frames/s.
        method, min_span_ns, resolution_ns: as in :func:`fit_drift`.

    Raises:
        ConfigError: the period is not positive, or the method is unknown.
        DataError: the timestamps are not integers.
    """
    period = Fraction(nominal_period_ns)
    if period <= 0:
        raise ConfigError(f"a period of {nominal_period_ns} ns is not positive")
    t = int64_array(t_ns).ravel()
    if t.size == 0:
        return fit_drift(t, t, method=method)
    steps = np.diff(t)
    counts = scale_and_round_array(steps, 1 / period)
    nominal = scale_and_round_array(np.concatenate(([0], np.cumsum(counts))), period, int(t[0]))
    fit = fit_drift(nominal, t, method=method, min_span_ns=min_span_ns, resolution_ns=resolution_ns)

    unclear = float(np.mean(np.abs(steps - np.diff(nominal)) > float(period / 4))) if steps.size else 0.0
    if unclear <= 0.01:
        return fit
    reason = f"{unclear:.0%} of the steps are not a whole number of periods of {format_ns(round(period))}"
    return replace(fit, rejection_reason=fit.rejection_reason or reason)


def fit_offset(x_ns: ArrayLike, y_ns: ArrayLike, method: Method) -> tuple[int, int]:
    """Returns the offset y - x without drift, and the 99th percentile of its |residuals|, in ns.

    The offset is the median difference for "theil-sen", the smallest for "envelope". The arrays must not be empty.
    Raises the errors of :func:`fit_drift`.
    """
    x, y = _sort_pairs(x_ns, y_ns)
    difference = y - x
    level, residual_ns = _fit_level((difference - difference[0]).astype(np.float64), method)
    return int(difference[0]) + level, residual_ns


def theil_sen_slope(u: _Floats, e: _Floats) -> float:
    """Returns the median slope of e over all pairs of points; above 1,000 points over pairs at evenly spaced lags."""
    n = u.size
    stride = min(-(-n * n // (2 * _MAX_PAIRS)), max(1, n // 4))
    is_distinct = bool(np.all(u[1:] > u[:-1]))
    slopes: list[_Floats] = []
    for lag in range(stride, n, stride):
        du, de = u[lag:] - u[:-lag], e[lag:] - e[:-lag]
        if not is_distinct:
            differs = du > 0
            du, de = du[differs], de[differs]
        slopes.append(de / du)
    ordered = np.sort(
        np.concatenate(slopes)
    )  # sorting takes half the time of np.median, whose partition is not vectorised
    return float(ordered[(ordered.size - 1) // 2] + ordered[ordered.size // 2]) / 2


def lower_envelope_slope(u: _Floats, e: _Floats) -> float:
    """Returns the slope of the edge of the lower convex hull of the points (u, e) at the mean of u.

    The search starts from a chord across the mean. While a point is below the chord, the lowest such point replaces the
    end of the chord on its side of the mean. Each time the chord moves down or, if one of its ends is at the mean, turns
    about that end, until it is the edge.
    """
    mean = float(u.mean())
    left, right = int(np.lexsort((e, u))[0]), int(np.lexsort((e, -u))[0])
    slope = math.nan
    seen: set[tuple[int, int]] = set()
    # A chord repeats if it is the edge, or in a cycle of points that rounding puts below each other.
    while (left, right) not in seen:
        seen.add((left, right))
        slope = float((e[right] - e[left]) / (u[right] - u[left]))
        lowest = int(np.argmin(e - slope * u))
        if u[lowest] <= mean:
            left = lowest
        else:
            right = lowest
    return slope


def _get_estimator(method: str) -> _Estimator:
    try:
        return {"theil-sen": theil_sen_slope, "envelope": lower_envelope_slope}[method]
    except KeyError:
        raise ConfigError(
            f"unknown drift method {method!r}", hint="Methods are theil-sen and envelope"
        ) from None


def _sort_pairs(x_ns: ArrayLike, y_ns: ArrayLike) -> tuple[Int64Array, Int64Array]:
    """Returns both as int64 of shape (n,), sorted by x. Raises DataError if their sizes differ."""
    x, y = int64_array(x_ns).ravel(), int64_array(y_ns).ravel()
    if x.size != y.size:
        raise DataError(f"{x.size} timestamps of one clock cannot be paired with {y.size} of the other")
    order = np.argsort(x, kind="stable")
    return x[order], y[order]


def _fit_level(values: _Floats, method: Method) -> tuple[int, int]:
    """Fits a horizontal line to `values`: returns its level in whole ns and the 99th percentile of |residuals|."""
    level = round(float(values.min() if method == "envelope" else np.median(values)))
    return level, math.ceil(float(np.percentile(np.abs(values - level), 99)))


def _half_width(slope: _Estimator, u: _Floats, e: _Floats, drift: float) -> float:
    """Returns half the width of the 95 % interval of a slope: jackknife over blocks, about the full estimate."""
    n = u.size
    if n < MIN_POINTS:
        return math.inf
    estimates: list[float] = []
    for block in np.array_split(np.arange(n), _BLOCKS):
        selected = np.ones(n, dtype=bool)
        selected[block] = False
        if u[selected][0] == u[selected][-1]:
            return math.inf
        estimates.append(slope(u[selected], e[selected]))
    variance = (_BLOCKS - 1) / _BLOCKS * float(np.sum((np.array(estimates) - drift) ** 2))
    return _T_95 * math.sqrt(variance)


def _find_rejection_reason(n: int, span_ns: int, min_span_ns: int, width_ppm: float) -> str:
    if n < MIN_POINTS:
        return f"{n} points are fewer than {MIN_POINTS}"
    if span_ns < min_span_ns:
        return f"the span of {format_ns(span_ns)} is shorter than {format_ns(min_span_ns)}"
    if width_ppm > MAX_WIDTH_PPM:
        return f"the interval of {width_ppm:.0f} ppm is wider than {MAX_WIDTH_PPM:.0f} ppm"
    return ""
