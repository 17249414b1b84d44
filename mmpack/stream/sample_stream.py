"""The samples of a shard set one by one, in a seeded order, each decoded by a function of the caller."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import msgspec
import numpy as np

from mmpack.errors import ConfigError, DataError, MmpackError
from mmpack.fetch.fetcher import Fetcher
from mmpack.plan.catalog import IndexCatalog
from mmpack.plan.epoch_order import epoch_order
from mmpack.plan.plan_config import ReaderConfig
from mmpack.plan.planned_rows import PlannedSample
from mmpack.plan.state import require_equal_parts
from mmpack.prefetch import Closeable, Prefetcher
from mmpack.quarantine import Quarantine
from mmpack.serialisation import Record, decode_state
from mmpack.storage import open_store
from mmpack.storage.local import LocalStore
from mmpack.storage.store import Store

T = TypeVar("T")

STATE_VERSION = 2
"""Version of the keys of `SampleState`."""
#: Target duration of a batch. Handing a batch of this duration from thread to thread costs little in comparison.
_BATCH_SECONDS = 0.001
_MAX_BATCH = 32
#: Number of order positions that are looked up in the index at a time.
_LOOKUP_BATCH = 1024


class SampleState(Record, frozen=True, kw_only=True):
    """The part of a checkpoint that describes a sample stream.

    Fields:
        version: version of this table.
        position: order position up to which samples were handed out, over all ranks and epochs.
        fingerprint_parts: values that decide the order, by name.
    """

    version: int
    position: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    fingerprint_parts: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleStreamConfig(Generic[T]):
    """Settings of a sample stream: the order of the samples, and the replacement of unreadable ones.

    Attributes:
        seed: seed of the order.
        locality: number of neighbours of the index that stay neighbours in the order, so that one read serves several.
        epochs: number of epochs; None: without end.
        fallback: function from the key of an unreadable sample and its error to the value to yield; None: the error is
            raised.

    Raises:
        ConfigError: `locality` or `epochs` is out of range.
    """

    seed: int = 0
    locality: int = 32
    epochs: int | None = None
    fallback: Callable[[str, MmpackError], T] | None = None

    def __post_init__(self) -> None:
        if self.locality < 1:
            raise ConfigError(f"{self.locality} is not at least 1", where="locality")
        if self.epochs is not None and self.epochs < 0:
            raise ConfigError(f"{self.epochs} is not at least 0", where="epochs")


class SampleStream(Closeable, Generic[T]):
    """An iterator over the decoded samples of one rank.

    An epoch contains every sample of the shard set once, in an order of its own. Order positions are given to the ranks
    in turn: rank r gets the positions p with p % ranks == r. So the order is the same on any number of ranks and threads,
    and the state, the number of samples that all ranks have handed out, can be resumed on any number of ranks.

    Members are prefetched, neighbouring samples in one read, and decoded in threads of this process: decoders release the
    interpreter lock, and results need not be sent between processes.

    A sample is unreadable if its members cannot be read or if `decode` raises an MmpackError. With `config.fallback`,
    the stream yields the value of this function at this position and records the sample in `reader.quarantine`; more than
    `reader.max_corrupt` such samples stop the stream. Without it the error is raised, and iterating again tries the same
    sample again.

    Args:
        url: folder or object store URL of a finished shard set.
        decode: function from the key of a sample and its members (bytes by extension) to the value to yield. Several
            threads call it at the same time. Errors other than MmpackError are always raised at the sample's position.
        config: order of the samples, and the replacement of unreadable ones; None: the defaults.
        rank: data-parallel rank of this process, from 0.
        ranks: number of data-parallel ranks.
        reader: `[reader]` settings; `workers` must be 0.

    Raises:
        ConfigError: `rank` or `reader.workers` is out of range.
        DataError: the shard set has no samples.
        IntegrityError, StorageError: the shard set is not finished, damaged or cannot be read.

    Attributes:
        samples: number of samples of an epoch, over all ranks.
        quarantine: record of the unreadable samples.
    """

    def __init__(
        self,
        url: str,
        decode: Callable[[str, dict[str, bytes]], T],
        *,
        config: SampleStreamConfig[T] | None = None,
        rank: int = 0,
        ranks: int = 1,
        reader: ReaderConfig | None = None,
    ) -> None:
        if not 0 <= rank < ranks:
            raise ConfigError(
                f"rank {rank} is not one of {ranks} ranks", where="rank", hint="Count ranks from 0."
            )
        config = config or SampleStreamConfig()
        self.reader = reader or ReaderConfig()
        if self.reader.workers:
            raise ConfigError(
                "samples are decoded in threads, not in processes",
                where="reader.workers",
                hint="Set reader.threads.",
            )
        self._catalog = IndexCatalog(url)
        self.samples = len(self._catalog)
        if not self.samples:
            raise DataError("the shard set has no samples", where=self._catalog.store.url)
        self.rank, self.ranks = rank, ranks
        self._decode, self._fallback = decode, config.fallback
        self._order = _SampleOrder(self._catalog, min(config.locality, self.samples), config.seed)
        self._fingerprint_parts = {
            "index": self._catalog.digest[:16],
            "seed": str(config.seed),
            "locality": str(config.locality),
        }
        self._end = None if config.epochs is None else config.epochs * self.samples
        self._position = 0
        self._results: Prefetcher[list[PlannedSample], list[T | _UnreadableItem]] | None = None
        # Values that were decoded but not handed out yet. The next one is the last element.
        self._ready: list[T | _UnreadableItem] = []
        self.quarantine = Quarantine(Path(self.reader.quarantine), rank, self.reader.max_corrupt)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if not self._ready:
            self._ready = self._next_batch()
        value = self._ready.pop()
        if isinstance(value, _UnreadableItem):
            try:
                value = self._replace_unreadable(value)
            except BaseException:
                self.close()
                raise
        self._position += self.ranks
        return value

    def state_dict(self) -> dict[str, Any]:
        """Returns the state to resume from: plain numbers and strings, about a hundred bytes.

        It is equal on all ranks that have handed out the same number of samples.
        """
        position = self._position if self._end is None else min(self._position, self._end)
        return msgspec.to_builtins(
            SampleState(version=STATE_VERSION, position=position, fingerprint_parts=self._fingerprint_parts)
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resumes after the samples that were handed out when `state` was taken, on any number of ranks.

        Raises:
            ConfigError: the state belongs to another shard set, seed or locality (the message names what differs).
            DataError: the state is damaged.
        """
        saved = decode_state(state, SampleState, version=STATE_VERSION, noun="sample stream")
        require_equal_parts(saved.fingerprint_parts, self._fingerprint_parts)
        self.close()
        self._position = saved.position

    def close(self) -> None:
        """Ends prefetching with its threads; iterating again starts them anew."""
        self._ready = []
        if self._results is not None:
            self._results.close()
            self._results = None

    def _next_batch(self) -> list[T | _UnreadableItem]:
        if self._results is None:
            sizer = _BatchSizer.for_store(self._catalog.store, self.reader)
            pipeline = _SamplePipeline(self._catalog, self._decode, sizer, self.reader)
            batches = self._order.batches(self._next_position(), self.ranks, self._end, sizer)
            depth = max(1, self.reader.threads, self.reader.prefetch // sizer.size)
            self._results = Prefetcher(pipeline, batches, threads=self.reader.threads, depth=depth)
        try:
            return next(self._results)
        except StopIteration:
            # At the end all ranks have the same position, also those with one sample less than others.
            self._position = self._end if self._end is not None else self._position
            self.close()
            raise
        except BaseException:
            self.close()
            raise

    def _next_position(self) -> int:
        """Returns the order position of this rank's next sample."""
        return self._position + (self.rank - self._position) % self.ranks

    def _replace_unreadable(self, item: _UnreadableItem) -> T:
        sample, error = item
        if self._fallback is None or not isinstance(error, MmpackError):
            raise error
        self.quarantine.record(sample.to_unreadable(self._next_position(), error))
        return self._fallback(sample.key, error)


class _UnreadableItem(NamedTuple):
    """The error of an unreadable sample, handed over in place of its value."""

    sample: PlannedSample
    error: BaseException


class _BatchSizer:
    """The number of samples that are read and decoded as one batch.

    It grows until a batch takes so long that the hand-over between threads costs little in comparison.

    Attributes:
        size: number of samples of the next batch.
        is_serial: whether one thread at a time works on a batch. Samples are then so cheap that several threads would
            only wait for the interpreter lock.
    """

    def __init__(self, size: int, max_items: int) -> None:
        self.size = size
        self.is_serial = False
        self._max_items = max_items

    @classmethod
    def for_store(cls, store: Store, reader: ReaderConfig) -> _BatchSizer:
        """Returns the sizer for a store.

        For an object store a batch is as large as the prefetch: requests have a high latency, and neighbouring samples
        come in one answer.
        """
        if not isinstance(store, LocalStore):
            return cls(reader.prefetch, reader.prefetch)
        return cls(1, _MAX_BATCH)

    def update(self, count: int, seconds: float) -> None:
        """Doubles the batch size if a full batch of `count` samples took less than half of the target duration."""
        if count == self.size < self._max_items and seconds < _BATCH_SECONDS / 2:
            self.size = 2 * count
            self.is_serial = self.size == self._max_items


class _SampleOrder:
    """The seeded order of the samples of a shard set, epoch after epoch."""

    def __init__(self, catalog: IndexCatalog, block: int, seed: int) -> None:
        self._catalog = catalog
        self._block = block
        digest = hashlib.sha256(f"{seed}/samples".encode()).digest()
        self._key = np.uint64(int.from_bytes(digest[:8], "little"))

    def batches(
        self, first: int, step: int, end: int | None, sizer: _BatchSizer
    ) -> Iterator[list[PlannedSample]]:
        """Yields the samples at the order positions first, first + step, ... below `end`, in batches.

        The batches have the current size of `sizer`, or less at the end of a block of neighbours.
        """
        catalog, n, lookup_size = self._catalog, len(self._catalog), 1
        while end is None or first < end:
            # A lookup stops at the end of the epoch, so that a batch contains no sample twice.
            count = min(lookup_size, -((first % n - n) // step))
            entries = epoch_order(first, count, n, self._block, self._key, step)
            samples = catalog.samples(entries, 0)
            offset, start = first % n // step, 0
            first += count * step
            while start < count:
                # Batches end where blocks of neighbours end, because one read fetches a whole block.
                yield samples[start : (start := start + sizer.size - (offset + start) % sizer.size)]
            # The first lookup is short, so that the first sample does not wait for a thousand others.
            lookup_size = _LOOKUP_BATCH


class _SamplePipeline(Closeable, Generic[T]):
    """A function that reads and decodes a batch of samples; several threads may call it at once."""

    def __init__(
        self,
        catalog: IndexCatalog,
        decode: Callable[[str, dict[str, bytes]], T],
        sizer: _BatchSizer,
        reader: ReaderConfig,
    ) -> None:
        # Only the fetcher retries, `reader.retries` times; the store's client does not.
        self._fetcher = Fetcher([open_store(catalog.store.url, client_retries=0)], reader)
        self._decode = decode
        self._sizer = sizer
        self._serial_lock = threading.Lock()

    def __call__(self, batch: list[PlannedSample]) -> list[T | _UnreadableItem]:
        """Returns the values of the samples in reverse order."""
        with self._serial_lock if self._sizer.is_serial else nullcontext():
            start_s = time.perf_counter()
            members = self._fetcher.read(batch)
            values = [self._decode_sample(sample, members.pop((0, sample.number))) for sample in batch]
            self._sizer.update(len(batch), time.perf_counter() - start_s)
        values.reverse()
        return values

    def close(self) -> None:
        self._fetcher.close()

    def _decode_sample(
        self, sample: PlannedSample, members: dict[str, bytes] | MmpackError
    ) -> T | _UnreadableItem:
        if isinstance(members, MmpackError):
            return _UnreadableItem(sample, members)
        try:
            return self._decode(sample.key, members)
        except Exception as error:
            return _UnreadableItem(sample, error)
