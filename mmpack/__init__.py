"""mmpack: raw multi-sensor recordings to time-synchronised shards, and from them packed multimodal training
rows.

The public names below are loaded when they are first used: `import mmpack` alone costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmpack.clock import Clock, ClockMap
    from mmpack.errors import MmpackError
    from mmpack.ingest import BuildConfig, build_shards
    from mmpack.layout import Layout, LayoutConfig
    from mmpack.recording import Recording, Stream
    from mmpack.recording.formats import open_recordings
    from mmpack.shards import Shards
    from mmpack.stream import Plan, RowStream, SampleStream, open_plan
    from mmpack.sync import SyncConfig, SyncResult, synchronise
    from mmpack.verification import verify

_HOMES = {
    "BuildConfig": "mmpack.ingest",
    "Clock": "mmpack.clock",
    "ClockMap": "mmpack.clock",
    "Layout": "mmpack.layout",
    "LayoutConfig": "mmpack.layout",
    "MmpackError": "mmpack.errors",
    "Plan": "mmpack.stream",
    "Recording": "mmpack.recording",
    "RowStream": "mmpack.stream",
    "SampleStream": "mmpack.stream",
    "Shards": "mmpack.shards",
    "Stream": "mmpack.recording",
    "SyncConfig": "mmpack.sync",
    "SyncResult": "mmpack.sync",
    "build_shards": "mmpack.ingest",
    "open_plan": "mmpack.stream",
    "open_recordings": "mmpack.recording",
    "synchronise": "mmpack.sync",
    "verify": "mmpack.verification",
}

__all__ = [
    "BuildConfig",
    "Clock",
    "ClockMap",
    "Layout",
    "LayoutConfig",
    "MmpackError",
    "Plan",
    "Recording",
    "RowStream",
    "SampleStream",
    "Shards",
    "Stream",
    "SyncConfig",
    "SyncResult",
    "build_shards",
    "open_plan",
    "open_recordings",
    "synchronise",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mmpack")
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'mmpack' has no attribute '{name}'") from None
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
