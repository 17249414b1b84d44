"""The report of a shard set for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mmpack.show.sync_table import render_sync_report


def render_build_report(report: dict[str, Any]) -> RenderableType:
    """Renders a report of a shard set for a terminal."""
    totals = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    kinds = ", ".join(f"{count} {kind}" for kind, count in report["samples_by_kind"].items())
    per_sample = report["tokens_per_sample"]
    totals.add_row("samples", f"{report['samples']} ({kinds})")
    totals.add_row("tokens", f"{report['tokens']} ({_shares(report)})")
    totals.add_row("per sample", " ".join(f"{name} {value}" for name, value in per_sample.items()))
    totals.add_row("shards", f"{report['shards']}, {report['size_bytes'] / 1e6:.1f} MB")
    totals.add_row("layout", report["layout_fingerprint"][:16])
    parts: list[RenderableType] = [Text(report["out"], style="bold"), totals, Text("")]
    if report["sync"]["recordings"]:
        parts.append(render_sync_report(report["sync"], from_reports=True))
    return Group(*parts)


def _shares(report: dict[str, Any]) -> str:
    total = max(report["tokens"], 1)
    return ", ".join(
        f"{name} {count / total:.1%}" for name, count in report["tokens_by_modality"].items() if count
    )
