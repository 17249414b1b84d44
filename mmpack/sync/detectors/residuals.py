"""Detects missing data, residuals out of tolerance, clock drift and an unstable reference, from matches to ticks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mmpack.clock import fit_drift, format_ns
from mmpack.sync.alignment.ticks import Ticks
from mmpack.sync.detectors.finding import Finding, limit_times
from mmpack.sync.detectors.quality import describe_drift
from mmpack.sync.detectors.spacing import true_ranges
from mmpack.sync.policies.match import MatchStatus, StreamMatch
from mmpack.sync.policies.policy import JudgedBy
from mmpack.sync.policies.registry import judged_by


def detect_no_overlap(match: StreamMatch, ticks: Ticks) -> Iterator[Finding]:
    """Yields the finding no_overlap: the stream and the ticks have no time in common. No other finding follows then."""
    if _overlaps(match, ticks):
        return
    first_ns, last_ns = match.stream.span_ns
    yield Finding(
        kind="no_overlap",
        severity="problem",
        stream=match.name,
        count=len(ticks.t_ns),
        text=f"the stream spans {first_ns / 1e9:.3f} to {last_ns / 1e9:.3f} s, the ticks span "
        f"{ticks.t_ns[0] / 1e9:.3f} to {ticks.t_ns[-1] / 1e9:.3f} s: the unit, epoch or clock is wrong",
    )


def _overlaps(match: StreamMatch, ticks: Ticks) -> bool:
    """Returns True if the stream and the ticks overlap in time."""
    first_ns, last_ns = match.stream.span_ns
    return bool(last_ns >= ticks.t_ns[0] and first_ns <= ticks.t_ns[-1] + ticks.period_ns)


def detect_missing_sensor(match: StreamMatch, ticks: Ticks) -> Iterator[Finding]:
    """Yields the findings missing_sensor: a required stream has no usable item for two or more consecutive ticks."""
    if not match.rule.required or not _overlaps(match, ticks):
        return
    lost = [MatchStatus.MISSING, MatchStatus.GAP, MatchStatus.STALE, MatchStatus.COVERAGE]
    for start, stop in true_ranges(np.isin(match.status, lost)):
        if stop - start >= 2:
            yield Finding(
                kind="missing_sensor",
                severity="problem",
                stream=match.name,
                count=stop - start,
                text=f"no usable item for {stop - start} ticks from {ticks.t_ns[start] / 1e9:.3f} s on",
                times_ns=limit_times(ticks.t_ns[start:stop]),
            )


def detect_truncated_edge(match: StreamMatch, ticks: Ticks) -> Iterator[Finding]:
    """Yields the finding truncated_edge: ticks before the first or after the last item of the stream."""
    edges = np.flatnonzero(match.status == MatchStatus.EDGE)
    if not len(edges) or not _overlaps(match, ticks):
        return
    num_start = int((edges < len(match.status) // 2).sum())
    yield Finding(
        kind="truncated_edge",
        severity="info",
        stream=match.name,
        count=len(edges),
        text=f"{num_start} ticks at the start and {len(edges) - num_start} at the end are outside the stream",
        times_ns=limit_times(ticks.t_ns[edges]),
    )


def detect_out_of_tolerance(match: StreamMatch, ticks: Ticks) -> Iterator[Finding]:
    """Yields the finding out_of_tolerance: items whose |residual| exceeds the tolerance."""
    outside = np.flatnonzero(match.status == MatchStatus.OUT_OF_TOLERANCE)
    if not len(outside) or not _overlaps(match, ticks):
        return
    worst = outside[np.argmax(np.abs(match.residual_ns[outside]))]
    yield Finding(
        kind="out_of_tolerance",
        severity="problem",
        stream=match.name,
        count=len(outside),
        text=f"{len(outside)} items exceed the tolerance of {format_ns(match.rule.tolerance_ns)}; the largest residual "
        f"is {format_ns(int(match.residual_ns[worst]))}",
        times_ns=limit_times(ticks.t_ns[outside]),
    )


def detect_clock_drift(match: StreamMatch, ticks: Ticks) -> Iterator[Finding]:
    """Yields the finding drift: a slope of the residuals, which shows that two clocks were taken for one."""
    if (
        judged_by(match) is not JudgedBy.RESIDUAL
        or match.name in ticks.members
        or not _overlaps(match, ticks)
    ):
        return
    has_item = match.has_item
    if has_item.sum() < 32:
        return
    x, residual = ticks.t_ns[has_item], match.residual_ns[has_item]
    fit = fit_drift(x, x + residual)
    moved_ns = abs(fit.ppm) * 1e-6 * fit.span_ns
    is_sure = not fit.rejection_reason and (fit.ppm_low > 0 or fit.ppm_high < 0)
    if is_sure and moved_ns > max(match.rule.tolerance_ns / 2, 5 * fit.residual_p99_ns):
        yield Finding(
            kind="drift",
            severity="problem",
            stream=match.name,
            count=int(has_item.sum()),
            text=f"the clock drifts by {describe_drift(fit)} against the reference",
        )


def detect_unstable_reference(matches: Sequence[StreamMatch], ticks: Ticks) -> Iterator[Finding]:
    """Yields the finding unstable_reference: the timestamps of the reference itself are unstable.

    The evidence is that all other streams fail at the same ticks and by the same amount.
    """
    followers = [
        match
        for match in matches
        if judged_by(match) is JudgedBy.RESIDUAL and match.name not in ticks.members
    ]
    followers = [match for match in followers if match.rule.required]
    if len(followers) < 3 or len(ticks.members) != 1:
        return
    is_complete = np.all([match.has_item for match in followers], axis=0)
    residual = np.stack([match.residual_ns for match in followers])[:, is_complete]
    if not residual.shape[1]:
        return
    common = np.median(residual, axis=0)
    tolerance = np.array([[match.rule.tolerance_ns] for match in followers])
    fails = np.any(np.abs(residual) > tolerance, axis=0)
    would_pass = fails & np.all(np.abs(residual - common) <= tolerance, axis=0)
    if fails.sum() >= 2 and would_pass.sum() * 2 > fails.sum():
        pattern = _common_prefix([match.name for match in followers]) + "*"
        yield Finding(
            kind="unstable_reference",
            severity="problem",
            stream=ticks.members[0],
            count=int(would_pass.sum()),
            text=f"the reference itself is unstable, by up to {format_ns(int(np.abs(common).max()))} against all "
            f"{len(followers)} other streams together: {would_pass.sum()} of {fails.sum()} failing ticks would pass with "
            f"the consensus of these streams as the reference (reference = 'consensus:{pattern}')",
            times_ns=limit_times(ticks.t_ns[is_complete][would_pass]),
        )


def _common_prefix(names: Sequence[str]) -> str:
    """Returns the longest common prefix of `names`; the smallest and the largest name have the same one."""
    first, last = min(names), max(names)
    return next((first[:end] for end in range(len(first), 0, -1) if last.startswith(first[:end])), "")
