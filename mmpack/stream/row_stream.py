"""What a training loop iterates: the rows of one rank, in order, from any point of the run on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from mmpack.errors import ConfigError, DataError
from mmpack.layout import LayoutConfig
from mmpack.plan import Plan, PlannedRow, open_plan, read_state
from mmpack.plan.plan_config import PlanConfig, ReaderConfig, RowsConfig
from mmpack.prefetch import Closeable, Prefetcher
from mmpack.quarantine import Quarantine, UnreadableSample
from mmpack.rows.row import Row
from mmpack.serialisation import from_builtins
from mmpack.settings import load_settings
from mmpack.stream.row_pipeline import RowPipeline, RowPipelineSpec
from mmpack.stream.tars.tar_stream import TarStream
from mmpack.stream.workers.pool import ProcessPrefetcher


class RowStream(Closeable):
    """An iterator over a rank's rows.

    Rows of a step come one after the other; a rank has `global_batch // ranks` of them. Ranks are data-parallel
    ranks: tensor- and expert-parallel peers ask for the same rank and get the same rows.

    The state is that of the rows handed out, wherever reading ahead is by then. It is equal on all ranks that are in
    step with each other, and a few hundred bytes. On another number of ranks a run goes on from the end of any step.

    It has one consumer: what iterates it, and asks for its state, is one thread.

    Args:
        plan: which rows there are.
        rank, ranks: this process's share.
        reader: how media are read, in place of the plan's own settings. Rows do not depend on it.

    Raises:
        ConfigError: the ranks cannot share a step's rows.
    """

    def __init__(
        self, plan: Plan, *, rank: int = 0, ranks: int = 1, reader: ReaderConfig | None = None
    ) -> None:
        plan.check_ranks(rank, ranks)
        self.plan = plan
        self.rank, self.ranks = rank, ranks
        self.reader = reader or plan.config.reader
        self._row = 0
        self._rows: Prefetcher | ProcessPrefetcher | None = None
        self._pipeline: RowPipeline | None = None
        self.quarantine = Quarantine(Path(self.reader.quarantine), rank, self.reader.max_corrupt)

    @classmethod
    def open(
        cls, path: str | Path, *, rank: int = 0, ranks: int = 1, reader: Mapping[str, Any] | None = None
    ) -> Self:
        """The stream of a PLAN.toml.

        Args:
            path: of the file.
            rank, ranks: this process's share.
            reader: settings that overrule those of its `[reader]` table, as `{"workers": 2}`.

        Raises:
            ConfigError: a setting is wrong, or the builds do not fit each other.
            IntegrityError, StorageError, DataError: a build cannot be read or planned.
        """
        config = load_plan_config(path)
        own = config.reader
        if reader:
            try:
                own = from_builtins(msgspec.to_builtins(own) | dict(reader), ReaderConfig)
            except msgspec.ValidationError as error:
                raise ConfigError(str(error), where="reader") from None
        return cls(open_plan(config), rank=rank, ranks=ranks, reader=own)

    @classmethod
    def from_webdataset(
        cls,
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
    ) -> TarStream:
        """Rows of stand-alone samples in tars that have no index of mmpack's, as `"s3://bucket/train-{000..255}.tar"`.

        They are packed as they come, so there is no plan: no shuffle, mixture or balance. See :class:`TarStream` for
        arguments and errors.
        """
        return TarStream(
            urls,
            layout,
            max_seq_len=max_seq_len,
            rank=rank,
            ranks=ranks,
            epochs=epochs,
            pool=pool,
            rows=rows,
            reader=reader,
        )

    def __iter__(self) -> Iterator[Row]:
        return self

    def __next__(self) -> Row:
        if self._rows is None:
            self._rows = self._start()
        try:
            row, faults = next(self._rows)
            # Counted once they are handed out, not when they are met: reading ahead is no part of the run.
            for fault in faults:
                self.quarantine.record(fault)
        except StopIteration:
            raise
        except BaseException:
            # The row was not handed out: whoever goes on, here or from the state, goes on with it.
            self.close()
            raise
        self._row += self.ranks
        return row

    def state_dict(self) -> dict[str, Any]:
        """Where the run is: plain numbers and strings, less than a kilobyte, equal on all ranks."""
        return msgspec.to_builtins(self.plan.state(self._row, self.ranks))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on behind the rows that were handed out when `state` was taken.

        Raises:
            ConfigError: it belongs to another plan (says what differs), or lies within a step of another number of
                ranks.
            DataError: it is damaged.
        """
        found = read_state(state)
        batch = self.plan.config.global_batch
        if not found.ranks or found.row % batch % found.ranks:
            raise DataError(f"{found.ranks} ranks do not have {found.row} rows together", where="state")
        if found.row % batch and found.ranks != self.ranks:
            step = found.row // batch
            raise ConfigError(
                f"the state lies within step {step}, of {found.ranks} ranks, and there are {self.ranks} now",
                where="state",
                hint=f"Resume from a state at the end of a step, or on {found.ranks} ranks.",
            )
        self.plan.load_state(found)
        self.close()
        self._row = found.row

    def seek(self, step: int) -> None:
        """Goes on with the first row of a step; what comes before it in the run is planned, if it was not yet.

        Raises:
            DataError: the run ends before that step.
        """
        first = step * self.plan.config.global_batch
        self.plan.step_rows(step, self.rank, self.ranks)
        self.close()
        self._row = first

    def close(self) -> None:
        """Ends reading ahead, its threads and processes."""
        if self._rows is not None:
            self._rows.close()
            self._rows = None
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None

    def _start(self) -> Prefetcher[PlannedRow, tuple[Row, list[UnreadableSample]]] | ProcessPrefetcher:
        spec = RowPipelineSpec.from_plan(self.plan, self.reader)
        settings = self.reader
        planned = _rank_rows(self.plan, self._row, self.rank, self.ranks)
        if settings.workers:
            return ProcessPrefetcher(
                spec,
                planned,
                workers=settings.workers,
                threads=settings.threads,
                depth=settings.prefetch,
            )
        self._pipeline = spec()
        return Prefetcher(self._pipeline, planned, threads=settings.threads, depth=settings.prefetch)


def _rank_rows(plan: Plan, row: int, rank: int, ranks: int) -> Iterator[PlannedRow]:
    """A rank's rows from where the run is. No method: who reads ahead holds it, and must not hold the stream."""
    batch = plan.config.global_batch
    done = row % batch // ranks
    for step in plan.steps(row // batch):
        for number in plan.step_rows(step, rank, ranks)[done:]:
            yield plan.row(number)
        done = 0


def load_plan_config(path: str | Path) -> PlanConfig:
    """A PLAN.toml, its paths made absolute from where it lies: what is recorded holds elsewhere too. Raises ConfigError."""
    return load_settings(Path(path), PlanConfig).resolve_paths(Path(path).absolute().parent)
