"""Float quantisation, receive latency, frame period."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from mmpack.clock import DriftFit, fit_drift, format_ns, period_drift
from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.detectors.finding import MIN_ITEMS, Finding
from mmpack.sync.detectors.spacing import max_regular_step_ns

# Stamps that went through float64 at 2**60 ns and above are multiples of 2**8; 2**6 at 2**58.
_FLOAT_STEP_NS = 64
#: Frame rates that cameras are set to, for the nominal period where none is stated.
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
_STANDARD_WITHIN = 400e-6


def detect_float_quantisation(stream: AlignedStream) -> Iterator[Finding]:
    stamps = stream.stream.timestamps
    if len(stamps) < MIN_ITEMS:
        return
    step = int(np.gcd.reduce(stamps.t_ns))
    # Milliseconds are multiples of 64 ns too, but also of 1,000.
    if step >= _FLOAT_STEP_NS and step % 1000 and step & (step - 1) == 0:
        yield Finding(
            "float_quantised",
            "fault",
            stream.name,
            len(stamps),
            f"all stamps are multiples of {step} ns: they went through float64 and are off by up to {step // 2} ns",
        )
    if stamps.resolution_ns >= 100_000:
        yield Finding(
            "coarse_stamps",
            "info",
            stream.name,
            len(stamps),
            f"stamps come in steps of {format_ns(stamps.resolution_ns)}: ±{format_ns(stamps.resolution_ns // 2)} "
            "of any tolerance is theirs",
        )


def detect_receive_latency(stream: AlignedStream) -> Iterator[Finding]:
    """Delay over the lower envelope of a regular sensor whose stamps were taken on receipt."""
    if stream.stream.semantics != "receive":
        return
    sent = _estimate_send_times(stream)
    fit = fit_drift(sent, stream.t_ns, method="envelope", min_span_ns=0)
    delay = stream.t_ns - sent - np.rint((sent - sent[0]) * fit.ppm * 1e-6).astype(np.int64)
    delay = delay - delay.min()
    p50, p99 = np.percentile(delay, [50, 99])
    yield Finding(
        "receive_latency",
        "info",
        stream.name,
        len(stream.t_ns),
        f"receive stamps: delay over the quickest delivery is {format_ns(int(p50))} (median), "
        f"{format_ns(int(p99))} (p99), {format_ns(int(delay.max()))} (largest); capture times are not known better",
    )


def _estimate_send_times(stream: AlignedStream) -> NDArray[np.int64]:
    """When items were sent, by their numbers and the usual step; a step too long for the stream's jitter is
    items lost.

    Not by rounding stamps to periods: the usual step of receive stamps is known to a per cent or so, and a
    hundred items on a rounded number is off by one.
    """
    steps = np.diff(stream.t_ns)
    period = max(int(np.median(steps)), 1)
    counts = np.where(
        steps > max_regular_step_ns(steps, period), np.rint(steps / period), np.diff(stream.items)
    )
    return np.concatenate([[0], np.cumsum(counts.astype(np.int64))]) * period


def detect_frame_period(stream: AlignedStream) -> Iterator[Finding]:
    """A regular stream's period against its nominal one."""
    nominal = _nominal_period(stream)
    if nominal is None or stream.stream.kind not in ("camera", "event", "lidar"):
        return
    fit = period_drift(stream.t_ns, nominal, resolution_ns=stream.stream.timestamps.resolution_ns)
    if fit.rejection_reason and not stream.stream.nominal_period_ns:
        return  # nobody asked
    yield Finding(
        "drift",
        "info",
        stream.name,
        fit.n,
        f"period {describe_drift(fit)} from {float(nominal) / 1e6:.6g} ms ({float(10**9 / nominal):.5g} Hz) on its clock",
    )


def _nominal_period(stream: AlignedStream) -> Fraction | None:
    if stream.stream.nominal_period_ns:
        return Fraction(stream.stream.nominal_period_ns)
    if not stream.period_ns:
        return None
    rate = Fraction(10**9, stream.period_ns)
    near = min(_STANDARD_RATES, key=lambda candidate: abs(candidate / rate - 1))
    return 10**9 / near if abs(near / rate - 1) <= _STANDARD_WITHIN else None


def describe_drift(fit: DriftFit) -> str:
    """A drift in words: the figure with its 95 % interval, or why it is refused."""
    if fit.rejection_reason:
        return f"drift not told ({fit.rejection_reason})"
    return f"{fit.ppm:+.2f} ppm [{fit.ppm_low:+.2f}, {fit.ppm_high:+.2f}] over {fit.span_ns / 1e9:.1f} s"
