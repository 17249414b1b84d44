"""From the samples of tars to those of each row, and the state behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import msgspec

from mmpack.errors import DataError, MmpackError
from mmpack.packing import pack_stream
from mmpack.quarantine import Fault
from mmpack.serialisation import from_builtins
from mmpack.settings import Settings
from mmpack.stream.tars.tar_samples import Count, Place, TarItem, TarSamples

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
    rows: Count
    place: Place
    waiting: Annotated[tuple[Place, ...], msgspec.Meta(max_length=MAX_POOL)]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Flow:
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
    turns: int | None
    max_faults: int
    rank: int
    ranks: int


@dataclass(frozen=True, slots=True)
class Packed:
    """A row's samples, what could not be read on the way to it, and where the stream is behind it. The last one may have
    faults alone.
    """

    number: int
    items: Sequence[TarItem]
    faults: Sequence[Fault]
    state: TarState


def read_state(state: Mapping[str, Any]) -> TarState:
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


class _Feed:
    """What the packer takes its samples from.

    It ends while POOL_BYTES wait, and goes on when it is asked again for the next row. It ends for good at the end of the
    tars, or when there are more faults than the run puts up with: they are told with the next row.

    Attributes:
        place: of the next sample to be read.
        size_bytes: of the samples that wait; who takes them out counts them out.
        faults: met since the last row.
    """

    def __init__(
        self, found: Iterator[tuple[TarItem | Fault, Place]], place: Place, waited: int, max_faults: int
    ) -> None:
        self.place = place
        self.size_bytes = waited
        self.faults: list[Fault] = []
        self._found = found
        self._max_faults = max_faults

    def __iter__(self) -> Iterator[TarItem]:
        return self

    def __next__(self) -> TarItem:
        while self.size_bytes < POOL_BYTES and len(self.faults) <= self._max_faults:
            # The place is moved with what it lies behind: a fault is told once, wherever the run is stopped.
            found, self.place = next(self._found)
            if isinstance(found, TarItem):
                self.size_bytes += found.size_bytes
                return found
            self.faults.append(found)
        raise StopIteration


def packed_rows(samples: TarSamples, state: TarState, flow: Flow) -> Iterator[Packed]:
    """Every row from a state on, and at last the faults behind it."""
    waited = samples.again(state.waiting)
    feed = _Feed(
        samples.after(state.place, flow.turns),
        state.place,
        sum(item.size_bytes for item in waited),
        flow.max_faults,
    )
    packer = pack_stream(feed, flow.capacity, pool=flow.pool, length=lambda item: item.planned.tokens)
    packer.load_state_dict(
        {"capacity": flow.capacity, "pool": flow.pool, "taken": len(waited), "waiting": waited}
    )
    rows = state.rows
    failed: MmpackError | None = None
    while True:
        items: list[TarItem] = []
        try:
            items = next(packer, items)
        except MmpackError as error:
            failed = error
        feed.size_bytes -= sum(item.size_bytes for item in items)
        number = rows * flow.ranks + flow.rank
        faults = [msgspec.structs.replace(fault, row=number) for fault in feed.faults]
        feed.faults.clear()
        rows += bool(items)
        waiting = tuple(item.place for item in packer.state_dict()["waiting"])
        behind = msgspec.structs.replace(state, rows=rows, place=feed.place, waiting=waiting)
        yield Packed(number, items, faults, behind)
        if failed is not None:
            raise failed
        if not items:
            return
