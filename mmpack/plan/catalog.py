"""The index of a shard set as flat, memory-mapped columns for the plan and the reader.

index.parquet is read once, batch by batch, and its columns are stored in the cache folder under the digest of the
index. Opening a catalog from the cache reads no column data: pages are loaded as rows are planned.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import IntegrityError
from mmpack.plan.planned_rows import PlannedSample
from mmpack.shards.manifest import INDEX_NAME, Manifest, read_manifest
from mmpack.storage import open_store
from mmpack.storage.array_tables import ArrayTables, cache_folder, open_tables, write_tables
from mmpack.storage.store import Store

#: Version of the cached columns; increase it with every change of them.
_VERSION = 1
_SAMPLE_COLUMNS = (
    "recording",
    "ordinal",
    "kind",
    "shard",
    "offset_bytes",
    "size_bytes",
    "crc32",
    "tokens",
    "tokens_text",
)


class IndexCatalog:
    """The samples of one shard set, by their number in its index, from 0.

    Args:
        url: folder or object store URL of the shard set.

    Raises:
        IntegrityError: the shard set is not finished, or its index does not match the manifest.
        StorageError: the shard set cannot be read.

    Attributes:
        store: store that holds the shards.
        manifest: manifest of the shard set.
        digest: sha256 of index.parquet, in hexadecimal.
        folder: cache folder of the columns.
        columns: `shard`, `kind` and `recording` as int32 indices of names, and `offset_bytes`, `size_bytes`, `crc32`,
            `ordinal`, `run`, `residual_ns`, `tokens`, `tokens_text`; each has shape (samples,).
        shards, kinds, recordings: the names to which the indices of the columns `shard`, `kind` and `recording` refer.
    """

    def __init__(self, url: str) -> None:
        self.store: Store = open_store(url)
        self.manifest: Manifest = read_manifest(self.store)
        self.digest = self.manifest.files.get(INDEX_NAME, "")
        if len(self.digest) != 64 or not self.digest.isalnum():
            raise IntegrityError(
                f"the manifest has no digest of {INDEX_NAME}",
                where=self.store.url,
                hint="Build the shards again.",
            )
        self.folder: Path = cache_folder() / f"index-{self.digest[:32]}-v{_VERSION}"
        tables = open_tables(self.folder)
        self.columns: ArrayTables = tables if tables is not None else self._build_columns()
        if len(self) != self.manifest.samples:
            raise IntegrityError(
                f"the index has {len(self)} samples, the manifest says {self.manifest.samples}",
                where=f"{self.store.url}/{INDEX_NAME}",
                hint="Build the shards again.",
            )
        names = self.columns.meta["names"]
        self.shards: list[str] = names["shard"]
        self.kinds: list[str] = names["kind"]
        self.recordings: list[str] = names["recording"]

    def __len__(self) -> int:
        return len(self.columns["tokens"])

    def key(self, number: int) -> str:
        """Returns the key of a sample: its recording and its ordinal."""
        recording = self.recordings[self.columns["recording"][number]]
        return f"{recording}-{int(self.columns['ordinal'][number]):08d}"

    def samples(self, numbers: Sequence[int] | NDArray[np.int64], shard_set: int) -> list[PlannedSample]:
        """Returns samples as the reader needs them.

        Args:
            numbers: numbers of the samples in the index.
            shard_set: index of this shard set in the plan.
        """
        shards, kinds, recordings = self.shards, self.kinds, self.recordings
        columns = (self.columns[name][numbers].tolist() for name in _SAMPLE_COLUMNS)
        # Positional arguments: keywords would cost a third more, and a plan builds thousands of samples per second.
        return [
            PlannedSample(
                shard_set,
                number,
                f"{recordings[recording]}-{ordinal:08d}",
                kinds[kind],
                shards[shard],
                offset_bytes,
                size_bytes,
                crc32,
                tokens,
                tokens_text,
            )
            for number, (
                recording,
                ordinal,
                kind,
                shard,
                offset_bytes,
                size_bytes,
                crc32,
                tokens,
                tokens_text,
            ) in zip(np.asarray(numbers).tolist(), zip(*columns, strict=True), strict=True)
        ]

    def _build_columns(self) -> ArrayTables:
        # pyarrow is slow to import and is needed only once for each index.
        from mmpack.plan.index_columns import write_columns

        with write_tables(self.folder) as writer:
            write_columns(writer, self.store, self.digest)
        return writer.tables
