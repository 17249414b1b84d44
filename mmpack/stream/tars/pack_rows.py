"""From the samples of tars to those of each row, and the state behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import msgspec

from mmpack.errors import DataError, MmpackError
from mmpack.packing import pack_stream
from mmpack.quarantine import UnreadableSample
from mmpack.serialisation import from_builtins
from mmpack.settings import Settings
from mmpack.stream.tars.tar_samples import Count32, TarCursor, TarSample, TarSamples

STATE_VERSION = 1
MAX_POOL = 1 << 16
"""Samples that may wait: a state names each."""
POOL_BYTES = 512 << 20
"""Of their members together; with more waiting, rows are packed out of fewer samples."""


class TarState(Settings, frozen=True, kw_only=True):
    """Where a tar stream is.

    Fields:
        version: of this table.
        rows: handed out.
        place: (turn, sample) of what is read next: which tar, counted on through the epochs, and which sample of it.
        waiting: places of the samples before it that are in no row yet, ascending.
        fingerprint: of all that the rows follow from but the tars' content.
    """

    version: int
    rows: Count32
    place: TarCursor
    waiting: Annotated[tuple[TarCursor, ...], msgspec.Meta(max_length=MAX_POOL)]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class TarPackingConfig:
    """How samples are packed.

    Attributes:
        capacity: places of a row.
        pool: samples that may wait.
        turns: tars over all epochs; None: without end.
        max_faults: that are put up with.
        rank, ranks: whose rows they are, which numbers them.
    """

    capacity: int
    pool: int
    num_tars: int | None
    max_unreadable: int
    rank: int
    ranks: int


@dataclass(frozen=True, slots=True)
class PackedRow:
    """A row's samples, what could not be read on the way to it, and where the stream is behind it. The last one may have
    faults alone.
    """

    number: int
    items: Sequence[TarSample]
    unreadable: Sequence[UnreadableSample]
    state: TarState


def read_tar_state(state: Mapping[str, Any]) -> TarState:
    """A saved state. Raises DataError if it is none, or damaged."""
    try:
        found = from_builtins(dict(state), TarState)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise DataError(f"is no state of a tar stream ({error})", where="state") from None
    if found.version != STATE_VERSION:
        raise DataError(f"version {found.version}, and this one reads {STATE_VERSION}", where="state")
    places = [*found.waiting, found.place]
    if any(place >= behind for place, behind in pairwise(places)):
        raise DataError("its places do not ascend", where="state")
    return found


class _SampleFeed:
    """What the packer takes its samples from.

    It ends while POOL_BYTES wait, and goes on when it is asked again for the next row. It ends for good at the end of the
    tars, or when there are more faults than the run puts up with: they are told with the next row.

    Attributes:
        place: of the next sample to be read.
        size_bytes: of the samples that wait; who takes them out counts them out.
        faults: met since the last row.
    """

    def __init__(
        self,
        samples: Iterator[tuple[TarSample | UnreadableSample, TarCursor]],
        cursor: TarCursor,
        waited: int,
        max_unreadable: int,
    ) -> None:
        self.cursor = cursor
        self.size_bytes = waited
        self.unreadable: list[UnreadableSample] = []
        self._samples = samples
        self._max_unreadable = max_unreadable

    def __iter__(self) -> Iterator[TarSample]:
        return self

    def __next__(self) -> TarSample:
        while self.size_bytes < POOL_BYTES and len(self.unreadable) <= self._max_unreadable:
            # The place is moved with what it lies behind: a fault is told once, wherever the run is stopped.
            found, self.cursor = next(self._samples)
            if isinstance(found, TarSample):
                self.size_bytes += found.size_bytes
                return found
            self.unreadable.append(found)
        raise StopIteration


def iter_packed_rows(samples: TarSamples, state: TarState, flow: TarPackingConfig) -> Iterator[PackedRow]:
    """Every row from a state on, and at last the faults behind it."""
    waited = samples.reread(state.waiting)
    feed = _SampleFeed(
        samples.iter_from(state.place, flow.num_tars),
        state.place,
        sum(item.size_bytes for item in waited),
        flow.max_unreadable,
    )
    packer = pack_stream(feed, flow.capacity, pool=flow.pool, length=lambda item: item.planned.tokens)
    packer.load_state_dict(
        {"capacity": flow.capacity, "pool": flow.pool, "taken": len(waited), "waiting": waited}
    )
    rows = state.rows
    failed: MmpackError | None = None
    while True:
        items: list[TarSample] = []
        try:
            items = next(packer, items)
        except MmpackError as error:
            failed = error
        feed.size_bytes -= sum(item.size_bytes for item in items)
        number = rows * flow.ranks + flow.rank
        faults = [msgspec.structs.replace(fault, row=number) for fault in feed.unreadable]
        feed.unreadable.clear()
        rows += bool(items)
        waiting = tuple(item.place for item in packer.state_dict()["waiting"])
        behind = msgspec.structs.replace(state, rows=rows, place=feed.cursor, waiting=waiting)
        yield PackedRow(number, items, faults, behind)
        if failed is not None:
            raise failed
        if not items:
            return
