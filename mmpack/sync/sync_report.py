"""What sync found, for machines (JSON, Parquet) and for people (text)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmpack.sync.policies.match import Match, Status
from mmpack.sync.synchronise import SyncResult


def stream_facts(found: Match, result: SyncResult) -> dict[str, Any]:
    """One stream's figures: integers in ns, counts, and how it was matched. Residual percentiles are of
    |residual|.
    """
    residual = np.abs(found.residual_ns[found.found])
    stamps = found.stream.stream.stamps
    period_ns = found.stream.period_ns
    return {
        "kind": found.stream.stream.kind,
        "policy": found.rule.policy,
        "required": found.rule.required,
        "clock": found.stream.stream.clock.name,
        "clock_domain": found.stream.stream.clock.domain,
        "semantics": found.stream.stream.semantics,
        "stamps_from": stamps.origin,
        "resolution_ns": stamps.resolution_ns,
        "items": _items(found),
        "period_ns": period_ns,
        "matched": int((found.status == Status.OK).sum()),
        "absent": int((found.status != Status.OK).sum()),
        "tolerance_ns": found.rule.tolerance_ns,
        "offset_ns": found.rule.offset_ns,
        "offset_source": found.rule.offset_source,
        "limit_ns": found.rule.limit_ns,
        "before_ns": found.rule.before_ns,
        "after_ns": found.rule.after_ns,
        "residual_p50_ns": _percentile(residual, 50),
        "residual_p99_ns": _percentile(residual, 99),
        "residual_max_ns": int(residual.max(initial=0)),
        "raw_spread_ns": _raw_spread(found, result),
    }


def _items(found: Match) -> int:
    if found.stream.stream.kind == "audio":
        return int(found.stream.stream.timeline.samples.sum())
    return len(found.stream.stream.stamps)


def _raw_spread(found: Match, result: SyncResult) -> int:
    """Median over ticks of how far raw stamps lie apart: within its group for a member, from the tick for any
    other stream.
    """
    if found.name in result.group and len(result.raw_spread_ns):
        return _percentile(result.raw_spread_ns, 50)
    distance = np.abs(found.aligned_ns - result.ticks.t_ns)[found.found]
    return _percentile(distance, 50)


def _percentile(values: NDArray[np.int64], share: float) -> int:
    return int(np.percentile(values, share)) if len(values) else 0


def recording_facts(result: SyncResult) -> dict[str, Any]:
    """One recording's report as plain JSON values."""
    return {
        "recording": result.recording.name,
        "path": result.recording.where,
        "reference": result.ticks.description,
        "clock": {"name": result.clock.name, "domain": result.clock.domain},
        "tick_period_ns": result.ticks.period_ns,
        "first_tick_ns": int(result.ticks.t_ns[0]),
        "last_tick_ns": int(result.ticks.t_ns[-1]),
        "ticks": len(result.ticks.t_ns),
        "passed": int(result.passed.sum()),
        "quarantined": int((~result.passed).sum()),
        "raw_spread_ns": spread_facts([result]),
        "group": group_facts([result]),
        "streams": {name: stream_facts(found, result) for name, found in result.matches.items()},
        "clock_maps": [
            {
                "source": known.source,
                "target": known.target,
                "drift_ppm": known.drift_ppm,
                "residual_ns": known.residual_ns,
                "note": known.note,
            }
            for known in result.recording.maps
        ],
        "findings": [
            {
                "kind": finding.kind,
                "severity": finding.severity,
                "stream": finding.stream,
                "count": finding.count,
                "text": finding.text,
                "places_ns": list(finding.places_ns),
            }
            for finding in result.findings
        ],
        "quarantine": [
            {
                "ordinal": int(tick),
                "t_ns": int(result.ticks.t_ns[tick]),
                "reasons": [{"stream": name, "why": why} for name, why in result.reasons(int(tick))],
            }
            for tick in result.quarantined()
        ],
    }


def spread_facts(results: Sequence[SyncResult]) -> dict[str, int]:
    """Raw spread of the triggered groups over all ticks: smallest, median, largest, in ns; zeros where there
    is no group.
    """
    spread = np.concatenate([result.raw_spread_ns for result in results])
    if not len(spread):
        return {"min": 0, "p50": 0, "max": 0}
    return {"min": int(spread.min()), "p50": _percentile(spread, 50), "max": int(spread.max())}


def group_facts(results: Sequence[SyncResult]) -> dict[str, Any]:
    """The triggered group as one: its members, and percentiles of |residual| over all of them."""
    names = list(dict.fromkeys(name for result in results for name in result.group))
    residual = np.concatenate(
        [np.empty(0, np.int64)]
        + [
            np.abs(result.matches[name].residual_ns[result.matches[name].found])
            for result in results
            for name in result.group
        ]
    )
    return {
        "streams": names,
        "residual_p50_ns": _percentile(residual, 50),
        "residual_p99_ns": _percentile(residual, 99),
        "residual_max_ns": int(residual.max(initial=0)),
    }


def summary(results: Sequence[SyncResult]) -> dict[str, Any]:
    """All recordings' report: totals, streams pooled by name, and each recording's own."""
    return {
        "ticks": sum(len(result.passed) for result in results),
        "passed": sum(int(result.passed.sum()) for result in results),
        "quarantined": sum(int((~result.passed).sum()) for result in results),
        "raw_spread_ns": spread_facts(results),
        "group": group_facts(results),
        "streams": dict(_pooled(results)),
        "recordings": [recording_facts(result) for result in results],
    }


def _pooled(results: Sequence[SyncResult]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Streams of one name over all recordings; offsets and spreads, which are learned in each, as medians."""
    for name in dict.fromkeys(name for result in results for name in result.matches):
        pairs = [(result.matches[name], result) for result in results if name in result.matches]
        facts = [stream_facts(found, result) for found, result in pairs]
        residual = np.concatenate([np.abs(found.residual_ns[found.found]) for found, _ in pairs])
        yield (
            name,
            _pool(facts)
            | {
                "residual_p50_ns": _percentile(residual, 50),
                "residual_p99_ns": _percentile(residual, 99),
                "residual_max_ns": int(residual.max(initial=0)),
            },
        )


def _pool(facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    counts = {key: sum(fact[key] for fact in facts) for key in ("items", "matched", "absent")}
    medians = {
        key: int(np.median([fact[key] for fact in facts]))
        for key in ("offset_ns", "raw_spread_ns", "period_ns")
    }
    return facts[0] | counts | medians


def pooled_facts(recordings: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Streams pooled from several recordings' facts, where the stamps themselves are no longer at hand.

    Residual percentiles are then the largest of any recording's, which bounds the true ones from above.
    """
    pooled: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for facts in recordings for name in facts["streams"]):
        facts = [entry["streams"][name] for entry in recordings if name in entry["streams"]]
        worst = {
            f"residual_{key}_ns": max(fact[f"residual_{key}_ns"] for fact in facts)
            for key in ("p50", "p99", "max")
        }
        pooled[name] = _pool(facts) | worst
    return pooled


_SCHEMA = pa.schema(
    [
        ("recording", pa.dictionary(pa.int32(), pa.string())),
        ("ordinal", pa.int64()),
        ("tick_ns", pa.int64()),
        ("stream", pa.dictionary(pa.int32(), pa.string())),
        ("count", pa.int64()),
        ("aligned_ns", pa.int64()),
        ("residual_ns", pa.int64()),
        ("offset_ns", pa.int64()),
        ("status", pa.dictionary(pa.int32(), pa.string())),
    ]
)
_STATUS_NAMES = [status.name.lower() for status in Status]


def to_table(results: Sequence[SyncResult]) -> pa.Table:
    """A row per tick and stream."""
    parts = [_match_table(result, found) for result in results for found in result.matches.values()]
    return pa.concat_tables(parts).unify_dictionaries() if parts else _SCHEMA.empty_table()


def _match_table(result: SyncResult, found: Match) -> pa.Table:
    count = len(result.ticks.t_ns)
    zeros = np.zeros(count, np.int32)
    return pa.table(
        [
            pa.DictionaryArray.from_arrays(zeros, [result.recording.name]),
            pa.array(np.arange(count)),
            pa.array(result.ticks.t_ns),
            pa.DictionaryArray.from_arrays(zeros, [found.name]),
            pa.array(found.count),
            pa.array(found.aligned_ns),
            pa.array(found.residual_ns),
            pa.array(np.full(count, found.rule.offset_ns)),
            pa.DictionaryArray.from_arrays(found.status.astype(np.int32), _STATUS_NAMES),
        ],
        schema=_SCHEMA,
    )


def write_parquet(results: Sequence[SyncResult], path: Path) -> None:
    """The table of :func:`to_table` at `path`."""
    pq.write_table(to_table(results), path, compression="zstd")
