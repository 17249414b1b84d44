"""Report of a finished shard set: its manifest, its index and the sync reports of its recordings as JSON values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from mmpack.shards import ShardSet
from mmpack.shards.manifest import read_sync_reports
from mmpack.sync.sync_report import pool_stream_reports


def build_report(shards: ShardSet) -> dict[str, Any]:
    """Builds the report of a shard set as plain JSON values. Raises StorageError, IntegrityError."""
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
        "samples_by_kind": _count_values(table["kind"]),
        "shards": len(manifest.shards),
        "size_bytes": sum(shard.size_bytes for shard in manifest.shards),
        "layout_fingerprint": manifest.layout_fingerprint,
        "numeric": manifest.numeric,
        "sync": {
            "ticks": sum(report["ticks"] for report in recordings),
            "passed": sum(report["passed"] for report in recordings),
            "quarantined": sum(report["quarantined"] for report in recordings),
            "streams": pool_stream_reports(recordings),
            "recordings": recordings,
        },
    }


def _quantiles(tokens: np.ndarray) -> dict[str, int]:
    if not len(tokens):
        return {"min": 0, "p50": 0, "p99": 0, "max": 0}
    p50, p99 = np.percentile(tokens, [50, 99])
    return {"min": int(tokens.min()), "p50": int(p50), "p99": int(p99), "max": int(tokens.max())}


def _count_values(column: pa.ChunkedArray) -> dict[str, int]:
    return {
        str(entry["values"]): entry["counts"] for entry in column.cast(pa.string()).value_counts().to_pylist()
    }
