"""PLAN.toml: the settings for data sets, mixture, packing, balance and reading."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from mmpack.clock import parse_duration
from mmpack.errors import ConfigError
from mmpack.mixture.phase_config import PhaseConfig
from mmpack.settings import Settings, parse_size

_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,64}")

#: Largest number of rows of a window, which is planned as a whole in memory.
_MAX_ROWS = 1 << 22


class DatasetConfig(Settings, frozen=True, kw_only=True):
    """One `[[datasets]]` table: samples of one shard set that are drawn as one data set.

    Raises:
        ConfigError: a setting is out of range.
    """

    name: str
    """Name of the data set, which the phases use."""
    shards: str
    """Folder or object store URL of a shard set; a path is relative to the plan file."""
    select: tuple[str, ...] = ("*",)
    """Patterns of names of recordings and sources in the shard set, such as `"drive-*"`; one match is enough."""
    max_epochs: float | None = None
    """Repeat cap: largest number of epochs in the whole plan; after that, the other data sets take over the share.
    (Repeats gain little after about 4 epochs, arXiv 2305.16264.)"""
    locality: int = 32
    """Number of neighbouring documents of the index that stay together in the shuffle, so that one read serves several
    documents."""
    contrastive: bool = False
    """If true, a run or sample with texts becomes two documents of one row, one of media and one of texts, each with a
    `<|cls|>`."""

    def __post_init__(self) -> None:
        where = f"datasets.{self.name}"
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"'{self.name}' is not a valid name of a data set",
                where="datasets",
                hint="Use 1 to 64 letters, digits and '_.+-'.",
            )
        if self.max_epochs is not None and not 0 < self.max_epochs < 1e6:
            raise ConfigError(f"max_epochs {self.max_epochs} is not above 0 and below 1,000,000", where=where)
        if not 1 <= self.locality <= 1 << 20:
            raise ConfigError(f"locality {self.locality} is not 1 to {1 << 20}", where=where)


class CostConfig(Settings, frozen=True, kw_only=True):
    """`[cost]`: the cost of a document of l tokens, quadratic · l² + linear · l.

    The default is for a decoder of width 4,096: the matrix products of a layer cost as much as its attention where l is
    six times the width, see :func:`mmpack.packing.row_costs`.
    """

    quadratic: float = 1.0
    """Cost of attention, per l²."""
    linear: float = 24_576.0
    """Cost of matrix products, per l."""

    def __post_init__(self) -> None:
        if not (0 <= self.quadratic < float("inf") and 0 <= self.linear < float("inf")):
            raise ConfigError("the coefficients of the cost must be finite and at least 0", where="cost")


class RowsConfig(Settings, frozen=True, kw_only=True):
    """`[rows]`: the optional arrays of a row."""

    audio_frames: bool = False
    """If true, a row also has the audio itself, as float32 frames of one hop of the token layout, for models that do not
    read codec codes."""
    codec: str = ""
    """Folder of a `transformers` audio codec (Mimi, EnCodec), for token layouts whose codec is not built in."""


class ReaderConfig(Settings, frozen=True, kw_only=True):
    """`[reader]`: the settings for reading and decoding. They do not change the rows."""

    workers: int = 0
    """Number of processes that read and decode; 0: threads of this process read and decode."""
    threads: int = 2
    """Number of threads that read and decode, in this process or in each worker; 0: each row is read when it is
    requested."""
    prefetch: int = 8
    """Number of rows that are read before they are requested."""
    gap: str = "64kB"
    """Largest number of bytes between samples of one shard that are read together."""
    cache: str = ""
    """Folder of the disk cache; empty: no cache. A path is relative to the plan file."""
    cache_size: str = "10GB"
    """Largest size of the cache."""
    retries: int = 4
    """Number of times that a failed read is repeated; the wait doubles each time."""
    max_corrupt: int = 100
    """Largest number of unreadable samples of a rank; one more stops the stream."""
    quarantine: str = "quarantine.jsonl"
    """File in which unreadable samples are recorded; a path is relative to the plan file."""

    def __post_init__(self) -> None:
        for key, low, high in (
            ("workers", 0, 1024),
            ("threads", 0, 1024),
            ("prefetch", 1, 65536),
            ("retries", 0, 100),
        ):
            if not low <= getattr(self, key) <= high:
                raise ConfigError(
                    f"{getattr(self, key)} is not between {low} and {high}", where=f"reader.{key}"
                )
        if self.workers and not self.threads:
            raise ConfigError(
                "the number of threads is 0, but worker processes need at least 1 thread",
                where="reader.threads",
            )
        if self.max_corrupt < 0:
            raise ConfigError(f"{self.max_corrupt} is negative", where="reader.max_corrupt")
        for key in ("gap", "cache_size"):
            parse_size(getattr(self, key), where=f"reader.{key}")


class PlanConfig(Settings, frozen=True, kw_only=True):
    """The settings of a PLAN.toml.

    Raises:
        ConfigError: a setting is out of range, or two data sets or two phases have the same name.
    """

    max_seq_len: int
    """Number of positions of a row."""
    global_batch: int
    """Number of rows of a step, over all ranks."""
    datasets: tuple[DatasetConfig, ...]
    """Data sets of the plan."""
    phases: tuple[PhaseConfig, ...] = (PhaseConfig(name="all"),)
    """Phases of the mixture, in order."""
    seed: int = 0
    """Seed of every random choice in the plan."""
    window_steps: int = 64
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
        for key, low, high in (
            ("max_seq_len", 8, 1 << 24),
            ("global_batch", 1, 1 << 24),
            ("window_steps", 1, 1 << 20),
            ("seed", 0, (1 << 63) - 1),
        ):
            if not low <= getattr(self, key) <= high:
                raise ConfigError(f"{getattr(self, key)} is not between {low} and {high}", where=key)
        if self.window_steps * self.global_batch > _MAX_ROWS:
            raise ConfigError(
                f"a window of {self.window_steps * self.global_batch:,} rows is more than {_MAX_ROWS:,}",
                where="window_steps",
                hint="Lower window_steps or global_batch.",
            )
        if self.tolerance is not None and parse_duration(self.tolerance) < 0:
            raise ConfigError(f"{self.tolerance} is negative", where="tolerance")
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
