"""A synchronisation report for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mmpack.clock import format_ns
from mmpack.sync.policies.policy import JudgedBy
from mmpack.sync.policies.registry import POLICIES

#: Largest number of quarantined slices that the text lists; JSON and Parquet contain all.
MAX_LISTED = 20


def render_sync_report(report: dict[str, Any], *, from_reports: bool = False) -> RenderableType:
    """Renders a synchronisation report for a terminal.

    Args:
        report: report of one or more recordings.
        from_reports: True if the streams were pooled by :func:`mmpack.sync.sync_report.pool_stream_reports`. Their p50
            and p99 are then the largest of any recording, and the headings say so.
    """
    parts: list[RenderableType] = []
    recordings = report["recordings"]
    for recording in recordings:
        parts += _render_recording(recording)
    if len(recordings) > 1:
        prefix = "largest " if from_reports else ""
        parts.append(_streams_table(report["streams"], f"all {len(recordings)} recordings", prefix))
        if report.get("raw_spread_ns", {}).get("max"):
            parts.append(_spread_line(report))
        parts.append(_passed_line(report))
    return Group(*parts)


def _render_recording(report: dict[str, Any]) -> Iterator[RenderableType]:
    clock = report["clock"]
    span = (report["last_tick_ns"] - report["first_tick_ns"]) / 1e9
    # Names come from files of the user. Text shows them literally; a markup string would be interpreted.
    yield Text.assemble(
        (report["recording"], "bold"),
        f"  tick: {report['reference']}, every {format_ns(report['tick_period_ns'])}, {span:.1f} s on clock "
        f"{clock['name']} ({clock['domain']})",
    )
    yield _streams_table(report["streams"], "")
    clocks = {(stream["clock"], stream["clock_domain"]) for stream in report["streams"].values()}
    if len(clocks) > 1:
        named = ", ".join(f"{name} ({domain})" for name, domain in sorted(clocks))
        yield Text(f"  clocks: {named}")
    for clock_map in report["clock_maps"]:
        note = f", {clock_map['note']}" if clock_map["note"] else ""
        yield Text(
            f"  clock map {clock_map['source']} to {clock_map['target']}: {clock_map['drift_ppm']:+.3f} ppm, "
            f"residual p99 {format_ns(clock_map['residual_ns'])}{note}"
        )
    if report["raw_spread_ns"]["max"]:
        yield _spread_line(report)
    for finding in report["findings"]:
        colour = "yellow" if finding["severity"] == "problem" else "cyan"
        yield Text.assemble("  ", (finding["kind"], colour), f" {finding['stream']}: {finding['text']}")
    for entry in report["quarantine"][:MAX_LISTED]:
        reasons = "; ".join(f"{reason['stream']}: {reason['why']}" for reason in entry["reasons"])
        yield Text(
            f"  quarantined slice {entry['ordinal']} at {entry['t_ns'] / 1e9:.3f} s: {reasons}", style="red"
        )
    if len(report["quarantine"]) > MAX_LISTED:
        yield Text(
            f"  ... and {len(report['quarantine']) - MAX_LISTED} more (all are in the JSON)", style="red"
        )
    yield _passed_line(report)


def _spread_line(report: dict[str, Any]) -> Text:
    spread, group = report["raw_spread_ns"], report["group"]
    return Text(
        f"  group of {len(group['streams'])}: raw spread {format_ns(spread['min'])} to {format_ns(spread['max'])} before offsets, "
        f"residual after them p50 {format_ns(group['residual_p50_ns'])}, p99 {format_ns(group['residual_p99_ns'])}, "
        f"max {format_ns(group['residual_max_ns'])}"
    )


def _passed_line(report: dict[str, Any]) -> Text:
    colour = "green" if not report["quarantined"] else "yellow"
    counts = f"{report['passed']} of {report['ticks']} slices in sync, {report['quarantined']} quarantined"
    return Text.assemble((counts, colour), "\n")


def _streams_table(streams: dict[str, Any], title: str, percentile_prefix: str = "") -> Table:
    """Returns a table with one line per stream; `percentile_prefix` stands before the headings of p50 and p99."""
    table = Table(title=title or None, title_justify="left", box=None, padding=(0, 2, 0, 2))
    for column in ("stream", "policy"):
        table.add_column(column)
    percentiles = f"residual {percentile_prefix}p50", f"{percentile_prefix}p99"
    for column in ("items", "rate", "matched", "offset", *percentiles, "max", "tolerance"):
        table.add_column(column, justify="right")
    for name, stream in streams.items():
        rate = f"{10**9 / stream['period_ns']:.5g} Hz" if stream["period_ns"] else ""
        # A shard set may have been built with a policy that this installation does not have.
        policy = POLICIES.get(stream["policy"])
        has_residual = policy is not None and policy.judged_by.has_residual
        has_tolerance = policy is not None and policy.judged_by is JudgedBy.RESIDUAL
        learned = " (learned)" if stream["offset_source"] == "learned" else ""
        table.add_row(
            Text(name),
            stream["policy"] + ("" if stream["required"] else " (optional)"),
            str(stream["items"]),
            rate,
            str(stream["matched"]),
            format_ns(stream["offset_ns"]) + learned,
            *(
                format_ns(stream[f"residual_{key}_ns"]) if has_residual else ""
                for key in ("p50", "p99", "max")
            ),
            format_ns(stream["tolerance_ns"]) if has_tolerance else "",
        )
    return table
