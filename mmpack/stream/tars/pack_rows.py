"""Packing of tar samples into rows, and the state after each row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import msgspec

from mmpack.errors import DataError, MmpackError
from mmpack.packing import pack_stream
from mmpack.plan.plan_config import RowsConfig
from mmpack.quarantine import UnreadableSample
from mmpack.serialisation import Record, decode_state
from mmpack.settings import RowLength, Settings
from mmpack.stream.tars.tar_samples import Count32, TarCursor, TarSample, TarSamples

STATE_VERSION = 2
"""Version of the keys of `TarState`."""
MAX_POOL = 1 << 16
"""Largest number of samples that wait to be packed. The state lists each of them."""
POOL_BYTES = 512 << 20
"""Largest total size of the members of the samples that wait. Beyond it, rows are packed from fewer samples."""


class TarState(Record, frozen=True, kw_only=True):
    """The state of a tar stream, as a checkpoint stores it.

    Fields:
        version: version of this table.
        rows: number of rows that were handed out.
        cursor: cursor of the sample to read next.
        waiting: cursors of earlier samples that are in no row yet, ascending.
        fingerprint: hash of all settings that decide the rows, without the content of the tars.
    """

    version: int
    rows: Count32
    cursor: TarCursor
    waiting: Annotated[tuple[TarCursor, ...], msgspec.Meta(max_length=MAX_POOL)]
    fingerprint: str


class TarStreamConfig(Settings, frozen=True, kw_only=True):
    """The settings of a tar stream: what a row of tar samples consists of.

    Fields:
        max_seq_len: positions of a row.
        pool: largest number of samples that wait to be packed. It should be the samples of several rows: with fewer
            samples, rows have more padding.
        epochs: number of epochs; None: without end.
        rows: `[rows]` settings: optional arrays of a row.

    Raises:
        ConfigError: a number is out of range.
    """

    max_seq_len: RowLength
    pool: Annotated[int, msgspec.Meta(ge=1, le=MAX_POOL)] = 256
    epochs: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] | None = 1
    rows: RowsConfig = RowsConfig()


@dataclass(frozen=True, slots=True)
class PackedRow:
    """The samples of a row, the unreadable samples met since the row before, and the state after the row.

    The last packed row may have no samples, only unreadable ones.
    """

    number: int
    items: Sequence[TarSample]
    unreadable: Sequence[UnreadableSample]
    state: TarState


def read_tar_state(state: Mapping[str, Any]) -> TarState:
    """Decodes and checks a saved state. Raises DataError if it is damaged or not the state of a tar stream."""
    saved = decode_state(state, TarState, version=STATE_VERSION, noun="tar stream")
    if any(cursor >= following for cursor, following in pairwise([*saved.waiting, saved.cursor])):
        raise DataError("the sample cursors are not in ascending order", where="state")
    return saved


class _SampleFeed:
    """The iterator from which the packer takes its samples.

    It raises StopIteration while samples of POOL_BYTES wait, and continues when the packer asks again for the next row.
    It ends for good at the end of the tars, or after more than `max_unreadable` unreadable samples, which are handed out
    with the next row.

    Args:
        samples: samples and unreadable samples, each with the cursor after it.
        cursor: cursor of the first sample of `samples`.
        waiting_bytes: size of the samples that wait already.
        max_unreadable: largest number of unreadable samples.

    Attributes:
        cursor: cursor of the next sample to read.
        size_bytes: size of the samples that wait. The user of the feed subtracts the samples of each row.
        unreadable: unreadable samples met since the last row.
    """

    def __init__(
        self,
        samples: Iterator[tuple[TarSample | UnreadableSample, TarCursor]],
        cursor: TarCursor,
        waiting_bytes: int,
        max_unreadable: int,
    ) -> None:
        self.cursor = cursor
        self.size_bytes = waiting_bytes
        self.unreadable: list[UnreadableSample] = []
        self._samples = samples
        self._max_unreadable = max_unreadable

    def __iter__(self) -> Iterator[TarSample]:
        return self

    def __next__(self) -> TarSample:
        while self.size_bytes < POOL_BYTES and len(self.unreadable) <= self._max_unreadable:
            # The cursor moves past unreadable samples too, so that each is recorded once, wherever the stream stops.
            sample, self.cursor = next(self._samples)
            if isinstance(sample, TarSample):
                self.size_bytes += sample.size_bytes
                return sample
            self.unreadable.append(sample)
        raise StopIteration


def iter_packed_rows(
    samples: TarSamples,
    state: TarState,
    config: TarStreamConfig,
    *,
    max_unreadable: int,
    rank: int,
    ranks: int,
) -> Iterator[PackedRow]:
    """Yields every row after `state`, and at the end the unreadable samples after the last row.

    Args:
        samples: samples of the tars of this rank.
        state: state of the rows that were handed out.
        config: settings of the stream.
        max_unreadable: largest number of unreadable samples; one more stops the stream.
        rank: data-parallel rank.
        ranks: number of data-parallel ranks. Row i of a rank has the number i * ranks + rank.
    """
    waiting_samples = samples.reread(state.waiting)
    feed = _SampleFeed(
        samples.iter_from(state.cursor, config.epochs),
        state.cursor,
        sum(item.size_bytes for item in waiting_samples),
        max_unreadable,
    )
    packer = pack_stream(feed, config.max_seq_len, pool=config.pool, length=lambda item: item.planned.tokens)
    packer.load_state_dict(
        {
            "capacity": config.max_seq_len,
            "pool": config.pool,
            "taken": len(waiting_samples),
            "waiting": waiting_samples,
        }
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
        number = rows * ranks + rank
        unreadable = [msgspec.structs.replace(sample, row=number) for sample in feed.unreadable]
        feed.unreadable.clear()
        rows += bool(items)
        waiting = tuple(item.cursor for item in packer.state_dict()["waiting"])
        state_after = msgspec.structs.replace(state, rows=rows, cursor=feed.cursor, waiting=waiting)
        yield PackedRow(number, items, unreadable, state_after)
        if failed is not None:
            raise failed
        if not items:
            return
