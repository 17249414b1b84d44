"""PLAN.toml: the settings for data sets, mixture, packing, balance and reading."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from mmpack.clock import parse_duration
from mmpack.errors import ConfigError
from mmpack.mixture.phase_config import PhaseConfig, check_phases
from mmpack.settings import NonNegativeFloat, NonNegativeInt, RowLength, Settings, parse_size

_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,64}")

#: Largest number of rows of a window, which is planned as a whole in memory.
_MAX_ROWS = 1 << 22


class DatasetConfig(Settings, frozen=True, kw_only=True):
    """One `[[datasets]]` table: samples of one shard set that are drawn as one data set.

    Raises:
        ConfigError: a setting is out of range, or the name is not valid.
    """

    name: str
    """Name of the data set, which the phases use."""
    shards: str
    """Folder or object store URL of a shard set; a path is relative to the plan file."""
    select: tuple[str, ...] = ("*",)
    """Patterns of names of recordings and sources in the shard set, such as `"drive-*"`; one match is enough."""
    max_epochs: Annotated[float, Meta(gt=0, lt=1_000_000)] | None = None
    """Repeat cap: largest number of epochs in the whole plan; after that, the other data sets take over the share.
    (Repeats gain little after about 4 epochs, arXiv 2305.16264.)"""
    locality: Annotated[int, Meta(ge=1, le=1 << 20)] = 32
    """Number of neighbouring documents of the index that stay together in the shuffle, so that one read serves several
    documents."""
    contrastive: bool = False
    """If true, a run or sample with texts becomes two documents of one row, one of media and one of texts, each with a
    `<|cls|>`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"'{self.name}' is not a valid name of a data set",
                where="datasets",
                hint="Use 1 to 64 letters, digits and '_.+-'.",
            )

    @property
    def _where(self) -> str:
        return f"datasets.{self.name}"


class CostConfig(Settings, frozen=True, kw_only=True):
    """`[cost]`: the cost of a document of l tokens, quadratic · l² + linear · l.

    The default is for a decoder of width 4,096: the matrix products of a layer cost as much as its attention where l is
    six times the width, see :func:`mmpack.packing.row_costs`.
    """

    quadratic: NonNegativeFloat = 1.0
    """Cost of attention, per l²."""
    linear: NonNegativeFloat = 24_576.0
    """Cost of matrix products, per l."""

    @property
    def _where(self) -> str:
        return "cost"


class RowsConfig(Settings, frozen=True, kw_only=True):
    """`[rows]`: the optional arrays of a row."""

    audio_frames: bool = False
    """If true, a row also has the audio itself, as float32 frames of one hop of the token layout, for models that do not
    read codec codes."""
    codec: str = ""
    """Folder of a `transformers` audio codec (Mimi, EnCodec), for token layouts whose codec is not built in."""


class ReaderConfig(Settings, frozen=True, kw_only=True):
    """`[reader]`: the settings for reading and decoding. They do not change the rows."""

    workers: Annotated[int, Meta(ge=0, le=1024)] = 0
    """Number of processes that read and decode; 0: threads of this process read and decode."""
    threads: Annotated[int, Meta(ge=0, le=1024)] = 2
    """Number of threads that read and decode, in this process or in each worker; 0: each row is read when it is
    requested."""
    prefetch: Annotated[int, Meta(ge=1, le=65_536)] = 8
    """Number of rows that are read before they are requested."""
    gap: str = "64kB"
    """Largest number of bytes between samples of one shard that are read together."""
    cache: str = ""
    """Folder of the disk cache; empty: no cache. A path is relative to the plan file."""
    cache_size: str = "10GB"
    """Largest size of the cache."""
    retries: Annotated[int, Meta(ge=0, le=100)] = 4
    """Number of times that a failed read is repeated; the wait doubles each time."""
    max_corrupt: NonNegativeInt = 100
    """Largest number of unreadable samples of a rank; one more stops the stream."""
    quarantine: str = "quarantine.jsonl"
    """File in which unreadable samples are recorded; a path is relative to the plan file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers and not self.threads:
            raise ConfigError(
                "the number of threads is 0, but worker processes need at least 1 thread",
                where="reader.threads",
            )
        for key in ("gap", "cache_size"):
            parse_size(getattr(self, key), where=self._key(key))

    @property
    def _where(self) -> str:
        return "reader"


class PlanConfig(Settings, frozen=True, kw_only=True):
    """The settings of a PLAN.toml.

    Raises:
        ConfigError: a setting is out of range, two data sets or two phases have the same name, a phase uses an unknown
            data set, or a phase never begins.
    """

    max_seq_len: RowLength
    """Number of positions of a row."""
    global_batch: Annotated[int, Meta(ge=1, le=1 << 24)]
    """Number of rows of a step, over all ranks."""
    datasets: tuple[DatasetConfig, ...]
    """Data sets of the plan."""
    phases: tuple[PhaseConfig, ...] = (PhaseConfig(name="all"),)
    """Phases of the mixture, in order."""
    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] = 0
    """Seed of every random choice in the plan."""
    window_steps: Annotated[int, Meta(ge=1, le=1 << 20)] = 64
    """Number of steps that are mixed, packed and balanced together."""
    balance: Literal["rank", "step", "off"] = "rank"
    """Balance mode. `rank`: the rows of a step are assigned to ranks by cost, and steps are random. `step`: rows of
    similar cost form a step, for one row per rank. `off`: rows stay in random order."""
    tolerance: str | None = None
    """Largest |residual| of a slice that is planned; if omitted, all slices of the shard set are planned."""
    cost: CostConfig = CostConfig()
    """Cost of a document, by which rows are balanced."""
    rows: RowsConfig = RowsConfig()
    """Optional arrays of a row."""
    reader: ReaderConfig = ReaderConfig()
    """Settings for reading and decoding."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window_steps * self.global_batch > _MAX_ROWS:
            raise ConfigError(
                f"a window of {self.window_steps * self.global_batch:,} rows is more than {_MAX_ROWS:,}",
                where="window_steps",
                hint="Lower window_steps or global_batch.",
            )
        if self.tolerance is not None and parse_duration(self.tolerance, where="tolerance") < 0:
            raise ConfigError(f"{self.tolerance} is not at least 0", where="tolerance")
        if not self.datasets:
            raise ConfigError("there are no data sets", where="datasets", hint="Add a [[datasets]] table.")
        if not self.phases:
            raise ConfigError(
                "there are no phases", where="phases", hint="Omit 'phases', or add a [[phases]] table."
            )
        for key, names in (
            ("datasets", [dataset.name for dataset in self.datasets]),
            ("phases", [phase.name for phase in self.phases]),
        ):
            duplicate = next((name for name in names if names.count(name) > 1), None)
            if duplicate is not None:
                raise ConfigError(
                    f"the name '{duplicate}' is used twice", where=key, hint="Rename one of them."
                )
        check_phases(self.phases, [dataset.name for dataset in self.datasets])

    @property
    def tolerance_ns(self) -> int | None:
        """The tolerance in ns; None if all slices are planned."""
        return None if self.tolerance is None else parse_duration(self.tolerance)

    def resolve_paths(self, base: Path) -> PlanConfig:
        """Returns the same settings with relative paths resolved against `base`, the folder of the plan file."""
        from msgspec.structs import replace

        def resolve(path: str) -> str:
            return path if not path or "://" in path else str(base / path)

        return replace(
            self,
            datasets=tuple(replace(dataset, shards=resolve(dataset.shards)) for dataset in self.datasets),
            rows=replace(self.rows, codec=resolve(self.rows.codec)),
            reader=replace(
                self.reader, cache=resolve(self.reader.cache), quarantine=resolve(self.reader.quarantine)
            ),
        )
