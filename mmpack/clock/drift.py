"""How fast one clock runs against another: a robust slope in parts per million, with an honest interval."""

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
"""Shortest span that is accepted by default; receive stamps with 9 ms of jitter need more than twice that."""

MIN_POINTS = 16
MAX_WIDTH_PPM = 50.0
"""A wider 95 % interval is a refusal: crystals differ by tens of ppm, so it would tell nothing."""

_BLOCKS = 8
# Student's t, two-sided 95 %, 4 degrees of freedom. A slope hangs on its outer blocks: with weights as their
# squared distance from the middle, eight blocks are worth (Σw)² / Σw² = 4.5 independent ones (Satterthwaite).
_T_95 = 2.776
_MAX_PAIRS = 500_000

_Floats = NDArray[np.float64]
_Estimator = Callable[[_Floats, _Floats], float]


@dataclass(frozen=True)
class DriftFit:
    """y = x + offset_ns + ppm·1e-6·(x - x0_ns): the drift of y against x.

    Attributes:
        ppm: the estimate; NaN if fewer than two different x were given.
        ppm_low, ppm_high: 95 % interval; infinite below 16 points.
        offset_ns: y - x at x0_ns, on the fitted line.
        x0_ns: the smallest x.
        residual_p99_ns: 99th percentile of |y - fit|; for the envelope these are latencies.
        span_ns: largest less smallest x.
        n: number of points.
        refused: why the figures must not be used, in one sentence; empty if they may be.
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
    """The drift of clock y against clock x, from stamps of the same instants on both.

    "theil-sen" is the median slope over pairs of points, for errors of either sign: all pairs up to 1,000
    points, past that the pairs at evenly spaced lags (Sen 1968, doi:10.1080/01621459.1968.10480934).
    "envelope" is for y that are receive stamps, whose delay is only ever positive: the edge of the lower
    convex hull of y - x below the mean x (Moon, Skelly and Towsley 1999, doi:10.1109/INFCOM.1999.749287).

    The interval comes from leaving out each of eight consecutive blocks in turn, so jitter that lasts for
    many points widens it; jitter that lasts as long as a block, an eighth of the span, is not fully seen. It
    reaches at least one step of the stamps over the span to either side.

    Args:
        x_ns, y_ns: int64 of shape (n,), in any order. Check them first: a sentinel is not an instant.
        method: "theil-sen" or "envelope".
        min_span_ns: shorter spans are refused.
        resolution_ns: step of the coarser of the two clocks.

    Raises:
        ConfigError: unknown method.
        DataError: shapes differ, or the stamps are no integers.
    """
    slope = _estimator(method)
    x, y = _check_pairs(x_ns, y_ns)
    n = int(x.size)
    span_ns = int(x[-1]) - int(x[0]) if n else 0
    if span_ns == 0:
        offset_ns, residual_ns = fit_offset(x, y, method) if n else (0, 0)
        x0_ns = int(x[0]) if n else 0
        refused = f"{n} points at one time show no drift"
        return DriftFit(math.nan, -math.inf, math.inf, offset_ns, x0_ns, residual_ns, span_ns, n, refused)

    difference = y - x
    u = (x - x[0]).astype(np.float64)
    e = (difference - difference[0]).astype(np.float64)
    drift = slope(u, e)
    half = max(_half_width(slope, u, e, drift), resolution_ns / span_ns)
    level, residual_ns = _fit_level(e - drift * u, method)
    ppm, half_ppm = drift * 1e6, half * 1e6
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
    """The drift of a regular series against its nominal period: positive where the true period is longer.

    Every stamp gets the number of periods since the one before it, rounded, so missing, repeated and late
    frames are no drift. Where more than 1 % of the steps lie further than a quarter period from a whole
    number of periods, they cannot be counted, and the fit is refused.

    Args:
        t_ns: int64 of shape (n,), in order of capture.
        nominal_period_ns: exact; Fraction(1001 * 10**9, 30000) for 29.97 frames/s.
        method, min_span_ns, resolution_ns: as in :func:`fit_drift`.

    Raises:
        ConfigError: the period is not positive, or an unknown method.
        DataError: the stamps are no integers.
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
    sentence = f"{unclear:.0%} of the steps are no whole number of periods of {format_ns(round(period))}"
    return replace(fit, rejection_reason=fit.rejection_reason or sentence)


def fit_offset(x_ns: ArrayLike, y_ns: ArrayLike, method: Method) -> tuple[int, int]:
    """The offset y - x without any drift, and the 99th percentile of what it leaves, in ns.

    The offset is the median for "theil-sen", the smallest for "envelope". Raises as :func:`fit_drift`; the
    arrays must not be empty.
    """
    x, y = _check_pairs(x_ns, y_ns)
    difference = y - x
    level, residual_ns = _fit_level((difference - difference[0]).astype(np.float64), method)
    return int(difference[0]) + level, residual_ns


def theil_sen_slope(u: _Floats, e: _Floats) -> float:
    """Median slope of e over all pairs of points; past 1,000 points over the pairs at evenly spaced lags."""
    n = u.size
    stride = min(-(-n * n // (2 * _MAX_PAIRS)), max(1, n // 4))
    is_distinct = bool(np.all(u[1:] > u[:-1]))
    slopes: list[_Floats] = []
    for lag in range(stride, n, stride):
        du, de = u[lag:] - u[:-lag], e[lag:] - e[:-lag]
        if not is_distinct:
            apart = du > 0
            du, de = du[apart], de[apart]
        slopes.append(de / du)
    ordered = np.sort(np.concatenate(slopes))  # half the time of np.median, whose partition is not vectorised
    return float(ordered[(ordered.size - 1) // 2] + ordered[ordered.size // 2]) / 2


def lower_envelope_slope(u: _Floats, e: _Floats) -> float:
    """Slope of the edge of the lower convex hull of the points (u, e) that lies below the mean of u.

    Starts from a chord across the mean. While a point lies below the chord, the lowest such point replaces
    the chord's end on its own side; the chord sinks or, about an end that lies at the mean, turns each time until
    it is the edge.
    """
    mean = float(u.mean())
    left, right = int(np.lexsort((e, u))[0]), int(np.lexsort((e, -u))[0])
    slope = math.nan
    seen: set[tuple[int, int]] = set()
    while (
        left,
        right,
    ) not in seen:  # the edge again, or a cycle between points that rounding puts below each other
        seen.add((left, right))
        slope = float((e[right] - e[left]) / (u[right] - u[left]))
        lowest = int(np.argmin(e - slope * u))
        if u[lowest] <= mean:
            left = lowest
        else:
            right = lowest
    return slope


def _estimator(method: str) -> _Estimator:
    try:
        return {"theil-sen": theil_sen_slope, "envelope": lower_envelope_slope}[method]
    except KeyError:
        raise ConfigError(
            f"unknown drift method {method!r}", hint="Methods are theil-sen and envelope"
        ) from None


def _check_pairs(x_ns: ArrayLike, y_ns: ArrayLike) -> tuple[Int64Array, Int64Array]:
    x, y = int64_array(x_ns).ravel(), int64_array(y_ns).ravel()
    if x.size != y.size:
        raise DataError(f"{x.size} stamps of one clock cannot be paired with {y.size} of the other")
    order = np.argsort(x, kind="stable")
    return x[order], y[order]


def _fit_level(rest: _Floats, method: Method) -> tuple[int, int]:
    """The height of the line through `rest`, whole ns, and the 99th percentile of what is left."""
    level = round(float(rest.min() if method == "envelope" else np.median(rest)))
    return level, math.ceil(float(np.percentile(np.abs(rest - level), 99)))


def _half_width(slope: _Estimator, u: _Floats, e: _Floats, drift: float) -> float:
    """Half of the 95 % interval of a slope: jackknife over consecutive blocks, about the full estimate."""
    n = u.size
    if n < MIN_POINTS:
        return math.inf
    estimates: list[float] = []
    for block in np.array_split(np.arange(n), _BLOCKS):
        keep = np.ones(n, dtype=bool)
        keep[block] = False
        if u[keep][0] == u[keep][-1]:
            return math.inf
        estimates.append(slope(u[keep], e[keep]))
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
