"""The rows of one rank for a training loop: in order, and resumable at any row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from mmpack.errors import ConfigError, DataError, MmpackError
from mmpack.layout import LayoutConfig
from mmpack.plan import Plan, PlannedRow, open_plan, read_state
from mmpack.plan.plan_config import PlanConfig, ReaderConfig
from mmpack.prefetch import Closeable, Prefetcher
from mmpack.quarantine import Quarantine, UnreadableSample
from mmpack.rows.row import Row
from mmpack.settings import load_settings, parse_settings
from mmpack.stream.row_pipeline import RowPipelineSpec
from mmpack.stream.tars.pack_rows import TarStreamConfig
from mmpack.stream.tars.tar_stream import TarStream
from mmpack.stream.workers.pool import ProcessPrefetcher


class RowStream(Closeable):
    """An iterator over the rows of one rank.

    The rows of a step follow each other; a rank has `global_batch // ranks` of them. Ranks are data-parallel ranks:
    tensor- and expert-parallel peers use the same rank and get the same rows.

    The state covers the rows that were handed out, however far prefetching is ahead. It takes a few hundred bytes and is
    equal on all ranks that have handed out the same number of rows. A state taken at the end of a step can be resumed on
    another number of ranks.

    A stream has one consumer: a single thread iterates it and asks for its state.

    Args:
        plan: plan of the training run.
        rank: data-parallel rank of this process, from 0.
        ranks: number of data-parallel ranks.
        reader: `[reader]` settings that replace those of the plan. The rows do not depend on them.

    Raises:
        ConfigError: the rows of a step cannot be divided equally among the ranks.

    Attributes:
        quarantine: record of the unreadable samples.
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
        self.quarantine = Quarantine(Path(self.reader.quarantine), rank, self.reader.max_corrupt)

    @classmethod
    def open(
        cls, path: str | Path, *, rank: int = 0, ranks: int = 1, reader: Mapping[str, Any] | None = None
    ) -> Self:
        """Opens the stream of a PLAN.toml.

        Args:
            path: path of the file.
            rank: data-parallel rank of this process, from 0.
            ranks: number of data-parallel ranks.
            reader: settings that override those of the `[reader]` table, as `{"workers": 2}`.

        Raises:
            ConfigError: a setting is wrong, or the shard sets do not fit together.
            IntegrityError, StorageError, DataError: a shard set cannot be read or planned.
        """
        plan = load_plan(path)
        reader_config = plan.config.reader
        if reader:
            table = msgspec.to_builtins(reader_config) | dict(reader)
            reader_config = parse_settings(table, ReaderConfig, where="argument reader")
        return cls(plan, rank=rank, ranks=ranks, reader=reader_config)

    @classmethod
    def from_webdataset(
        cls,
        urls: str | Sequence[str],
        config: TarStreamConfig,
        *,
        layout: LayoutConfig | None = None,
        rank: int = 0,
        ranks: int = 1,
        reader: ReaderConfig | None = None,
    ) -> TarStream:
        """Opens a stream over tars of stand-alone samples without an index, as `"s3://bucket/train-{000..255}.tar"`.

        The samples are packed in the order of the tars. There is no plan, so there is no shuffling, mixing or balancing.
        See :class:`TarStream` for the arguments and errors.
        """
        return TarStream(urls, config, layout=layout, rank=rank, ranks=ranks, reader=reader)

    def __iter__(self) -> Iterator[Row]:
        return self

    def __next__(self) -> Row:
        if self._rows is None:
            self._rows = self._start()
        try:
            row, unreadable = next(self._rows)
            # Unreadable samples count when their row is handed out, not when it is prefetched.
            for sample in unreadable:
                self.quarantine.record(sample)
        except StopIteration:
            raise
        except BaseException:
            # The row was not handed out, so iterating again, or resuming from the state, starts with this row.
            self.close()
            raise
        self._row += self.ranks
        return row

    def state_dict(self) -> dict[str, Any]:
        """Returns the state to resume from: plain numbers and strings, less than a kilobyte, equal on all ranks."""
        return msgspec.to_builtins(self.plan.state(self._row, self.ranks))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resumes after the rows that were handed out when `state` was taken.

        Raises:
            ConfigError: the state belongs to another plan (the message names what differs), or it was taken within a step
                on another number of ranks.
            DataError: the state is damaged.
        """
        saved = read_state(state)
        batch = self.plan.config.global_batch
        if not saved.ranks or saved.row % batch % saved.ranks:
            raise DataError(
                f"{saved.ranks} ranks cannot have handed out {saved.row} rows together", where="state"
            )
        if saved.row % batch and saved.ranks != self.ranks:
            step = saved.row // batch
            raise ConfigError(
                f"the state was taken within step {step} on {saved.ranks} ranks, but there are {self.ranks} ranks now",
                where="state",
                hint=f"Resume from a state at the end of a step, or on {saved.ranks} ranks.",
            )
        self.plan.load_state(saved)
        self.close()
        self._row = saved.row

    def seek(self, step: int) -> None:
        """Continues with the first row of `step`; windows before it that were not planned yet are planned.

        Raises:
            DataError: the plan ends before that step.
        """
        first = step * self.plan.config.global_batch
        self.plan.step_rows(step, self.rank, self.ranks)
        self.close()
        self._row = first

    def close(self) -> None:
        """Ends prefetching with its threads and processes; iterating again starts them anew."""
        if self._rows is not None:
            self._rows.close()
            self._rows = None

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
        return Prefetcher(spec(), planned, threads=settings.threads, depth=settings.prefetch)


def _rank_rows(plan: Plan, row: int, rank: int, ranks: int) -> Iterator[PlannedRow]:
    """Yields the planned rows of a rank after `row` handed-out rows of all ranks.

    It is not a method, because the prefetcher holds this generator and must not keep an abandoned stream alive.
    """
    batch = plan.config.global_batch
    done = row % batch // ranks
    for step in plan.steps(row // batch):
        for number in plan.step_rows(step, rank, ranks)[done:]:
            yield plan.row(number)
        done = 0


def load_plan_config(path: str | Path) -> PlanConfig:
    """Loads a PLAN.toml and resolves relative paths against its folder, so that they hold in any working directory.

    Raises:
        ConfigError: the file or a setting is invalid.
    """
    return load_settings(Path(path), PlanConfig).resolve_paths(Path(path).absolute().parent)


def load_plan(path: str | Path) -> Plan:
    """Opens the plan of a PLAN.toml.

    Raises:
        ConfigError, DataError, IntegrityError, StorageError: see :func:`mmpack.plan.open_plan`; an error about a key of
            the file also names the file.
    """
    config = load_plan_config(path)
    try:
        return open_plan(config)
    except MmpackError as error:
        if error.where.partition(".")[0] not in PlanConfig.__struct_fields__:
            raise
        raise type(error)(error.message, where=f"{path} [{error.where}]", hint=error.hint) from None
