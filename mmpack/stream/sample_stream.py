"""The samples of a build one by one, in a seeded order, each through the caller's own decoder."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import msgspec

from mmpack.errors import ConfigError, DataError, MmpackError
from mmpack.fetch.fetcher import Fetcher
from mmpack.plan.catalog import IndexCatalog
from mmpack.plan.epoch_order_numpy import epoch_order_numpy
from mmpack.plan.plan_config import ReaderConfig
from mmpack.plan.planned import PlannedSample
from mmpack.plan.state import require_equal_parts
from mmpack.prefetch import Closeable, Prefetcher
from mmpack.quarantine import Quarantine, UnreadableSample
from mmpack.serialisation import from_builtins
from mmpack.settings import Settings
from mmpack.storage import open_store
from mmpack.storage.local import LocalStore
from mmpack.storage.store import Store

T = TypeVar("T")

STATE_VERSION = 1
#: Samples are made together as long as they take less than this: handing them over then costs next to nothing.
_BATCH_SECONDS = 0.001
_MAX_BATCH = 32
#: Places that are looked up at a time.
_LOOKUP_BATCH = 1024


class SampleState(Settings, frozen=True, kw_only=True):
    """What a checkpoint holds of a stream of samples.

    Fields:
        version: of this table.
        place: places that were handed out, over all ranks and epochs.
        parts: what the order follows from, by name.
    """

    version: int
    place: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    parts: dict[str, str]


class SampleStream(Closeable, Generic[T]):
    """An iterator over a rank's share of a build's samples, decoded.

    An epoch has every sample once, in an order of its own. Its places are dealt to the ranks in turn: rank r has
    those that leave r when divided by `ranks`. So the order is the same on any number of ranks and threads, and the
    state, which is the number of places that all ranks have been given, is good for any other number of them.

    Members are read ahead, neighbours in one read, and decoded in threads of this process: decoders let others run
    meanwhile, and nothing has to be sent from process to process.

    A sample that cannot be read, or of which `decode` raises an MmpackError, keeps its place: `instead` says what
    stands there, and it is recorded in `reader.quarantine`, up to `reader.max_corrupt` of them. Without `instead`
    the error is raised, and the sample stays the next one.

    Args:
        url: folder or object store URL of a finished build.
        decode: from a sample's key and its members, bytes by extension, to what is handed out. Called in several
            threads at a time. What else it raises than an MmpackError is raised at the sample's place.
        seed: of the order.
        rank, ranks: this process's share.
        locality: neighbours of the index that stay neighbours in the order, so that one read serves several.
        epochs: how often all is read; None: for ever.
        instead: what stands for a sample that cannot be read, from its key and the error.
        reader: how it is read; `workers` has to be 0.

    Raises:
        ConfigError: a setting is out of range.
        DataError: the build has no samples.
        IntegrityError, StorageError: it is not finished, damaged, or cannot be read.

    Attributes:
        samples: of an epoch, over all ranks.
        quarantine: what could not be read.
    """

    def __init__(
        self,
        url: str,
        decode: Callable[[str, dict[str, bytes]], T],
        *,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        locality: int = 32,
        epochs: int | None = None,
        instead: Callable[[str, MmpackError], T] | None = None,
        reader: ReaderConfig | None = None,
    ) -> None:
        if not 0 <= rank < ranks:
            raise ConfigError(f"rank {rank} of {ranks} ranks", where="rank")
        if locality < 1 or (epochs is not None and epochs < 0):
            raise ConfigError(
                "a locality of at least 1 and epochs of at least 0 are needed", where="locality"
            )
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
            raise DataError("has no samples", where=self._catalog.store.url)
        self.rank, self.ranks = rank, ranks
        self._decode, self._instead = decode, instead
        self._order = _SampleOrder(self._catalog, min(locality, self.samples), seed)
        self._parts = {
            "index": self._catalog.digest[:16],
            "seed": str(seed),
            "locality": str(locality),
        }
        self._end = None if epochs is None else epochs * self.samples
        self._position = 0
        self._results: Prefetcher[list[PlannedSample], list[T | _UnreadableItem]] | None = None
        self._pipeline: _SamplePipeline[T] | None = None
        # Made and not yet handed out, the next one last.
        self._ready: list[T | _UnreadableItem] = []
        self.quarantine = Quarantine(Path(self.reader.quarantine), rank, self.reader.max_corrupt)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if not self._ready:
            self._ready = self._next_batch()
        found = self._ready.pop()
        if isinstance(found, _UnreadableItem):
            try:
                found = self._skip_unreadable(found)
            except BaseException:
                self.close()
                raise
        self._position += self.ranks
        return found

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is: plain numbers and strings, about a hundred bytes, equal on all ranks in step."""
        place = self._position if self._end is None else min(self._position, self._end)
        return msgspec.to_builtins(SampleState(version=STATE_VERSION, place=place, parts=self._parts))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on behind the samples that were handed out when `state` was taken, on any number of ranks.

        Raises:
            ConfigError: it belongs to another build, seed or locality (says what differs).
            DataError: it is damaged.
        """
        try:
            found = from_builtins(dict(state), SampleState, strict=False)
        except (msgspec.ValidationError, TypeError, ValueError) as error:
            raise DataError(f"is no state of a sample stream ({error})", where="state") from None
        if found.version != STATE_VERSION:
            raise DataError(f"version {found.version}, and this one reads {STATE_VERSION}", where="state")
        require_equal_parts(found.parts, self._parts)
        self.close()
        self._position = found.place

    def close(self) -> None:
        """Ends reading ahead and its threads. Who goes on iterating starts them again."""
        self._ready = []
        if self._results is not None:
            self._results.close()
            self._results = None
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None

    def _next_batch(self) -> list[T | _UnreadableItem]:
        if self._results is None:
            pace = _BatchSizer.for_store(self._catalog.store, self.reader)
            self._pipeline = _SamplePipeline(self._catalog, self._decode, pace, self.reader)
            first = self._position + (self.rank - self._position) % self.ranks
            pieces = self._order.batches(first, self.ranks, self._end, pace)
            depth = max(1, self.reader.threads, self.reader.prefetch // pace.size)
            self._results = Prefetcher(self._pipeline, pieces, threads=self.reader.threads, depth=depth)
        try:
            return next(self._results)
        except StopIteration:
            # Ranks that have a sample less than others are where these are.
            self._position = self._end if self._end is not None else self._position
            self.close()
            raise
        except BaseException:
            self.close()
            raise

    def _skip_unreadable(self, item: _UnreadableItem) -> T:
        sample, error = item
        if self._instead is None or not isinstance(error, MmpackError):
            raise error
        reason = " ".join(str(error).split())
        self.quarantine.record(
            UnreadableSample(
                row=self._position + (self.rank - self._position) % self.ranks,
                key=sample.key,
                shard=sample.shard,
                offset_bytes=sample.offset_bytes,
                size_bytes=sample.size_bytes,
                reason=reason,
            )
        )
        return self._instead(sample.key, error)


class _UnreadableItem(NamedTuple):
    """What stands for a sample on its way out, if it cannot be read."""

    sample: PlannedSample
    error: BaseException


class _BatchSizer:
    """How many samples are made together: as many as cost about as much time as handing them over is worth.

    Attributes:
        size: of the next piece.
        by_turns: whether threads take turns: a sample takes so little that they would only wait for the interpreter.
    """

    def __init__(self, size: int, max_items: int) -> None:
        self.size = size
        self.by_turns = False
        self._max_items = max_items

    @classmethod
    def for_store(cls, store: Store, reader: ReaderConfig) -> _BatchSizer:
        """For a store. Of object stores, what is ahead is asked for together: they answer late, and neighbours come in
        one answer.
        """
        if not isinstance(store, LocalStore):
            return cls(reader.prefetch, reader.prefetch)
        return cls(1, _MAX_BATCH)

    def update(self, count: int, seconds: float) -> None:
        """A piece of `count` samples took so long."""
        if count == self.size < self._max_items and seconds < _BATCH_SECONDS / 2:
            self.size = 2 * count
            self.by_turns = self.size == self._max_items


class _SampleOrder:
    """The places of a build's samples."""

    def __init__(self, catalog: IndexCatalog, block: int, seed: int) -> None:
        self._catalog = catalog
        self._block = block
        self._key = int.from_bytes(hashlib.sha256(f"{seed}/samples".encode()).digest()[:8], "little")

    def batches(
        self, first: int, step: int, end: int | None, pace: _BatchSizer
    ) -> Iterator[list[PlannedSample]]:
        """Samples at the places first, first + step, ... below `end`, so many at a time as `pace` says."""
        catalog, n, looked_up = self._catalog, len(self._catalog), 1
        while end is None or first < end:
            # No further than the epoch: a piece has each of its samples once.
            count = min(looked_up, -((first % n - n) // step))
            numbers = epoch_order_numpy(first, count, n, self._block, self._key, step)
            samples = catalog.samples(numbers, 0)
            before, at = first % n // step, 0
            first += count * step
            while at < count:
                # Pieces end where blocks of neighbours do: these come in one read.
                yield samples[at : (at := at + pace.size - (before + at) % pace.size)]
            # The first sample does not wait for a thousand others to be looked up.
            looked_up = _LOOKUP_BATCH


class _SamplePipeline(Generic[T]):
    """Reads and decodes; called in several threads at a time."""

    def __init__(
        self,
        catalog: IndexCatalog,
        decode: Callable[[str, dict[str, bytes]], T],
        pace: _BatchSizer,
        reader: ReaderConfig,
    ) -> None:
        # `reader.retries` is all there is: the store's client does not try again by itself.
        self._fetcher = Fetcher([open_store(catalog.store.url, client_retries=0)], reader)
        self._decode = decode
        self._pace = pace
        self._turn = threading.Lock()

    def __call__(self, batch: list[PlannedSample]) -> list[T | _UnreadableItem]:
        """What was made, the first sample last."""
        with self._turn if self._pace.by_turns else nullcontext():
            start_s = time.perf_counter()
            found = self._fetcher.read(batch)
            made = [self._decode_sample(sample, found.pop((0, sample.number))) for sample in batch]
            self._pace.update(len(batch), time.perf_counter() - start_s)
        made.reverse()
        return made

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
