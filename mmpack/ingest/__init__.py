"""Builds of shard sets from recordings and stand-alone sources, resumable, on one machine or many."""

from mmpack.ingest.build import BuildOutcome, build_shards
from mmpack.ingest.engines import EngineConfig
from mmpack.ingest.tasks.build_config import BuildConfig, ShardsConfig, SourceConfig
from mmpack.ingest.tasks.reporter import BuildReporter, TaskProgress
from mmpack.lazy import make_dir

__all__ = [
    "BuildConfig",
    "BuildOutcome",
    "BuildReporter",
    "EngineConfig",
    "ShardsConfig",
    "SourceConfig",
    "TaskProgress",
    "build_shards",
]

__dir__ = make_dir(__all__)
