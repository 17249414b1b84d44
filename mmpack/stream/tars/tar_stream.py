"""TarStream: rows of tars without an index, packed in the order of the tars.

Without an index there is no plan, and therefore no shuffling, mixing or balancing; each rank reads its own tars. Packing,
masks and exact resuming are the same as with an index.
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
from mmpack.plan.plan_config import ReaderConfig
from mmpack.prefetch import Closeable, Prefetcher
from mmpack.quarantine import Quarantine, UnreadableSample
from mmpack.rows.assemble import RowAssembler
from mmpack.rows.row import Row
from mmpack.stream.tars.pack_rows import (
    POOL_BYTES,
    STATE_VERSION,
    PackedRow,
    TarState,
    TarStreamConfig,
    iter_packed_rows,
    read_tar_state,
)
from mmpack.stream.tars.tar_samples import TarCursor, TarSamples
from mmpack.stream.tars.urls import expand_urls


class TarStream(Closeable):
    """An iterator over the rows of one rank, built from stand-alone samples in tars.

    A sample is the adjacent members of one key: a `txt`, or an image (`jpg`, `jpeg`, `png`) or audio (`wav`, `flac`,
    `ogg`) with or without a `txt`. Other members are ignored, and a warning names each of their extensions once. Tars may
    be gzipped.

    A sample that cannot be read or does not fit a row is recorded and skipped, and so is a missing tar or the rest of a
    tar that is cut short. A sample whose damage shows only at decoding keeps its positions, as in
    :class:`mmpack.stream.RowStream`. All of them count towards `reader.max_corrupt`.

    The state covers the rows that were handed out. A resumed stream gives the same rows as an uninterrupted one. It reads
    the tars of the samples that wait to be packed once more.

    Memory: the samples that wait to be packed take at most POOL_BYTES plus one sample, and `reader.prefetch` rows wait to
    be handed out.

    Args:
        urls: URLs of the tars, as :func:`expand_urls` takes them; a rank reads every `ranks`-th tar.
        config: settings of the rows.
        layout: token layout; None: the default.
        rank: data-parallel rank of this process, from 0.
        ranks: number of data-parallel ranks.
        reader: `[reader]` settings; `threads`, `prefetch`, `retries`, `max_corrupt` and `quarantine` are used.

    Attributes:
        config: settings of the rows.
        quarantine: record of the unreadable samples.

    Raises:
        ConfigError: there are fewer tars than ranks, or a setting is invalid.
        MissingDependencyError: the layout's codec needs a package.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        config: TarStreamConfig,
        *,
        layout: LayoutConfig | None = None,
        rank: int = 0,
        ranks: int = 1,
        reader: ReaderConfig | None = None,
    ) -> None:
        self.config = config
        self.reader = reader or ReaderConfig()
        self._check_reader()
        self.rank, self.ranks = rank, ranks
        self._urls = self._select_urls(expand_urls(urls))
        self._layout = Layout(layout or LayoutConfig())
        self._assembler = RowAssembler(self._layout, config.max_seq_len, [{}], config.rows)
        self._state = TarState(
            version=STATE_VERSION, rows=0, cursor=TarCursor(0, 0), waiting=(), fingerprint=self._fingerprint()
        )
        self._samples = self._open_samples()
        self._rows: Prefetcher[PackedRow, tuple[Row | None, list[UnreadableSample], TarState]] | None = None
        self.quarantine = Quarantine(Path(self.reader.quarantine), rank, self.reader.max_corrupt)

    def __iter__(self) -> Iterator[Row]:
        return self

    def __next__(self) -> Row:
        while True:
            if self._rows is None:
                self._rows = self._start()
            try:
                row, unreadable, state = next(self._rows)
                for sample in unreadable:
                    self.quarantine.record(sample)
            except StopIteration:
                if not self._state.rows:
                    raise DataError(
                        "no tar contains a readable sample",
                        where=self._urls[0],
                        hint=f"See {self.reader.quarantine} for the reasons.",
                    ) from None
                raise
            except BaseException:
                # No row was handed out, so iterating again, or resuming from the state, meets the same error.
                self.close()
                raise
            self._state = state
            if row is not None:
                return row

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of this rank: plain numbers, lists and strings, some kilobytes."""
        return msgspec.to_builtins(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resumes after the rows that were handed out when `state` was taken.

        Raises:
            DataError: `state` is damaged or not the state of a tar stream.
            ConfigError: `state` belongs to other tars, another rank or other settings.
        """
        saved = read_tar_state(state)
        if saved.fingerprint != self._state.fingerprint:
            raise ConfigError(
                "the state belongs to other tars, or to another rank, layout, max_seq_len, pool or number of ranks",
                where="state",
                hint="Resume with the tars and settings that the training run was started with.",
            )
        self.close()
        self._state = saved

    def close(self) -> None:
        """Ends prefetching with its threads; iterating again continues after the rows handed out."""
        self._samples.close()
        self._samples = self._open_samples()
        if self._rows is not None:
            self._rows.close()
            self._rows = None

    def _select_urls(self, urls: list[str]) -> list[str]:
        """Returns the tars of this rank. Raises ConfigError if the rank has none."""
        if not 0 <= self.rank < self.ranks <= len(urls):
            raise ConfigError(
                f"{len(urls)} tars cannot be read by rank {self.rank} of {self.ranks} ranks",
                where="urls",
                hint="Count ranks from 0, and use at least as many tars as ranks: each rank reads tars of its own.",
            )
        return urls[self.rank :: self.ranks]

    def _check_reader(self) -> None:
        """Raises ConfigError if a `[reader]` setting needs an index."""
        for name in ("workers", "cache"):
            if getattr(self.reader, name):
                raise ConfigError(
                    "a stream of tars without an index reads in threads and caches nothing on disk",
                    where=f"reader.{name}",
                    hint=f"Remove reader.{name}, or build shards with an index: mmpack build-shards.",
                )

    def _open_samples(self) -> TarSamples:
        return TarSamples(self._urls, self._layout, self.config.max_seq_len, retries=self.reader.retries)

    def _fingerprint(self) -> str:
        row_settings = [self._layout.fingerprint, self.config.max_seq_len, self.config.pool, POOL_BYTES]
        data = msgspec.json.encode([*row_settings, self.rank, self.ranks, self._urls])
        return hashlib.sha256(data).hexdigest()[:16]

    def _start(self) -> Prefetcher[PackedRow, tuple[Row | None, list[UnreadableSample], TarState]]:
        # The prefetcher gets no reference to the stream, so that an abandoned stream can be collected and closed.
        packed_rows = iter_packed_rows(
            self._samples,
            self._state,
            self.config,
            max_unreadable=self.reader.max_corrupt,
            rank=self.rank,
            ranks=self.ranks,
        )
        return Prefetcher(
            partial(_assemble_row, self._assembler),
            packed_rows,
            threads=self.reader.threads,
            depth=self.reader.prefetch,
        )


def _assemble_row(
    assembler: RowAssembler, packed: PackedRow
) -> tuple[Row | None, list[UnreadableSample], TarState]:
    """Assembles a packed row; None if it has no samples."""
    unreadable = list(packed.unreadable)
    if not packed.items:
        return None, unreadable, packed.state
    documents = tuple(PlannedDocument(0, (item.planned,), item.planned.tokens) for item in packed.items)
    members = {(0, item.planned.number): item.members for item in packed.items}
    row, undecodable = assembler.assemble(PlannedRow(packed.number, documents), members)
    return row, unreadable + undecodable, packed.state
