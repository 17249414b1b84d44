"""Rows of the samples of tars, packed as they come.

Without an index nothing can be planned: there is no shuffle, no mixture and no balance, and a rank reads its own tars.
What remains is the packing, the masks and the exact resume.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from mmpack.errors import ConfigError, DataError
from mmpack.layout import Layout, LayoutConfig
from mmpack.plan import PlannedDocument, PlannedRow
from mmpack.plan.plan_config import ReaderConfig, RowsConfig
from mmpack.prefetch import Closeable, Prefetcher
from mmpack.quarantine import Quarantine, UnreadableSample
from mmpack.rows.assemble import RowAssembler
from mmpack.rows.row import Row
from mmpack.stream.tars.pack_rows import (
    MAX_POOL,
    POOL_BYTES,
    STATE_VERSION,
    PackedRow,
    TarPackingConfig,
    TarState,
    iter_packed_rows,
    read_tar_state,
)
from mmpack.stream.tars.tar_samples import TarCursor, TarSamples
from mmpack.stream.tars.urls import expand_urls


class TarStream(Closeable):
    """An iterator over a rank's rows of stand-alone samples in tars.

    A sample is the adjacent members of one key: a `txt`, or a picture (`jpg`, `jpeg`, `png`) or clip (`wav`, `flac`,
    `ogg`) with or without one. Other members are left aside, and a warning names each kind of them once. Tars may be
    gzipped.

    A sample that cannot be read or does not fit a row is recorded and passed over, and so is the rest of a tar that is
    cut short, or a tar that is not there. One whose damage shows only when it is decoded keeps its places, as in
    :class:`mmpack.stream.RowStream`. All of them count against `reader.max_corrupt`.

    The state is that of the rows handed out. A run that goes on from it gives the same rows as one that never stopped;
    the tars of the samples that wait are read once more.

    Memory: samples of at most POOL_BYTES and one more wait to be packed, and `reader.prefetch` rows to be handed out.

    Args:
        urls: of the tars, as :func:`expand_urls` takes them; a rank reads every `ranks`-th.
        layout: what samples become as tokens.
        max_seq_len: token places of a row.
        rank, ranks: this process's share.
        epochs: how often all is read; None: for ever.
        pool: samples that wait to be packed. It should hold several rows: with fewer, rows stay less full.
        rows: what a row holds beside its ids.
        reader: `threads`, `prefetch`, `retries`, `max_corrupt` and `quarantine` of it are used.

    Attributes:
        quarantine: what could not be read so far.

    Raises:
        ConfigError: there are fewer tars than ranks, or a setting is wrong.
        MissingDependencyError: the layout's codec needs a package.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        layout: LayoutConfig | None = None,
        *,
        max_seq_len: int,
        rank: int = 0,
        ranks: int = 1,
        epochs: int | None = 1,
        pool: int = 256,
        rows: RowsConfig | None = None,
        reader: ReaderConfig | None = None,
    ) -> None:
        self.reader = reader or ReaderConfig()
        self.rank, self.ranks = rank, ranks
        self._urls = self._share(expand_urls(urls))
        self._flow = self._checked_flow(max_seq_len, pool, epochs)
        self._layout = Layout(layout or LayoutConfig())
        self._maker = RowAssembler(self._layout, max_seq_len, [{}], rows or RowsConfig())
        self._state = TarState(
            version=STATE_VERSION, rows=0, place=TarCursor(0, 0), waiting=(), fingerprint=self._fingerprint()
        )
        self._samples = self._open()
        self._rows: Prefetcher[PackedRow, tuple[Row | None, list[UnreadableSample], TarState]] | None = None
        self.quarantine = Quarantine(Path(self.reader.quarantine), rank, self.reader.max_corrupt)

    def __iter__(self) -> Iterator[Row]:
        return self

    def __next__(self) -> Row:
        while True:
            if self._rows is None:
                self._rows = self._start()
            try:
                row, faults, state = next(self._rows)
                for fault in faults:
                    self.quarantine.record(fault)
            except StopIteration:
                if not self._state.rows:
                    raise DataError(
                        "no tar holds a sample that can be read",
                        where=self._urls[0],
                        hint=f"What was met is in {self.reader.quarantine}.",
                    ) from None
                raise
            except BaseException:
                # Nothing was handed out: whoever goes on, here or from the state, meets it again.
                self.close()
                raise
            self._state = state
            if row is not None:
                return row

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is: plain numbers, lists and strings, some kilobytes, of this rank alone."""
        return msgspec.to_builtins(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on behind the rows that were handed out when `state` was taken.

        Raises:
            DataError: it is no such state, or damaged.
            ConfigError: it is of other tars, another share of them or another layout.
        """
        found = read_tar_state(state)
        if found.fingerprint != self._state.fingerprint:
            raise ConfigError(
                "the state is of other tars, or of another rank, layout, max_seq_len or number of ranks",
                where="state",
                hint="Resume with what the run was started with.",
            )
        self.close()
        self._state = found

    def close(self) -> None:
        """Ends reading ahead; iterating goes on behind the rows handed out."""
        self._samples.close()
        self._samples = self._open()
        if self._rows is not None:
            self._rows.close()
            self._rows = None

    def _share(self, urls: list[str]) -> list[str]:
        """This rank's tars."""
        if not 0 <= self.rank < self.ranks <= len(urls):
            raise ConfigError(
                f"rank {self.rank} of {self.ranks} ranks on {len(urls)} tars",
                where="urls",
                hint="Ranks count from 0, and every rank reads tars of its own: use at least as many tars as ranks.",
            )
        return urls[self.rank :: self.ranks]

    def _checked_flow(self, max_seq_len: int, pool: int, epochs: int | None) -> TarPackingConfig:
        for name, value, low, high in (
            ("max_seq_len", max_seq_len, 8, 1 << 24),
            ("pool", pool, 1, MAX_POOL),
            ("epochs", 1 if epochs is None else epochs, 1, 1 << 20),
        ):
            if not low <= value <= high:
                raise ConfigError(f"{value} is not within {low} and {high}", where=name)
        for name in ("workers", "cache"):
            if getattr(self.reader, name):
                raise ConfigError(
                    "a stream of tars without an index reads in threads, and keeps nothing on disk",
                    where=f"reader.{name}",
                    hint="Leave it out, or build shards with an index: mmpack build-shards.",
                )
        turns = None if epochs is None else epochs * len(self._urls)
        return TarPackingConfig(max_seq_len, pool, turns, self.reader.max_corrupt, self.rank, self.ranks)

    def _open(self) -> TarSamples:
        return TarSamples(self._urls, self._layout, self._flow.capacity, retries=self.reader.retries)

    def _fingerprint(self) -> str:
        flow = self._flow
        of_rows = [self._layout.fingerprint, flow.capacity, flow.pool, POOL_BYTES]
        told = msgspec.json.encode([*of_rows, flow.rank, flow.ranks, self._urls])
        return hashlib.sha256(told).hexdigest()[:16]

    def _start(self) -> Prefetcher[PackedRow, tuple[Row | None, list[UnreadableSample], TarState]]:
        # Of the stream itself nothing is handed on: who reads ahead must not hold it, so that it can be forgotten.
        packed = iter_packed_rows(self._samples, self._state, self._flow)
        return Prefetcher(
            partial(_assemble_row, self._maker),
            packed,
            threads=self.reader.threads,
            depth=self.reader.prefetch,
        )


def _assemble_row(
    maker: RowAssembler, packed: PackedRow
) -> tuple[Row | None, list[UnreadableSample], TarState]:
    faults = list(packed.unreadable)
    if not packed.items:
        return None, faults, packed.state
    documents = tuple(PlannedDocument(0, (item.planned,), item.planned.tokens) for item in packed.items)
    found = {(0, item.planned.number): item.members for item in packed.items}
    row, undecoded = maker.assemble(PlannedRow(packed.number, documents), found)
    return row, faults + undecoded, packed.state
