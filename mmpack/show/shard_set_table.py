"""A shard-set report for a terminal, and its sync plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mmpack.shards import Shards, index
from mmpack.show.sync_table import render


def draw_build(shards: Shards, facts: dict[str, Any], path: Path) -> None:
    """The sync picture of a build, from its sync.parquet."""
    from mmpack.show.sync_plot import draw

    draw(index.read_table(shards.store, index.SYNC_NAME), facts["sync"], path)


def render_build(facts: dict[str, Any]) -> RenderableType:
    """A report of :func:`build_report` for a terminal."""
    totals = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    kinds = ", ".join(f"{number} {kind}" for kind, number in facts["samples_by_kind"].items())
    per_sample = facts["tokens_per_sample"]
    totals.add_row("samples", f"{facts['samples']} ({kinds})")
    totals.add_row("tokens", f"{facts['tokens']} ({_shares(facts)})")
    totals.add_row("per sample", " ".join(f"{name} {value}" for name, value in per_sample.items()))
    totals.add_row("shards", f"{facts['shards']}, {facts['size_bytes'] / 1e6:.1f} MB")
    totals.add_row("layout", facts["layout_fingerprint"][:16])
    parts: list[RenderableType] = [Text(facts["out"], style="bold"), totals, Text("")]
    if facts["sync"]["recordings"]:
        parts.append(render(facts["sync"]))
    return Group(*parts)


def _shares(facts: dict[str, Any]) -> str:
    total = max(facts["tokens"], 1)
    return ", ".join(
        f"{name} {count / total:.1%}" for name, count in facts["tokens_by_modality"].items() if count
    )
