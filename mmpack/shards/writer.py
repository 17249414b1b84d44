"""Samples into shards: written aside with running checksums, published whole, recorded so that a killed run
resumes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from isal.isal_zlib import crc32

from mmpack.layout import Layout
from mmpack.samples.statistics import NumericStatistics
from mmpack.samples.statistics import merge_statistics as merge_statistics
from mmpack.serialisation import canonical_json, from_json
from mmpack.settings import Settings
from mmpack.shards import index, tar
from mmpack.storage.store import Store, storage_errors

# Gathers headers and short members; what is larger goes to the file without a copy.
_WRITE_BUFFER = 16 << 10


class ShardRecord(Settings, frozen=True, kw_only=True):
    """What a published shard holds; its existence is what makes the shard count.

    Fields:
        name: of the tar.
        size_bytes, sha256: of the whole tar.
        samples: in it.
        first_key, last_key: of its samples.
        done: how many of the task's samples are published with it and before it.
        tokens: of its samples, under the layout.
        statistics: of its numeric streams.
    """

    name: str
    size_bytes: int
    sha256: str
    samples: int
    first_key: str
    last_key: str
    done: int
    tokens: int
    statistics: dict[str, NumericStatistics] = {}


class ShardWriter:
    """Writes one task's samples into as many shards as they need.

    Args:
        store: the target.
        task: name of the task, which begins every shard's name.
        layout: counts the tokens.
        shard_bytes: a shard is closed once it is at least this large.
        earlier: records of shards that an earlier run of the task published; numbering goes on behind them.
        on_bytes: told the bytes of each sample, for progress.
    """

    def __init__(
        self,
        store: Store,
        task: str,
        layout: Layout,
        *,
        shard_bytes: int,
        earlier: list[ShardRecord],
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        self._store, self._task, self._layout = store, task, layout
        self._shard_bytes = shard_bytes
        self.records = list(earlier)
        self._on_bytes = on_bytes
        self._scratch: Path | None = None
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._offset = 0
        self._rows: list[index.IndexEntry] = []
        self._places: list[index.TarLocation] = []
        self._statistics: dict[str, NumericStatistics] = {}

    @property
    def _number(self) -> int:
        return len(self.records)

    @property
    def _shard(self) -> str:
        return shard_name(self._task, self._number)

    def add(
        self,
        row: index.IndexEntry,
        members: list[tuple[str, bytes]],
        statistics: dict[str, NumericStatistics],
    ) -> None:
        """Appends one sample.

        Args:
            row: its index row.
            members: (extension, bytes); written sorted, as `key.extension`.
            statistics: of its numeric rows.

        Raises:
            StorageError: the target refuses.
            DataError: a member's name does not fit.
        """
        pieces: list[bytes] = []
        padding = b""
        for extension, data in sorted(members):
            # A member's padding and the next one's header go together: fewer pieces to write and to hash.
            pieces += [padding + tar.make_header(f"{row.key}.{extension}", len(data)), data]
            padding = tar.make_padding(len(data))
        pieces.append(padding)
        crc, size = 0, 0
        file = self._open()
        with storage_errors(f"{self._store.url}/{self._shard}", "writing"):
            for piece in pieces:
                file.write(piece)
                self._hash.update(piece)
                crc = crc32(piece, crc)
                size += len(piece)
        self._rows.append(row)
        self._places.append(index.TarLocation(self._shard, self._offset, size, crc))
        self._offset += size
        for name, part in statistics.items():
            before = self._statistics.get(name)
            self._statistics[name] = merge_statistics(before, part) if before else part
        if self._on_bytes is not None:
            self._on_bytes(size)
        if self._offset >= self._shard_bytes:
            self.close_shard()

    def close_shard(self) -> None:
        """Publishes what was added since the last shard: tar, index part, record, in this order. Raises
        StorageError.
        """
        if self._file is None or self._scratch is None:
            return
        shard = self._shard
        with storage_errors(f"{self._store.url}/{shard}", "writing"):
            self._file.write(tar.END_OF_ARCHIVE)
            self._hash.update(tar.END_OF_ARCHIVE)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        counts = self._layout.count_tokens_many([row.metadata for row in self._rows])
        part = index.encode_parquet(index.build_index_table(self._rows, self._places, counts))
        record = ShardRecord(
            name=shard,
            size_bytes=self._offset + len(tar.END_OF_ARCHIVE),
            sha256=self._hash.hexdigest(),
            samples=len(self._rows),
            first_key=self._rows[0].key,
            last_key=self._rows[-1].key,
            done=(self.records[-1].done if self.records else 0) + len(self._rows),
            tokens=sum(count.total for count in counts),
            statistics=self._statistics,
        )
        self._store.publish(self._scratch, shard)
        self._store.write(part_name(self._task, self._number), part)
        self._store.write(record_name(self._task, self._number), canonical_json(record))
        self.records.append(record)
        self._file, self._scratch = None, None
        self._hash, self._offset = hashlib.sha256(), 0
        self._rows, self._places, self._statistics = [], [], {}

    def discard(self) -> None:
        """Drops the unfinished shard; nothing of it has its final name."""
        if self._file is not None and self._scratch is not None:
            # Closing flushes, and on a full disk fails as the write before it did.
            with suppress(OSError):
                self._file.close()
            with suppress(OSError):
                self._scratch.unlink(missing_ok=True)
            self._file, self._scratch = None, None

    def _open(self) -> BinaryIO:
        if self._file is None:
            folder = self._store.scratch_folder(self._task)
            self._scratch = folder / "shard.tar"
            with storage_errors(str(self._scratch), "writing"):
                self._file = self._scratch.open("wb", buffering=_WRITE_BUFFER)
        return self._file


def shard_name(task: str, number: int) -> str:
    """`shards/TASK-00000.tar`."""
    return f"shards/{task}-{number:05d}.tar"


def part_name(task: str, number: int) -> str:
    """The shard's index rows, until the build is finished."""
    return f"_build/tasks/{task}/{number:05d}.parquet"


def record_name(task: str, number: int) -> str:
    """The record whose existence makes a shard count."""
    return f"_build/tasks/{task}/{number:05d}.json"


def read_records(store: Store, task: str) -> list[ShardRecord]:
    """Records of the shards that earlier runs of a task published, in order, up to the first missing one."""
    records: list[ShardRecord] = []
    while store.exists(name := record_name(task, len(records))):
        records.append(from_json(store.read(name, limit=1 << 20), ShardRecord))
    return records
