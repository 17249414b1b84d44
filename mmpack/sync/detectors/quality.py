"""Detects float quantisation, coarse timestamps, receive latency and a deviating frame period."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from mmpack.clock import DriftFit, fit_drift, format_ns, period_drift
from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.detectors.finding import MIN_ITEMS, Finding, is_series
from mmpack.sync.detectors.spacing import max_regular_step_ns

# Timestamps that were stored as float64 are multiples of 2**8 ns from 2**60 ns on, and of 2**6 ns from 2**58 ns on.
_FLOAT_STEP_NS = 64
#: Usual frame rates of cameras in Hz: candidates for the nominal period if the recording states none.
_STANDARD_RATES = tuple(
    Fraction(rate)
    for rate in (
        "1",
        "2",
        "4",
        "5",
        "10",
        "12",
        "12.5",
        "15",
        "20",
        "24",
        "25",
        "30",
        "50",
        "60",
        "90",
        "100",
    )
) + tuple(Fraction(rate * 1000, 1001) for rate in (24, 30, 60))
# Largest relative distance of a measured rate from a standard rate that is taken for it.
_STANDARD_TOLERANCE = 400e-6


def detect_float_quantisation(stream: AlignedStream) -> Iterator[Finding]:
    """Yields the findings float_quantised and coarse_timestamps."""
    timestamps = stream.stream.timestamps
    if len(timestamps) < MIN_ITEMS:
        return
    step = int(np.gcd.reduce(timestamps.t_ns))
    # Timestamps in milliseconds are multiples of 64 ns too, but also of 1,000 ns.
    if step >= _FLOAT_STEP_NS and step % 1000 and step & (step - 1) == 0:
        yield Finding(
            kind="float_quantised",
            severity="problem",
            stream=stream.name,
            count=len(timestamps),
            text=f"all timestamps are multiples of {step} ns: they were stored as float64, with errors of up to {step // 2} ns",
        )
    if timestamps.resolution_ns >= 100_000:
        yield Finding(
            kind="coarse_timestamps",
            severity="info",
            stream=stream.name,
            count=len(timestamps),
            text=f"the resolution of the timestamps is {format_ns(timestamps.resolution_ns)}: rounding alone causes residuals "
            f"of up to ±{format_ns(timestamps.resolution_ns // 2)}",
        )


def detect_receive_latency(stream: AlignedStream) -> Iterator[Finding]:
    """Yields the finding receive_latency: the delay above the lower envelope of a regular sensor whose timestamps were
    taken on receipt.
    """
    if stream.stream.semantics != "receive" or not is_series(stream):
        return
    sent = _estimate_send_times(stream)
    fit = fit_drift(sent, stream.t_ns, method="envelope", min_span_ns=0)
    delay = stream.t_ns - sent - np.rint((sent - sent[0]) * fit.ppm * 1e-6).astype(np.int64)
    delay = delay - delay.min()
    p50, p99 = np.percentile(delay, [50, 99])
    yield Finding(
        kind="receive_latency",
        severity="info",
        stream=stream.name,
        count=len(stream.t_ns),
        text=f"timestamps were taken on receipt: the delay above the fastest delivery is {format_ns(int(p50))} (median), "
        f"{format_ns(int(p99))} (p99), {format_ns(int(delay.max()))} (largest); capture times are this uncertain",
    )


def _estimate_send_times(stream: AlignedStream) -> NDArray[np.int64]:
    """Returns estimated send times in ns from 0 on, int64: item indices times the median step.

    A step that is too long for the stream's jitter is counted as lost items. Timestamps are not rounded to multiples of
    the period: the median step of receive timestamps is accurate to about one per cent, so the rounded count would be
    wrong by one after a hundred items.
    """
    steps = np.diff(stream.t_ns)
    period = max(int(np.median(steps)), 1)
    counts = np.where(
        steps > max_regular_step_ns(steps, period), np.rint(steps / period), np.diff(stream.items)
    )
    return np.concatenate([[0], np.cumsum(counts.astype(np.int64))]) * period


def detect_frame_period(stream: AlignedStream) -> Iterator[Finding]:
    """Yields the finding drift: the deviation of a stream's period from its nominal period.

    Without a nominal period in the recording, the nearest standard frame rate is the nominal one, and a drift that
    cannot be measured is not reported.
    """
    if stream.stream.kind not in ("camera", "event", "lidar") or not is_series(stream):
        return
    nominal = _find_nominal_period_ns(stream)
    if nominal is None:
        return
    fit = period_drift(stream.t_ns, nominal, resolution_ns=stream.stream.timestamps.resolution_ns)
    if fit.rejection_reason and not stream.stream.nominal_period_ns:
        return
    yield Finding(
        kind="drift",
        severity="info",
        stream=stream.name,
        count=fit.n,
        text=f"period {describe_drift(fit)} from {float(nominal) / 1e6:.6g} ms ({float(10**9 / nominal):.5g} Hz) on its own clock",
    )


def _find_nominal_period_ns(stream: AlignedStream) -> Fraction | None:
    """Returns the stated nominal period in ns, else that of the nearest standard rate, else None."""
    if stream.stream.nominal_period_ns:
        return Fraction(stream.stream.nominal_period_ns)
    if not stream.period_ns:
        return None
    rate = Fraction(10**9, stream.period_ns)
    nearest = min(_STANDARD_RATES, key=lambda candidate: abs(candidate / rate - 1))
    return 10**9 / nearest if abs(nearest / rate - 1) <= _STANDARD_TOLERANCE else None


def describe_drift(fit: DriftFit) -> str:
    """Returns a drift in words: the estimate with its 95 % interval, or why it is unknown."""
    if fit.rejection_reason:
        return f"drift unknown ({fit.rejection_reason})"
    return f"{fit.ppm:+.2f} ppm [{fit.ppm_low:+.2f}, {fit.ppm_high:+.2f}] over {fit.span_ns / 1e9:.1f} s"
