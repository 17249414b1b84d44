"""Writer of shards.

A shard is written to a scratch file with running checksums, and published once it is complete. A record of each published
shard lets an interrupted build resume.
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
from mmpack.samples.statistics import NumericStatistics, merge_statistics
from mmpack.serialisation import Record, canonical_json, from_json
from mmpack.shards import index, tar
from mmpack.storage.store import Store, storage_errors

# The buffer gathers headers and short members; larger members go to the file without a copy.
_WRITE_BUFFER = 16 << 10


class ShardRecord(Record, frozen=True, kw_only=True):
    """The record of a published shard. A shard without a record does not belong to the build.

    Fields:
        name: name of the tar.
        size_bytes, sha256: size and digest of the complete tar.
        samples: number of samples in the tar.
        first_key, last_key: keys of the first and the last sample.
        done: number of samples of the task in this shard and the shards before it.
        tokens: number of tokens of the samples under the layout.
        statistics: statistics of each numeric stream.
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
    """Writes the samples of one task to as many shards as they need.

    Args:
        store: store of the shard set.
        task: name of the task; the name of every shard starts with it.
        layout: token layout that counts the tokens.
        shard_bytes: size from which a shard is closed.
        earlier_records: records of the shards that earlier runs of the task published; the numbers of new shards follow.
        on_bytes: is called with the number of bytes of each added sample, for progress.
    """

    def __init__(
        self,
        store: Store,
        task: str,
        layout: Layout,
        *,
        shard_bytes: int,
        earlier_records: list[ShardRecord],
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        self._store, self._task, self._layout = store, task, layout
        self._shard_bytes = shard_bytes
        self.records = list(earlier_records)
        self._on_bytes = on_bytes
        self._scratch: Path | None = None
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._offset = 0
        self._entries: list[index.IndexEntry] = []
        self._locations: list[index.TarLocation] = []
        self._statistics: dict[str, NumericStatistics] = {}

    @property
    def _shard_index(self) -> int:
        return len(self.records)

    @property
    def _shard(self) -> str:
        return shard_name(self._task, self._shard_index)

    def add(
        self,
        entry: index.IndexEntry,
        members: list[tuple[str, bytes]],
        statistics: dict[str, NumericStatistics],
    ) -> None:
        """Appends one sample.

        Args:
            entry: index entry of the sample, without token counts.
            members: (extension, bytes) of each member; written in sorted order as `key.extension`.
            statistics: statistics of the numeric streams of the sample.

        Raises:
            StorageError: the file cannot be written.
            DataError: the name of a member is invalid in a tar.
        """
        chunks: list[bytes] = []
        padding = b""
        for extension, data in sorted(members):
            # The padding of a member and the header of the next one form one chunk: fewer chunks to write and to hash.
            chunks += [padding + tar.make_header(f"{entry.key}.{extension}", len(data)), data]
            padding = tar.make_padding(len(data))
        chunks.append(padding)
        crc, size = 0, 0
        file = self._open()
        with storage_errors(f"{self._store.url}/{self._shard}", "writing"):
            for chunk in chunks:
                file.write(chunk)
                self._hash.update(chunk)
                crc = crc32(chunk, crc)
                size += len(chunk)
        self._entries.append(entry)
        self._locations.append(index.TarLocation(self._shard, self._offset, size, crc))
        self._offset += size
        for name, sample_statistics in statistics.items():
            merged = self._statistics.get(name)
            self._statistics[name] = (
                merge_statistics(merged, sample_statistics) if merged else sample_statistics
            )
        if self._on_bytes is not None:
            self._on_bytes(size)
        if self._offset >= self._shard_bytes:
            self.close_shard()

    def close_shard(self) -> None:
        """Publishes the samples added since the last shard: tar, index part and record, in this order.

        Raises:
            StorageError: a file cannot be written.
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
        counts = self._layout.count_tokens_many([entry.metadata for entry in self._entries])
        part = index.encode_parquet(index.build_index_table(self._entries, self._locations, counts))
        record = ShardRecord(
            name=shard,
            size_bytes=self._offset + len(tar.END_OF_ARCHIVE),
            sha256=self._hash.hexdigest(),
            samples=len(self._entries),
            first_key=self._entries[0].key,
            last_key=self._entries[-1].key,
            done=(self.records[-1].done if self.records else 0) + len(self._entries),
            tokens=sum(count.total for count in counts),
            statistics=self._statistics,
        )
        self._store.publish(self._scratch, shard)
        self._store.write(part_name(self._task, self._shard_index), part)
        self._store.write(record_name(self._task, self._shard_index), canonical_json(record))
        self.records.append(record)
        self._file, self._scratch = None, None
        self._hash, self._offset = hashlib.sha256(), 0
        self._entries, self._locations, self._statistics = [], [], {}

    def discard(self) -> None:
        """Deletes the unfinished shard, which only exists as a scratch file."""
        if self._file is not None and self._scratch is not None:
            # Closing flushes the buffer, which fails on a full disk like the write before it.
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


def shard_name(task: str, shard_index: int) -> str:
    """Returns the name of a shard, `shards/TASK-00000.tar`."""
    return f"shards/{task}-{shard_index:05d}.tar"


def part_name(task: str, shard_index: int) -> str:
    """Returns the name of the file that holds the index rows of a shard until the build is finished."""
    return f"_build/tasks/{task}/{shard_index:05d}.parquet"


def record_name(task: str, shard_index: int) -> str:
    """Returns the name of the record of a shard."""
    return f"_build/tasks/{task}/{shard_index:05d}.json"


def read_records(store: Store, task: str) -> list[ShardRecord]:
    """Reads the records of the shards that earlier runs of a task published, in order, up to the first missing one."""
    records: list[ShardRecord] = []
    while store.exists(name := record_name(task, len(records))):
        records.append(from_json(store.read(name, limit=1 << 20), ShardRecord))
    return records
