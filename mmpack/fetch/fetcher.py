"""The bytes of a planned row's samples: neighbours in one read, each sample checked."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from mmpack.errors import IntegrityError, MmpackError, StorageError
from mmpack.fetch.disk_cache import DiskCache, cache_entry_name
from mmpack.fetch.malloc import raise_malloc_threshold
from mmpack.plan.plan_config import ReaderConfig
from mmpack.plan.planned import PlannedRow, PlannedSample
from mmpack.settings import parse_size
from mmpack.shards.sample_bytes import MAX_SAMPLE_BYTES, split_members
from mmpack.storage.local import LocalStore
from mmpack.storage.open_files import OpenFiles
from mmpack.storage.retry import retry
from mmpack.storage.store import PermanentStorageError, Store, check_name, storage_errors

MAX_READ_BYTES = 8 << 20
"""Samples are read together up to this size. More gains nothing: an object store serves several such requests at once
faster than a single large one, and of local files this much still fits a processor's cache."""
MAX_REQUESTS = 16
"""Requests to object stores at a time."""

SampleKey: TypeAlias = tuple[int, int]
"""(source, number) of a sample."""
SampleMembers: TypeAlias = dict[str, bytes]
"""A sample's members by their extension."""
FetchedSamples: TypeAlias = dict[SampleKey, SampleMembers | MmpackError]
"""What became of each sample of a row."""


class RangeRead(NamedTuple):
    """One stretch of one shard and the samples in it.

    Attributes:
        source, shard: where.
        start, stop: bytes [start, stop).
        samples: by their offset.
    """

    source: int
    shard: str
    start: int
    stop: int
    samples: tuple[PlannedSample, ...]


_LOCATION_KEY = attrgetter("shard_set", "shard", "offset_bytes")


def plan_reads(samples: Iterable[PlannedSample], gap_bytes: int) -> list[RangeRead]:
    """The reads that bring all `samples`, by source, shard and offset.

    Args:
        samples: each once, in any order.
        gap_bytes: what may lie between two samples of one read.
    """
    samples = list(samples)
    if len(samples) == 1:
        return [_single_read(samples[0])]
    reads: list[RangeRead] = []
    group: list[PlannedSample] = []
    start = stop = 0
    for sample in sorted(samples, key=_LOCATION_KEY):
        end = sample.offset_bytes + sample.size_bytes
        together = (
            group
            and (sample.shard_set, sample.shard) == (group[0].shard_set, group[0].shard)
            and sample.offset_bytes - stop <= gap_bytes
            and max(end, stop) - start <= MAX_READ_BYTES
        )
        if not together:
            if group:
                reads.append(RangeRead(group[0].shard_set, group[0].shard, start, stop, tuple(group)))
            group, start, stop = [], sample.offset_bytes, end
        group.append(sample)
        stop = max(stop, end)
    if group:
        reads.append(RangeRead(group[0].shard_set, group[0].shard, start, stop, tuple(group)))
    return reads


def _single_read(sample: PlannedSample) -> RangeRead:
    start = sample.offset_bytes
    return RangeRead(sample.shard_set, sample.shard, start, start + sample.size_bytes, (sample,))


class _ScratchBuffer(threading.local):
    """Memory that a thread reads into again and again: the system would clear new memory page by page each time."""

    def __init__(self) -> None:
        # Not cleared: of this much only what is read into is ever there.
        self.room = np.empty(MAX_READ_BYTES, np.uint8).data


class Fetcher:
    """Reads the samples of rows; may be used by several threads at once.

    Args:
        stores: of the plan's builds, by `PlannedSample.source`.
        settings: `gap`, `retries`, `cache` and `cache_size` are used.

    Raises:
        ConfigError: a size that cannot be read.
    """

    def __init__(self, stores: Sequence[Store], settings: ReaderConfig) -> None:
        raise_malloc_threshold()
        self._stores = tuple(stores)
        self._gap_bytes = parse_size(settings.gap, where="reader.gap")
        self._retries = settings.retries
        self._cache: DiskCache | None = None
        if settings.cache:
            limit_bytes = parse_size(settings.cache_size, where="reader.cache_size")
            self._cache = DiskCache(Path(settings.cache), limit_bytes)
        self._files = OpenFiles()
        self._paths: dict[tuple[str, str], str] = {}
        self._scratch = _ScratchBuffer()
        self._stop = threading.Event()
        self._requests: ThreadPoolExecutor | None = None
        if any(not isinstance(store, LocalStore) for store in self._stores):
            self._requests = ThreadPoolExecutor(MAX_REQUESTS, thread_name_prefix="mmpack-fetch")

    def fetch(self, row: PlannedRow) -> FetchedSamples:
        """The members of every sample of `row`, or why it cannot be read.

        A sample's error is an IntegrityError (its bytes are not those that were written) or a StorageError (they
        cannot be had). A sample that occurs twice in the row is read once.

        Raises:
            ConfigError: an object store's settings are wrong.
        """
        wanted = {
            (sample.shard_set, sample.number): sample
            for document in row.documents
            for sample in document.samples
        }
        return self.read(wanted.values())

    def read(self, samples: Iterable[PlannedSample]) -> FetchedSamples:
        """The same of any samples, each of them once."""
        found: FetchedSamples = {}
        missing: list[PlannedSample] = []
        for sample in samples:
            if not (0 <= sample.size_bytes <= MAX_SAMPLE_BYTES and sample.offset_bytes >= 0):
                found[sample.shard_set, sample.number] = IntegrityError(
                    f"the index claims {sample.size_bytes} bytes at {sample.offset_bytes}", where=sample.key
                )
            elif self._cache is not None and (members := self._cached(self._cache, sample)) is not None:
                found[sample.shard_set, sample.number] = members
            else:
                missing.append(sample)
        local: list[RangeRead] = []
        remote: list[RangeRead] = []
        for read in plan_reads(missing, self._gap_bytes):
            (local if isinstance(self._stores[read.source], LocalStore) else remote).append(read)
        # Requests are under way while this thread reads local files.
        answers = self._requests.map(self._fetch_range, remote) if self._requests and remote else ()
        for read in local:
            found |= self._fetch_range(read)
        for outcome in answers:
            found |= outcome
        return found

    def close(self) -> None:
        """Ends waits between tries and closes files. Reads that are under way end by themselves."""
        self._stop.set()
        if self._requests is not None:
            self._requests.shutdown(wait=False, cancel_futures=True)
        self._files.close()

    def _cached(self, cache: DiskCache, sample: PlannedSample) -> SampleMembers | None:
        name = cache_entry_name(self._stores[sample.shard_set].url, sample)
        data = cache.get(name, sample.size_bytes, sample.crc32)
        if data is None:
            return None
        try:
            return _split_members(data, sample)
        except IntegrityError:
            return None  # no tar, as the shard holds no tar there: reading that says so

    def _fetch_range(self, read: RangeRead) -> FetchedSamples:
        try:
            data = self._read(read)
        except StorageError as error:
            return self._read_individually(read, error)
        return dict(self._split_range(read, data))

    def _read_individually(self, read: RangeRead, error: StorageError) -> FetchedSamples:
        """Of a read that failed, the samples that can be had by themselves; `error` for the others."""
        whole: FetchedSamples = {(sample.shard_set, sample.number): error for sample in read.samples}
        store = self._stores[read.source]
        try:
            size_bytes = retry(lambda: store.size(read.shard), retries=self._retries, stop=self._stop)
        except StorageError:
            return whole
        for sample in read.samples:
            key = (sample.shard_set, sample.number)
            if sample.offset_bytes + sample.size_bytes > size_bytes:
                whole[key] = _truncated_error(store, sample)
            elif len(read.samples) > 1:
                alone = _single_read(sample)
                try:
                    whole.update(self._split_range(alone, self._read(alone)))
                except StorageError as own:
                    whole[key] = own
        return whole

    def _read(self, read: RangeRead) -> bytes | memoryview:
        """Bytes of the read, good until this thread's next one; fewer where a local file ends before. Raises
        StorageError.
        """
        store = self._stores[read.source]

        def once() -> bytes | memoryview:
            if isinstance(store, LocalStore):
                return self._read_local(self._path(store, read.shard), read.start, read.stop)
            return store.read_range(read.shard, read.start, read.stop - read.start)

        return retry(once, retries=self._retries, stop=self._stop)

    def _read_local(self, path: str, start: int, stop: int) -> memoryview:
        try:
            size = stop - start
            if size > MAX_READ_BYTES:
                # A single large sample: no more memory is asked for than there are bytes.
                room = memoryview(bytearray(max(0, min(stop, self._files.size(path)) - start)))
            else:
                room = self._scratch.room[:size]
            return room[: self._files.read_into(path, start, room)]
        except OSError:
            with storage_errors(path, "reading"):
                raise

    def _path(self, store: LocalStore, shard: str) -> str:
        # As text, and once for each shard: checking a name costs as much as reading a small sample.
        path = self._paths.get((store.url, shard))
        if path is None:
            path = self._paths[store.url, shard] = f"{store.url}/{check_name(shard)}"
        return path

    def _split_range(
        self, read: RangeRead, data: bytes | memoryview
    ) -> Iterator[tuple[SampleKey, SampleMembers | MmpackError]]:
        view = memoryview(data)
        store = self._stores[read.source]
        for sample in read.samples:
            start = sample.offset_bytes - read.start
            own = view[start : start + sample.size_bytes]
            key = (sample.shard_set, sample.number)
            if len(own) != sample.size_bytes:
                yield key, _truncated_error(store, sample)
                continue
            try:
                members = _split_members(own, sample)
            except IntegrityError as error:
                yield key, error
                continue
            if self._cache is not None:
                self._cache.put(cache_entry_name(store.url, sample), own)
            yield key, members


def _split_members(data: bytes | memoryview, sample: PlannedSample) -> SampleMembers:
    return split_members(data, sample.key, sample.shard, sample.offset_bytes, sample.crc32)


def _truncated_error(store: Store, sample: PlannedSample) -> StorageError:
    stop = sample.offset_bytes + sample.size_bytes
    return PermanentStorageError(f"ends before byte {stop}: truncated", where=f"{store.url}/{sample.shard}")
