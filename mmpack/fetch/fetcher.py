"""Reads and checks the samples of planned rows; neighbouring samples of a shard share one read."""

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
from mmpack.fetch.malloc_threshold import raise_malloc_threshold
from mmpack.plan.plan_config import ReaderConfig
from mmpack.plan.planned_rows import PlannedRow, PlannedSample
from mmpack.prefetch import Closeable
from mmpack.settings import parse_size
from mmpack.shards.sample_bytes import MAX_SAMPLE_BYTES, split_members
from mmpack.storage.local import LocalStore
from mmpack.storage.open_files import OpenFiles
from mmpack.storage.retry import retry
from mmpack.storage.store import PermanentStorageError, Store, check_name, storage_errors

MAX_READ_BYTES = 8 << 20
"""Largest size of a read that several samples share. Larger reads gain nothing: an object store serves several such
requests at once faster than one large request, and a local read of this size still fits a processor's cache."""
MAX_REQUESTS = 16
"""Largest number of concurrent requests to object stores."""

SampleKey: TypeAlias = tuple[int, int]
"""(index of the shard set in the plan, row number in the index of the shard set) of a sample."""
SampleMembers: TypeAlias = dict[str, bytes]
"""The members of a sample by extension."""
FetchedSamples: TypeAlias = dict[SampleKey, SampleMembers | MmpackError]
"""The members of each sample, or the error of a sample that cannot be read."""


class RangeRead(NamedTuple):
    """One byte range of a shard and the samples in it.

    Attributes:
        shard_set: index of the shard set in the plan.
        shard: name of the shard.
        start, stop: byte range [start, stop).
        samples: samples in the range, ordered by offset.
    """

    shard_set: int
    shard: str
    start: int
    stop: int
    samples: tuple[PlannedSample, ...]


_LOCATION_KEY = attrgetter("shard_set", "shard", "offset_bytes")


def plan_reads(samples: Iterable[PlannedSample], gap_bytes: int) -> list[RangeRead]:
    """Returns the reads that cover all `samples`, ordered by shard set, shard and offset.

    Args:
        samples: samples to read, without duplicates, in any order.
        gap_bytes: largest number of unused bytes between two samples of one read.
    """
    samples = list(samples)
    if len(samples) == 1:
        return [_single_read(samples[0])]
    reads: list[RangeRead] = []
    group: list[PlannedSample] = []
    start = stop = 0
    for sample in sorted(samples, key=_LOCATION_KEY):
        end = sample.offset_bytes + sample.size_bytes
        fits_group = (
            group
            and (sample.shard_set, sample.shard) == (group[0].shard_set, group[0].shard)
            and sample.offset_bytes - stop <= gap_bytes
            and max(end, stop) - start <= MAX_READ_BYTES
        )
        if not fits_group:
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
    """A reusable read buffer of each thread; the system would clear new memory page by page for every read."""

    def __init__(self) -> None:
        # `np.empty` does not touch the memory: only the pages that are read into take physical memory.
        self.memory = np.empty(MAX_READ_BYTES, np.uint8).data


class Fetcher(Closeable):
    """A reader of the samples of rows. Several threads may use one fetcher at once.

    Args:
        stores: stores of the plan's shard sets, indexed by `PlannedSample.shard_set`.
        settings: reader settings, of which `gap`, `retries`, `cache` and `cache_size` are used.

    Raises:
        ConfigError: `gap` or `cache_size` is not a valid size.
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
        """Returns the members of every sample of `row`, or the error of a sample that cannot be read.

        The error of a sample is an IntegrityError (its bytes differ from those that were written) or a StorageError
        (its bytes cannot be read). A sample that occurs twice in the row is read once.

        Raises:
            ConfigError: the settings of an object store are wrong.
        """
        samples = {
            (sample.shard_set, sample.number): sample
            for document in row.documents
            for sample in document.samples
        }
        return self.read(samples.values())

    def read(self, samples: Iterable[PlannedSample]) -> FetchedSamples:
        """Does the same as :meth:`fetch` for `samples`, which must not contain duplicates."""
        fetched: FetchedSamples = {}
        missing: list[PlannedSample] = []
        for sample in samples:
            if not (0 <= sample.size_bytes <= MAX_SAMPLE_BYTES and sample.offset_bytes >= 0):
                fetched[sample.shard_set, sample.number] = IntegrityError(
                    f"the index claims an invalid range of {sample.size_bytes} bytes at offset {sample.offset_bytes}",
                    where=sample.key,
                )
            elif self._cache is not None and (members := self._read_cached(self._cache, sample)) is not None:
                fetched[sample.shard_set, sample.number] = members
            else:
                missing.append(sample)
        local: list[RangeRead] = []
        remote: list[RangeRead] = []
        for read in plan_reads(missing, self._gap_bytes):
            (local if isinstance(self._stores[read.shard_set], LocalStore) else remote).append(read)
        # The requests run while this thread reads local files.
        remote_results = self._requests.map(self._fetch_range, remote) if self._requests and remote else ()
        for read in local:
            fetched |= self._fetch_range(read)
        for result in remote_results:
            fetched |= result
        return fetched

    def close(self) -> None:
        """Ends the waits between retries and closes files. Reads in progress finish by themselves."""
        self._stop.set()
        if self._requests is not None:
            self._requests.shutdown(wait=False, cancel_futures=True)
        self._files.close()

    def _read_cached(self, cache: DiskCache, sample: PlannedSample) -> SampleMembers | None:
        name = cache_entry_name(self._stores[sample.shard_set].url, sample)
        data = cache.get(name, sample.size_bytes, sample.crc32)
        if data is None:
            return None
        try:
            return _split_members(data, sample)
        except IntegrityError:
            return (
                None  # the shard has no valid members at this location either; reading it reports the error
            )

    def _fetch_range(self, read: RangeRead) -> FetchedSamples:
        try:
            data = self._read(read)
        except StorageError as error:
            return self._read_individually(read, error)
        return dict(self._split_range(read, data))

    def _read_individually(self, read: RangeRead, error: StorageError) -> FetchedSamples:
        """Reads each sample of a failed read by itself. Samples that cannot be read get `error` or their own error."""
        results: FetchedSamples = {(sample.shard_set, sample.number): error for sample in read.samples}
        store = self._stores[read.shard_set]
        try:
            size_bytes = retry(lambda: store.size(read.shard), retries=self._retries, stop=self._stop)
        except StorageError:
            return results
        for sample in read.samples:
            key = (sample.shard_set, sample.number)
            if sample.offset_bytes + sample.size_bytes > size_bytes:
                results[key] = _truncated_error(store, sample)
            elif len(read.samples) > 1:
                single = _single_read(sample)
                try:
                    results.update(self._split_range(single, self._read(single)))
                except StorageError as sample_error:
                    results[key] = sample_error
        return results

    def _read(self, read: RangeRead) -> bytes | memoryview:
        """Returns the bytes of a read, valid until the next read of this thread.

        There are fewer bytes than requested if a local file ends early.

        Raises:
            StorageError: the bytes cannot be read, after all retries.
        """
        store = self._stores[read.shard_set]

        def read_once() -> bytes | memoryview:
            if isinstance(store, LocalStore):
                return self._read_local(self._path(store, read.shard), read.start, read.stop)
            return store.read_range(read.shard, read.start, read.stop - read.start)

        return retry(read_once, retries=self._retries, stop=self._stop)

    def _read_local(self, path: str, start: int, stop: int) -> memoryview:
        try:
            size = stop - start
            if size > MAX_READ_BYTES:
                # Only a single large sample is longer. No more memory is allocated than the file has bytes.
                buffer = memoryview(bytearray(max(0, min(stop, self._files.size(path)) - start)))
            else:
                buffer = self._scratch.memory[:size]
            return buffer[: self._files.read_into(path, start, buffer)]
        except OSError:
            with storage_errors(path, "reading"):
                raise

    def _path(self, store: LocalStore, shard: str) -> str:
        # The path is cached as text for each shard, because checking a name costs as much as reading a small sample.
        path = self._paths.get((store.url, shard))
        if path is None:
            path = self._paths[store.url, shard] = f"{store.url}/{check_name(shard)}"
        return path

    def _split_range(
        self, read: RangeRead, data: bytes | memoryview
    ) -> Iterator[tuple[SampleKey, SampleMembers | MmpackError]]:
        view = memoryview(data)
        store = self._stores[read.shard_set]
        for sample in read.samples:
            start = sample.offset_bytes - read.start
            content = view[start : start + sample.size_bytes]
            key = (sample.shard_set, sample.number)
            if len(content) != sample.size_bytes:
                yield key, _truncated_error(store, sample)
                continue
            try:
                members = _split_members(content, sample)
            except IntegrityError as error:
                yield key, error
                continue
            if self._cache is not None:
                self._cache.put(cache_entry_name(store.url, sample), content)
            yield key, members


def _split_members(data: bytes | memoryview, sample: PlannedSample) -> SampleMembers:
    return split_members(data, sample.key, sample.shard, sample.offset_bytes, sample.crc32)


def _truncated_error(store: Store, sample: PlannedSample) -> StorageError:
    stop = sample.offset_bytes + sample.size_bytes
    return PermanentStorageError(
        f"the shard is truncated: it ends before byte {stop}", where=f"{store.url}/{sample.shard}"
    )
