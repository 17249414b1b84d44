"""Shards: plain WebDataset tars with a Parquet index and a manifest; writing, reading and verifying them."""

from mmpack.shards.manifest import Manifest
from mmpack.shards.reader import Shards
from mmpack.shards.verify import Verdict, verify

__all__ = ["Manifest", "Shards", "Verdict", "verify"]
