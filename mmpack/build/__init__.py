"""build-shards: recordings and stand-alone samples to verified shards, on one machine or many, resumable."""

from mmpack.build.config import BuildConfig, SamplesConfig, ShardsConfig
from mmpack.build.run import Outcome, build_shards

__all__ = ["BuildConfig", "Outcome", "SamplesConfig", "ShardsConfig", "build_shards"]
