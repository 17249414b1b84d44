"""Shards: plain WebDataset tars with a Parquet index and a manifest; writing and reading them."""

from typing import TYPE_CHECKING

from mmpack.lazy import loader

if TYPE_CHECKING:
    from mmpack.shards.manifest import Manifest
    from mmpack.shards.reader import Shards

__all__ = ["Manifest", "Shards"]

# Who reads samples needs neither decoders nor Parquet.
__getattr__ = loader(
    globals(),
    {
        "Manifest": "mmpack.shards.manifest",
        "Shards": "mmpack.shards.reader",
    },
)
