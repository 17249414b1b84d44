"""Reader of a shard set by key: one range read per sample, checked against the index."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mmpack.errors import DataError, IntegrityError
from mmpack.shards import index
from mmpack.shards.manifest import Manifest, read_manifest
from mmpack.shards.sample_bytes import MAX_SAMPLE_BYTES, split_members
from mmpack.storage import open_store
from mmpack.storage.store import Store


class ShardSet:
    """A shard set in a folder or object store.

    Args:
        url: folder or object store URL.

    Raises:
        IntegrityError: there is no finished shard set, or its manifest is damaged.
    """

    def __init__(self, url: str) -> None:
        self.store: Store = open_store(url)
        self.manifest: Manifest = read_manifest(self.store)

    @cached_property
    def index(self) -> pa.Table:
        """The index: one row per sample, with the columns of `mmpack.shards.index.INDEX_SCHEMA`.

        Raises:
            StorageError: the index cannot be read.
            IntegrityError: the file is damaged or has other columns.
        """
        table = index.read_parquet(self.store, index.INDEX_NAME)
        return index.require_schema(table, index.INDEX_SCHEMA, where=f"{self.store.url}/{index.INDEX_NAME}")

    @property
    def urls(self) -> list[str]:
        """The path or URL of every shard, in order, as `webdataset.WebDataset` takes them."""
        return [f"{self.store.url}/{shard.name}" for shard in self.manifest.shards]

    def read(self, row: dict[str, Any]) -> dict[str, bytes]:
        """Reads the members of one sample, by extension.

        Args:
            row: index row of the sample, as a dict.

        Raises:
            IntegrityError: the bytes differ from those that were written.
            StorageError: the shard cannot be read.
        """
        if not 0 <= row["size_bytes"] <= MAX_SAMPLE_BYTES:
            raise IntegrityError(f"the index claims a sample of {row['size_bytes']} bytes", where=row["key"])
        data = self.store.read_range(row["shard"], row["offset_bytes"], row["size_bytes"])
        return read_members(data, row)

    def sample(self, key: str) -> dict[str, bytes]:
        """Reads the members of the sample `key`, by extension. Raises DataError if there is no such key."""
        matches = self.index.filter(pc.field("key") == key)
        if not matches.num_rows:
            raise DataError(f"no sample '{key}'", where=self.store.url)
        return self.read(matches.slice(0, 1).to_pylist()[0])


def read_members(data: bytes | memoryview, row: dict[str, Any]) -> dict[str, bytes]:
    """Splits the tar bytes of a sample into its members and checks them against the index row. Raises IntegrityError."""
    return split_members(data, row["key"], row["shard"], row["offset_bytes"], row["crc32"])
