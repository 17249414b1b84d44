"""build-shards: recordings and stand-alone samples to verified shards, on one machine or many, resumable."""

from mmpack.ingest.build import Outcome, build_shards
from mmpack.ingest.tasks.build_config import BuildConfig, SamplesConfig, ShardsConfig

__all__ = ["BuildConfig", "Outcome", "SamplesConfig", "ShardsConfig", "build_shards"]
