"""Converts a synchronisation result to JSON values and to a Parquet table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmpack.sync.policies.match import MatchStatus, StreamMatch
from mmpack.sync.synchronise import SyncResult


def stream_report(match: StreamMatch, result: SyncResult) -> dict[str, Any]:
    """Returns the report of one stream as plain JSON values: how it was matched, counts, and times in integer ns.

    Residual percentiles are percentiles of |residual|.
    """
    residual = np.abs(match.residual_ns[match.has_item])
    timestamps = match.stream.stream.timestamps
    period_ns = match.stream.period_ns
    return {
        "kind": match.stream.stream.kind,
        "policy": match.rule.policy,
        "required": match.rule.required,
        "clock": match.stream.stream.clock.name,
        "clock_domain": match.stream.stream.clock.domain,
        "semantics": match.stream.stream.semantics,
        "timestamps_from": timestamps.origin,
        "resolution_ns": timestamps.resolution_ns,
        "items": _count_items(match),
        "period_ns": period_ns,
        "matched": int((match.status == MatchStatus.OK).sum()),
        "absent": int((match.status != MatchStatus.OK).sum()),
        "tolerance_ns": match.rule.tolerance_ns,
        "offset_ns": match.rule.offset_ns,
        "offset_source": match.rule.offset_source,
        "limit_ns": match.rule.limit_ns,
        "before_ns": match.rule.before_ns,
        "after_ns": match.rule.after_ns,
        "residual_p50_ns": _percentile(residual, 50),
        "residual_p99_ns": _percentile(residual, 99),
        "residual_max_ns": int(residual.max(initial=0)),
        "raw_spread_ns": _median_raw_spread_ns(match, result),
    }


def _count_items(match: StreamMatch) -> int:
    """Returns the number of items of the stream; for audio the number of audio samples."""
    if match.stream.stream.kind == "audio":
        return int(match.stream.stream.audio_timeline.samples.sum())
    return len(match.stream.stream.timestamps)


def _median_raw_spread_ns(match: StreamMatch, result: SyncResult) -> int:
    """Returns the median over ticks of the raw spread: latest minus earliest timestamp of the triggered group for a
    member of that group, the distance from the tick for any other stream.
    """
    if match.name in result.group and len(result.raw_spread_ns):
        return _percentile(result.raw_spread_ns, 50)
    distance = np.abs(match.aligned_ns - result.ticks.t_ns)[match.has_item]
    return _percentile(distance, 50)


def _percentile(values: NDArray[np.int64], percent: float) -> int:
    return int(np.percentile(values, percent)) if len(values) else 0


def recording_report(result: SyncResult) -> dict[str, Any]:
    """Returns the report of one recording as plain JSON values."""
    return {
        "recording": result.recording.name,
        "path": result.recording.path,
        "reference": result.ticks.description,
        "clock": {"name": result.clock.name, "domain": result.clock.domain},
        "tick_period_ns": result.ticks.period_ns,
        "first_tick_ns": int(result.ticks.t_ns[0]),
        "last_tick_ns": int(result.ticks.t_ns[-1]),
        "ticks": len(result.ticks.t_ns),
        "passed": int(result.passed.sum()),
        "quarantined": int((~result.passed).sum()),
        "raw_spread_ns": spread_report([result]),
        "group": group_report([result]),
        "streams": {name: stream_report(match, result) for name, match in result.matches.items()},
        "clock_maps": [
            {
                "source": clock_map.source,
                "target": clock_map.target,
                "drift_ppm": clock_map.drift_ppm,
                "residual_ns": clock_map.residual_ns,
                "note": clock_map.note,
            }
            for clock_map in result.recording.maps
        ],
        "findings": [
            {
                "kind": finding.kind,
                "severity": finding.severity,
                "stream": finding.stream,
                "count": finding.count,
                "text": finding.text,
                "times_ns": list(finding.times_ns),
            }
            for finding in result.findings
        ],
        "quarantine": [
            {
                "ordinal": int(tick),
                "t_ns": int(result.ticks.t_ns[tick]),
                "reasons": [{"stream": name, "why": why} for name, why in result.failure_reasons(int(tick))],
            }
            for tick in result.quarantined_ordinals()
        ],
    }


def spread_report(results: Sequence[SyncResult]) -> dict[str, int]:
    """Returns the smallest, median and largest raw spread of the triggered groups over all ticks, in ns; zeros
    without such a group.
    """
    spread = np.concatenate([result.raw_spread_ns for result in results])
    if not len(spread):
        return {"min": 0, "p50": 0, "max": 0}
    return {"min": int(spread.min()), "p50": _percentile(spread, 50), "max": int(spread.max())}


def group_report(results: Sequence[SyncResult]) -> dict[str, Any]:
    """Returns the names of the members of the triggered groups, and percentiles of |residual| over all members."""
    names = list(dict.fromkeys(name for result in results for name in result.group))
    residual = np.concatenate(
        [np.empty(0, np.int64)]
        + [
            np.abs(result.matches[name].residual_ns[result.matches[name].has_item])
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


def sync_report(results: Sequence[SyncResult]) -> dict[str, Any]:
    """Returns the report of all recordings: totals, streams pooled by name, and the report of each recording."""
    return {
        "ticks": sum(len(result.passed) for result in results),
        "passed": sum(int(result.passed.sum()) for result in results),
        "quarantined": sum(int((~result.passed).sum()) for result in results),
        "raw_spread_ns": spread_report(results),
        "group": group_report(results),
        "streams": dict(_pool_by_name(results)),
        "recordings": [recording_report(result) for result in results],
    }


def _pool_by_name(results: Sequence[SyncResult]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the name and the pooled report of each stream. Offsets and spreads, which differ between recordings, are
    medians.
    """
    for name in dict.fromkeys(name for result in results for name in result.matches):
        pairs = [(result.matches[name], result) for result in results if name in result.matches]
        reports = [stream_report(match, result) for match, result in pairs]
        residual = np.concatenate([np.abs(match.residual_ns[match.has_item]) for match, _ in pairs])
        yield (
            name,
            _pool_reports(reports)
            | {
                "residual_p50_ns": _percentile(residual, 50),
                "residual_p99_ns": _percentile(residual, 99),
                "residual_max_ns": int(residual.max(initial=0)),
            },
        )


def _pool_reports(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the first report with counts summed and offset, spread and period replaced by their medians."""
    counts = {key: sum(report[key] for report in reports) for key in ("items", "matched", "absent")}
    medians = {
        key: int(np.median([report[key] for report in reports]))
        for key in ("offset_ns", "raw_spread_ns", "period_ns")
    }
    return reports[0] | counts | medians


def pool_stream_reports(recordings: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns the reports of all streams pooled by name, from the reports of several recordings.

    The residuals themselves are not available here. The pooled percentiles are therefore the largest of any
    recording, an upper bound of the true ones.
    """
    pooled: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for recording in recordings for name in recording["streams"]):
        reports = [recording["streams"][name] for recording in recordings if name in recording["streams"]]
        worst = {
            f"residual_{key}_ns": max(report[f"residual_{key}_ns"] for report in reports)
            for key in ("p50", "p99", "max")
        }
        pooled[name] = _pool_reports(reports) | worst
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
_STATUS_NAMES = [status.name.lower() for status in MatchStatus]


def to_table(results: Sequence[SyncResult]) -> pa.Table:
    """Returns a table with one row per recording, stream and tick."""
    parts = [_match_table(result, match) for result in results for match in result.matches.values()]
    return pa.concat_tables(parts).unify_dictionaries() if parts else _SCHEMA.empty_table()


def _match_table(result: SyncResult, match: StreamMatch) -> pa.Table:
    count = len(result.ticks.t_ns)
    zeros = np.zeros(count, np.int32)
    return pa.table(
        [
            pa.DictionaryArray.from_arrays(zeros, [result.recording.name]),
            pa.array(np.arange(count)),
            pa.array(result.ticks.t_ns),
            pa.DictionaryArray.from_arrays(zeros, [match.name]),
            pa.array(match.count),
            pa.array(match.aligned_ns),
            pa.array(match.residual_ns),
            pa.array(np.full(count, match.rule.offset_ns)),
            pa.DictionaryArray.from_arrays(match.status.astype(np.int32), _STATUS_NAMES),
        ],
        schema=_SCHEMA,
    )


def write_parquet(results: Sequence[SyncResult], path: Path) -> None:
    """Writes the table of :func:`to_table` to `path`."""
    pq.write_table(to_table(results), path, compression="zstd")
