"""The detectors: what is wrong with a stream's stamps, each as one finding that says what, where and how
much.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mmpack.clock import fit_drift, format_ns
from mmpack.sync.alignment.ticks import Ticks
from mmpack.sync.detectors.finding import Finding, limit_times
from mmpack.sync.detectors.quality import describe_drift
from mmpack.sync.detectors.spacing import true_ranges
from mmpack.sync.policies.match import MatchStatus, StreamMatch


def detect_match(match: StreamMatch, ticks: Ticks) -> Iterator[Finding]:
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
    lost = np.isin(status, [MatchStatus.MISSING, MatchStatus.GAP, MatchStatus.STALE, MatchStatus.COVERAGE])
    for start, stop in true_ranges(lost):
        if stop - start >= 2 and match.rule.required:
            yield Finding(
                "missing_sensor",
                "fault",
                name,
                stop - start,
                f"nothing usable for {stop - start} ticks from {ticks.t_ns[start] / 1e9:.3f} s on",
                limit_times(ticks.t_ns[start:stop]),
            )
    edges = np.flatnonzero(status == MatchStatus.EDGE)
    if len(edges):
        head = int((edges < len(status) // 2).sum())
        yield Finding(
            "truncated_edge",
            "info",
            name,
            len(edges),
            f"{head} ticks at the start and {len(edges) - head} at the end have no neighbour",
            limit_times(ticks.t_ns[edges]),
        )
    off = np.flatnonzero(status == MatchStatus.OUT_OF_TOLERANCE)
    if len(off):
        worst = off[np.argmax(np.abs(match.residual_ns[off]))]
        yield Finding(
            "out_of_tolerance",
            "fault",
            name,
            len(off),
            f"{len(off)} items beyond {format_ns(match.rule.tolerance_ns)}, the worst {format_ns(int(match.residual_ns[worst]))}",
            limit_times(ticks.t_ns[off]),
        )
    yield from _detect_clock_drift(match, ticks)


def _detect_clock_drift(match: StreamMatch, ticks: Ticks) -> Iterator[Finding]:
    """A slope of the residuals: two clocks that were taken for one."""
    if match.rule.policy != "nearest" or match.name in ticks.members:
        return
    good = match.has_item
    if good.sum() < 32:
        return
    x, residual = ticks.t_ns[good], match.residual_ns[good]
    fit = fit_drift(x, x + residual)
    moved_ns = abs(fit.ppm) * 1e-6 * fit.span_ns
    is_sure = not fit.rejection_reason and (fit.ppm_low > 0 or fit.ppm_high < 0)
    if is_sure and moved_ns > max(match.rule.tolerance_ns / 2, 5 * fit.residual_p99_ns):
        yield Finding(
            "drift", "fault", match.name, int(good.sum()), f"runs {describe_drift(fit)} against the reference"
        )


def detect_unstable_reference(matches: Sequence[StreamMatch], ticks: Ticks) -> Iterator[Finding]:
    """A reference whose own stamps wander: the streams fail together, by the same amount, so it is not they."""
    followers = [
        match for match in matches if match.rule.policy == "nearest" and match.name not in ticks.members
    ]
    followers = [match for match in followers if match.rule.required]
    if len(followers) < 3 or len(ticks.members) != 1:
        return
    found = np.all([match.has_item for match in followers], axis=0)
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
            limit_times(ticks.t_ns[found][would_pass]),
        )


def _common_prefix(names: Sequence[str]) -> str:
    first, last = min(names), max(names)
    return next((first[:end] for end in range(len(first), 0, -1) if last.startswith(first[:end])), "")
