"""The detectors: what is wrong with a stream's stamps, each as one finding that says what, where and how
much.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmpack.clock import DriftFit, fit_drift, format_ns, period_drift
from mmpack.sync.align import Aligned
from mmpack.sync.match import Match, Status
from mmpack.sync.ticks import Ticks

Severity = Literal["info", "fault"]

#: Places listed in one finding; the count is always complete.
MAX_PLACES = 1000
#: Fewer items than this have no period to speak of.
_MIN_ITEMS = 8
# A step this many times the period is a gap; one item lost gives 2.
_GAP_FACTOR = 1.8
# Steps below this share of the period are too close to be two items of a regular sensor.
_NEAR_FACTOR = 0.2
_BURST_LENGTH = 3
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


@dataclass(frozen=True)
class Finding:
    """One thing a detector saw.

    Attributes:
        kind: gap, duplicate, near_duplicate, backward, sentinel, no_overlap, float_quantised, burst,
            receive_latency, missing_sensor, truncated_edge, drift, coarse_stamps, out_of_tolerance or
            reference_wander.
        severity: 'fault' for damage, 'info' for a property worth knowing.
        stream: the stream.
        count: how often.
        text: one sentence for people.
        places_ns: the first places on the reference's clock, at most MAX_PLACES.
    """

    kind: str
    severity: Severity
    stream: str
    count: int
    text: str
    places_ns: tuple[int, ...] = ()


def _places(t_ns: Iterable[int] | NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(int(t) for t in list(t_ns)[:MAX_PLACES])


def detect_stream(stream: Aligned) -> Iterator[Finding]:
    """What one stream's stamps show by themselves."""
    yield from _set_aside(stream)
    yield from _float_quantised(stream)
    if stream.stream.kind == "audio":
        yield from _audio_gaps(stream)
    elif stream.stream.kind != "text" and len(stream.t_ns) >= _MIN_ITEMS:
        yield from _spacing(stream)
        yield from _receive_latency(stream)
        yield from _frame_period(stream)


def _set_aside(stream: Aligned) -> Iterator[Finding]:
    name, stamps = stream.name, stream.stream.stamps.t_ns
    if len(stream.implausible):
        values = ", ".join(str(int(stamps[item])) for item in stream.implausible[:3])
        yield Finding(
            "sentinel",
            "fault",
            name,
            len(stream.implausible),
            f"{len(stream.implausible)} stamps are no times (item {stream.implausible[0]}: {values}); set aside",
        )
    if len(stream.backward):
        around = np.searchsorted(stream.items, stream.backward)
        near = stream.t_ns[np.minimum(around, len(stream.t_ns) - 1)]
        yield Finding(
            "backward",
            "fault",
            name,
            len(stream.backward),
            f"{len(stream.backward)} stamps out of order (first: item {stream.backward[0]}); set aside",
            _places(near),
        )
    if len(stream.duplicate):
        # Several rows of one moment are how radars and CAN write; a camera has one picture at a time.
        places = stamps_of(stream, stream.duplicate)
        yield Finding(
            "duplicate",
            "fault",
            name,
            len(stream.duplicate),
            f"{len(stream.duplicate)} of {len(stamps)} stamps equal the one before (first: item {stream.duplicate[0]})",
            _places(places),
        )


def stamps_of(stream: Aligned, items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where items lie on the reference's clock; those set aside as doubles lie where their first copy does."""
    at = np.searchsorted(stream.items, items, side="right") - 1
    return stream.t_ns[np.clip(at, 0, len(stream.t_ns) - 1)]


def _spacing(stream: Aligned) -> Iterator[Finding]:
    """Gaps, bursts and near-duplicates, judged against the stream's own median step and its spread."""
    name, period = stream.name, stream.period_ns
    t_ns, items = stream.t_ns[stream.heads], stream.items[stream.heads]
    steps = np.diff(t_ns)
    if len(steps) < _MIN_ITEMS:
        return
    # A step across an item that was set aside is not longer for that; across a burst's rows it is one step
    # all the same.
    is_bursty = len(stream.heads) < len(np.unique(stream.t_ns))
    skipped = np.ones(len(steps)) if is_bursty else np.maximum(np.diff(items), 1)
    gaps = np.flatnonzero(steps / skipped > _longest_step(steps, period))
    if len(gaps):
        longest = int(steps[gaps].max())
        yield Finding(
            "gap",
            "fault",
            name,
            len(gaps),
            f"{len(gaps)} gaps, the longest {format_ns(longest)} where {format_ns(period)} is usual",
            _places(t_ns[gaps]),
        )
    close = (steps < _NEAR_FACTOR * period) & (_spread(steps, period) < 0.2 * period)
    runs = _runs(close)
    bursts = [(start, stop) for start, stop in runs if stop - start >= _BURST_LENGTH]
    singles = [(start, stop) for start, stop in runs if stop - start < _BURST_LENGTH]
    if bursts:
        yield Finding(
            "burst",
            "fault",
            name,
            len(bursts),
            f"{len(bursts)} bursts of items stamped together: they were buffered, the stamps are not capture times",
            _places(t_ns[[start for start, _ in bursts]]),
        )
    if singles:
        yield Finding(
            "near_duplicate",
            "fault",
            name,
            len(singles),
            f"{len(singles)} items closer than {format_ns(int(_NEAR_FACTOR * period))} to the one before",
            _places(t_ns[[start + 1 for start, _ in singles]]),
        )


def _runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """[start, stop) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _audio_gaps(stream: Aligned) -> Iterator[Finding]:
    if len(stream.t_ns) > 1:
        yield Finding(
            "gap",
            "fault",
            stream.name,
            len(stream.t_ns) - 1,
            f"the samples have {len(stream.t_ns) - 1} holes",
            _places(stream.t_ns[1:]),
        )


def _float_quantised(stream: Aligned) -> Iterator[Finding]:
    stamps = stream.stream.stamps
    if len(stamps) < _MIN_ITEMS:
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


def _receive_latency(stream: Aligned) -> Iterator[Finding]:
    """Delay over the lower envelope of a regular sensor whose stamps were taken on receipt."""
    if stream.stream.semantics != "receive":
        return
    sent = _sent_ns(stream)
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


def _sent_ns(stream: Aligned) -> NDArray[np.int64]:
    """When items were sent, by their numbers and the usual step; a step too long for the stream's jitter is
    items lost.

    Not by rounding stamps to periods: the usual step of receive stamps is known to a per cent or so, and a
    hundred items on a rounded number is off by one.
    """
    steps = np.diff(stream.t_ns)
    period = max(int(np.median(steps)), 1)
    counts = np.where(steps > _longest_step(steps, period), np.rint(steps / period), np.diff(stream.items))
    return np.concatenate([[0], np.cumsum(counts.astype(np.int64))]) * period


def _longest_step(steps: NDArray[np.int64], period_ns: int) -> float:
    """The longest step that is no gap: by the period, or by the steps' own spread where that is wider."""
    return max(_GAP_FACTOR * period_ns, period_ns + 10 * _spread(steps, period_ns))


def _spread(steps: NDArray[np.int64], period_ns: int) -> float:
    """Median distance from the period, scaled to be the standard deviation of normal noise."""
    return 1.4826 * float(np.median(np.abs(steps - period_ns)))


def _frame_period(stream: Aligned) -> Iterator[Finding]:
    """A regular stream's period against its nominal one."""
    nominal = _nominal_period(stream)
    if nominal is None or stream.stream.kind not in ("camera", "event", "lidar"):
        return
    fit = period_drift(stream.t_ns, nominal, resolution_ns=stream.stream.stamps.resolution_ns)
    if fit.refused and not stream.stream.nominal_period_ns:
        return  # nobody asked
    yield Finding(
        "drift",
        "info",
        stream.name,
        fit.n,
        f"period {describe_drift(fit)} from {float(nominal) / 1e6:.6g} ms ({float(10**9 / nominal):.5g} Hz) on its clock",
    )


def _nominal_period(stream: Aligned) -> Fraction | None:
    if stream.stream.nominal_period_ns:
        return Fraction(stream.stream.nominal_period_ns)
    if not stream.period_ns:
        return None
    rate = Fraction(10**9, stream.period_ns)
    near = min(_STANDARD_RATES, key=lambda candidate: abs(candidate / rate - 1))
    return 10**9 / near if abs(near / rate - 1) <= _STANDARD_WITHIN else None


def describe_drift(fit: DriftFit) -> str:
    """A drift in words: the figure with its 95 % interval, or why it is refused."""
    if fit.refused:
        return f"drift not told ({fit.refused})"
    return f"{fit.ppm:+.2f} ppm [{fit.ppm_low:+.2f}, {fit.ppm_high:+.2f}] over {fit.span_ns / 1e9:.1f} s"


def detect_match(match: Match, ticks: Ticks) -> Iterator[Finding]:
    """What shows only against the ticks: absence, edges, residuals out of tolerance, drift between clocks."""
    name, status = match.name, match.status
    first_ns, last_ns = match.stream.span_ns
    if last_ns < ticks.t_ns[0] or first_ns > ticks.t_ns[-1] + ticks.period_ns:
        yield Finding(
            "no_overlap",
            "fault",
            name,
            len(ticks.t_ns),
            f"spans {first_ns / 1e9:.3f} to {last_ns / 1e9:.3f} s, the ticks "
            f"{ticks.t_ns[0] / 1e9:.3f} to {ticks.t_ns[-1] / 1e9:.3f} s: wrong unit, epoch or clock",
        )
        return
    lost = np.isin(status, [Status.MISSING, Status.GAP, Status.STALE, Status.COVERAGE])
    for start, stop in _runs(lost):
        if stop - start >= 2 and match.rule.required:
            yield Finding(
                "missing_sensor",
                "fault",
                name,
                stop - start,
                f"nothing usable for {stop - start} ticks from {ticks.t_ns[start] / 1e9:.3f} s on",
                _places(ticks.t_ns[start:stop]),
            )
    edges = np.flatnonzero(status == Status.EDGE)
    if len(edges):
        head = int((edges < len(status) // 2).sum())
        yield Finding(
            "truncated_edge",
            "info",
            name,
            len(edges),
            f"{head} ticks at the start and {len(edges) - head} at the end have no neighbour",
            _places(ticks.t_ns[edges]),
        )
    off = np.flatnonzero(status == Status.OUT_OF_TOLERANCE)
    if len(off):
        worst = off[np.argmax(np.abs(match.residual_ns[off]))]
        yield Finding(
            "out_of_tolerance",
            "fault",
            name,
            len(off),
            f"{len(off)} items beyond {format_ns(match.rule.tolerance_ns)}, the worst {format_ns(int(match.residual_ns[worst]))}",
            _places(ticks.t_ns[off]),
        )
    yield from _clock_drift(match, ticks)


def _clock_drift(match: Match, ticks: Ticks) -> Iterator[Finding]:
    """A slope of the residuals: two clocks that were taken for one."""
    if match.rule.policy != "nearest" or match.name in ticks.members:
        return
    good = match.found
    if good.sum() < 32:
        return
    x, residual = ticks.t_ns[good], match.residual_ns[good]
    fit = fit_drift(x, x + residual)
    moved_ns = abs(fit.ppm) * 1e-6 * fit.span_ns
    is_sure = not fit.refused and (fit.ppm_low > 0 or fit.ppm_high < 0)
    if is_sure and moved_ns > max(match.rule.tolerance_ns / 2, 5 * fit.residual_p99_ns):
        yield Finding(
            "drift", "fault", match.name, int(good.sum()), f"runs {describe_drift(fit)} against the reference"
        )


def detect_wander(matches: Sequence[Match], ticks: Ticks) -> Iterator[Finding]:
    """A reference whose own stamps wander: the streams fail together, by the same amount, so it is not they."""
    followers = [
        match for match in matches if match.rule.policy == "nearest" and match.name not in ticks.members
    ]
    followers = [match for match in followers if match.rule.required]
    if len(followers) < 3 or len(ticks.members) != 1:
        return
    found = np.all([match.found for match in followers], axis=0)
    residual = np.stack([match.residual_ns for match in followers])[:, found]
    if not residual.shape[1]:
        return
    common = np.median(residual, axis=0)
    tolerance = np.array([[match.rule.tolerance_ns] for match in followers])
    fails = np.any(np.abs(residual) > tolerance, axis=0)
    would_pass = fails & np.all(np.abs(residual - common) <= tolerance, axis=0)
    if fails.sum() >= 2 and would_pass.sum() * 2 > fails.sum():
        members = _common_prefix([match.name for match in followers]) + "*"
        yield Finding(
            "reference_wander",
            "fault",
            ticks.members[0],
            int(would_pass.sum()),
            f"the reference itself is what wanders, by up to {format_ns(int(np.abs(common).max()))} against all "
            f"{len(followers)} streams alike: {would_pass.sum()} of {fails.sum()} failing ticks would pass with their "
            f"consensus as the tick (reference = 'consensus:{members}')",
            _places(ticks.t_ns[found][would_pass]),
        )


def _common_prefix(names: Sequence[str]) -> str:
    first, last = min(names), max(names)
    return next((first[:end] for end in range(len(first), 0, -1) if last.startswith(first[:end])), "")
