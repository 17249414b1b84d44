"""mmpack: builds time-synchronised shards from raw multi-sensor recordings, and packed multimodal training rows
from the shards.

The public names and packages below are imported when they are first used, so `import mmpack` alone is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmpack.lazy import make_dir, make_lazy_getattr

if TYPE_CHECKING:
    from mmpack import (
        clock,
        errors,
        ingest,
        layout,
        masks,
        mixture,
        packing,
        plan,
        recording,
        rows,
        samples,
        shards,
        stream,
        sync,
        verification,
    )
    from mmpack.clock import Clock, ClockMap
    from mmpack.errors import MmpackError
    from mmpack.ingest import BuildConfig, EngineConfig, build_shards
    from mmpack.layout import Layout, LayoutConfig
    from mmpack.plan import Plan, open_plan
    from mmpack.recording import Recording, Stream, open_recordings
    from mmpack.shards import ShardSet
    from mmpack.stream import RowStream, SampleStream
    from mmpack.sync import SyncConfig, SyncResult, synchronise
    from mmpack.verification import verify

__all__ = [
    "BuildConfig",
    "Clock",
    "ClockMap",
    "EngineConfig",
    "Layout",
    "LayoutConfig",
    "MmpackError",
    "Plan",
    "Recording",
    "RowStream",
    "SampleStream",
    "ShardSet",
    "Stream",
    "SyncConfig",
    "SyncResult",
    "build_shards",
    "clock",
    "errors",
    "ingest",
    "layout",
    "masks",
    "mixture",
    "open_plan",
    "open_recordings",
    "packing",
    "plan",
    "recording",
    "rows",
    "samples",
    "shards",
    "stream",
    "sync",
    "synchronise",
    "verification",
    "verify",
]

_load = make_lazy_getattr(
    globals(),
    {
        "clock": "mmpack.clock",
        "errors": "mmpack.errors",
        "ingest": "mmpack.ingest",
        "layout": "mmpack.layout",
        "masks": "mmpack.masks",
        "mixture": "mmpack.mixture",
        "packing": "mmpack.packing",
        "plan": "mmpack.plan",
        "recording": "mmpack.recording",
        "rows": "mmpack.rows",
        "samples": "mmpack.samples",
        "shards": "mmpack.shards",
        "stream": "mmpack.stream",
        "sync": "mmpack.sync",
        "verification": "mmpack.verification",
        "BuildConfig": "mmpack.ingest",
        "Clock": "mmpack.clock",
        "ClockMap": "mmpack.clock",
        "EngineConfig": "mmpack.ingest",
        "Layout": "mmpack.layout",
        "LayoutConfig": "mmpack.layout",
        "MmpackError": "mmpack.errors",
        "Plan": "mmpack.plan",
        "Recording": "mmpack.recording",
        "RowStream": "mmpack.stream",
        "SampleStream": "mmpack.stream",
        "ShardSet": "mmpack.shards",
        "Stream": "mmpack.recording",
        "SyncConfig": "mmpack.sync",
        "SyncResult": "mmpack.sync",
        "build_shards": "mmpack.ingest",
        "open_plan": "mmpack.plan",
        "open_recordings": "mmpack.recording",
        "synchronise": "mmpack.sync",
        "verify": "mmpack.verification",
    },
)
__dir__ = make_dir(__all__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mmpack")
    return _load(name)
