"""Reader and writer of shard sets: plain WebDataset tars with a Parquet index and a manifest."""

from typing import TYPE_CHECKING

from mmpack.lazy import make_dir, make_lazy_getattr

if TYPE_CHECKING:
    from mmpack.shards.manifest import Manifest
    from mmpack.shards.reader import ShardSet

__all__ = ["Manifest", "ShardSet"]

# Lazy imports: code that only reads the bytes of samples does not load Parquet.
__getattr__ = make_lazy_getattr(
    globals(),
    {
        "Manifest": "mmpack.shards.manifest",
        "ShardSet": "mmpack.shards.reader",
    },
)
__dir__ = make_dir(__all__)
