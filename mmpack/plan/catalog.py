"""A build's index as the plan and the reader need it: flat columns, memory-mapped, opened in no time.

index.parquet is read once, batch by batch, and what is needed of it is kept in the cache folder under the index's
own digest. Opening a catalog reads none of it: pages come in as rows are planned.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import IntegrityError
from mmpack.plan.planned import PlannedSample
from mmpack.shards.manifest import INDEX_NAME, Manifest, read_manifest
from mmpack.storage import open_store
from mmpack.storage.array_tables import ArrayTables, cache_folder, open_tables, write_tables
from mmpack.storage.store import Store

#: Raised with every change of the columns.
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
    """The samples of one finished build, by their number in its index.

    Args:
        url: folder or object store URL.

    Raises:
        IntegrityError: there is no finished build, or its index is not what the manifest says.
        StorageError: it cannot be read.

    Attributes:
        store: where the shards are.
        manifest: of the build.
        digest: sha256 of index.parquet, in hex.
        columns: `shard`, `kind` and `recording` as int32 numbers of names, and `offset_bytes`, `size_bytes`, `crc32`,
            `ordinal`, `run`, `residual_ns`, `tokens`, `tokens_text`, each of shape (samples,).
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
        self.columns: ArrayTables = tables if tables is not None else self._read()
        if len(self) != self.manifest.samples:
            raise IntegrityError(
                f"{len(self)} samples, the manifest says {self.manifest.samples}",
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
        """The key of a sample: its recording and its ordinal."""
        recording = self.recordings[self.columns["recording"][number]]
        return f"{recording}-{int(self.columns['ordinal'][number]):08d}"

    def samples(self, numbers: Sequence[int] | NDArray[np.int64], source: int) -> list[PlannedSample]:
        """What the reader needs of samples."""
        shards, kinds, recordings = self.shards, self.kinds, self.recordings
        columns = (self.columns[name][numbers].tolist() for name in _SAMPLE_COLUMNS)
        return [
            PlannedSample(
                source,
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

    def _read(self) -> ArrayTables:
        # Parquet takes longer to import than all else here, and is needed once for each index.
        from mmpack.plan.index_columns import write_columns

        with write_tables(self.folder) as writer:
            write_columns(writer, self.store, self.digest)
        return writer.tables
