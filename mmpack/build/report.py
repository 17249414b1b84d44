"""The report of a finished build: its manifest, its index and the sync of its recordings, for machines and
people.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mmpack.shards import Shards, index
from mmpack.shards.manifest import read_sync_reports
from mmpack.sync.report import pooled_facts, render


def build_report(shards: Shards) -> dict[str, Any]:
    """Everything there is to say of a build, as plain JSON values. Raises StorageError, IntegrityError."""
    manifest, table = shards.manifest, shards.index
    recordings = read_sync_reports(shards.store)
    tokens = table["tokens"].to_numpy()
    return {
        "out": shards.store.url,
        "samples": manifest.samples,
        "slices": manifest.slices,
        "quarantined": manifest.quarantined,
        "tokens": manifest.tokens,
        "tokens_by_modality": manifest.tokens_by_modality,
        "tokens_per_sample": _quantiles(tokens),
        "samples_by_kind": _counted(table["kind"]),
        "shards": len(manifest.shards),
        "size_bytes": sum(shard.size_bytes for shard in manifest.shards),
        "layout_fingerprint": manifest.layout_fingerprint,
        "numeric": manifest.numeric,
        "sync": {
            "ticks": sum(facts["ticks"] for facts in recordings),
            "passed": sum(facts["passed"] for facts in recordings),
            "quarantined": sum(facts["quarantined"] for facts in recordings),
            "streams": pooled_facts(recordings),
            "recordings": recordings,
        },
    }


def _quantiles(tokens: np.ndarray) -> dict[str, int]:
    if not len(tokens):
        return {"min": 0, "p50": 0, "p99": 0, "max": 0}
    p50, p99 = np.percentile(tokens, [50, 99])
    return {"min": int(tokens.min()), "p50": int(p50), "p99": int(p99), "max": int(tokens.max())}


def _counted(column: pa.ChunkedArray) -> dict[str, int]:
    return {
        str(entry["values"]): entry["counts"] for entry in column.cast(pa.string()).value_counts().to_pylist()
    }


def draw_build(shards: Shards, facts: dict[str, Any], path: Path) -> None:
    """The sync picture of a build, from its sync.parquet."""
    from mmpack.sync.picture import draw

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
