"""PLAN.toml: what is streamed, how it is mixed, packed and balanced, and how it is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from mmpack.clock import parse_duration
from mmpack.errors import ConfigError
from mmpack.mixture.phase_config import PhaseConfig
from mmpack.settings import Settings, parse_size

_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,64}")

#: Of a window: planned together, in memory.
_MAX_ROWS = 1 << 22


class DatasetConfig(Settings, frozen=True, kw_only=True):
    """One `[[datasets]]` table: samples of one build that are mixed as one.

    Raises:
        ConfigError: a setting is out of range.
    """

    name: str
    """What the phases call it."""
    shards: str
    """Folder or object store URL of a finished build; a relative path starts at the file."""
    select: tuple[str, ...] = ("*",)
    """Patterns on the names of recordings and sources in the build, as `"drive-*"`; one that matches is enough."""
    max_epochs: float | None = None
    """Repeat cap: how often its tokens may be seen in the whole run; after that the others share its part. (Gains
    fade after about 4 epochs, arXiv 2305.16264.)"""
    locality: int = 32
    """Neighbouring documents of the index that stay neighbours when it is shuffled, so that one read serves several."""
    contrastive: bool = False
    """A run or sample that has texts becomes two documents of one row, its media and its texts, each with a
    `<|cls|>`."""

    def __post_init__(self) -> None:
        where = f"datasets.{self.name}"
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"'{self.name}' is no name", where="datasets", hint="Use letters, digits, '_.+-'."
            )
        if self.max_epochs is not None and not 0 < self.max_epochs < 1e6:
            raise ConfigError(f"max_epochs {self.max_epochs} is not above 0", where=where)
        if not 1 <= self.locality <= 1 << 20:
            raise ConfigError(f"locality {self.locality} is not 1 to {1 << 20}", where=where)


class CostConfig(Settings, frozen=True, kw_only=True):
    """`[cost]`: what a document of l tokens costs a rank, quadratic · l² + linear · l.

    The default is a decoder of width 4,096: six widths of products with the weights of a layer for each of l².
    """

    quadratic: float = 1.0
    linear: float = 24_576.0

    def __post_init__(self) -> None:
        if not (0 <= self.quadratic < float("inf") and 0 <= self.linear < float("inf")):
            raise ConfigError("costs are not negative", where="cost")


class RowsConfig(Settings, frozen=True, kw_only=True):
    """`[rows]`: what a row holds beside its ids."""

    audio_frames: bool = False
    """Also the sound itself, float32 frames of the layout's hop, for models that do not read codes."""
    codec: str = ""
    """Folder of a `transformers` audio codec (Mimi, EnCodec), for layouts whose codec is not built in."""


class ReaderConfig(Settings, frozen=True, kw_only=True):
    """`[reader]`: how the media of a rank's rows are read. None of it changes a row."""

    workers: int = 0
    """Processes that read and decode; 0: threads of this process."""
    threads: int = 2
    """Threads that read and decode, in this process or in each worker; 0: nothing is made before it is asked for."""
    prefetch: int = 8
    """Rows made ahead of the one that is asked for."""
    gap: str = "64kB"
    """Samples of one shard that lie no further apart are read together."""
    cache: str = ""
    """Folder of a disk cache; empty: none."""
    cache_size: str = "10GB"
    """What the cache may hold."""
    retries: int = 4
    """Times a failed read is tried again, waiting twice as long each time."""
    max_corrupt: int = 100
    """Unreadable samples that a rank puts up with in a run."""
    quarantine: str = "quarantine.jsonl"
    """File that unreadable samples are recorded in; a relative path starts at the file of the plan."""

    def __post_init__(self) -> None:
        for key, low, high in (
            ("workers", 0, 1024),
            ("threads", 0, 1024),
            ("prefetch", 1, 65536),
            ("retries", 0, 100),
        ):
            if not low <= getattr(self, key) <= high:
                raise ConfigError(
                    f"{getattr(self, key)} is not within {low} and {high}", where=f"reader.{key}"
                )
        if self.workers and not self.threads:
            raise ConfigError("0, and workers need at least 1", where="reader.threads")
        if self.max_corrupt < 0:
            raise ConfigError(f"{self.max_corrupt} is negative", where="reader.max_corrupt")
        for key in ("gap", "cache_size"):
            parse_size(getattr(self, key), where=f"reader.{key}")


class PlanConfig(Settings, frozen=True, kw_only=True):
    """The whole file.

    Raises:
        ConfigError: a setting is out of range, or a name is taken or unknown.
    """

    max_seq_len: int
    """Token places of a row."""
    global_batch: int
    """Rows of a step over all ranks."""
    datasets: tuple[DatasetConfig, ...]
    """What there is."""
    phases: tuple[PhaseConfig, ...] = (PhaseConfig(name="all"),)
    """How it is mixed, one phase after the other."""
    seed: int = 0
    """Of everything that is drawn."""
    window_steps: int = 64
    """Steps that are mixed, packed and balanced together."""
    balance: Literal["rank", "step", "off"] = "rank"
    """`rank`: rows of a step are dealt to ranks by cost, steps stay random. `step`: rows of like cost form a step, for
    one row per rank. `off`: rows as they come."""
    tolerance: str | None = None
    """Largest |residual| of a slice that is planned; left out: whatever the build let pass."""
    cost: CostConfig = CostConfig()
    rows: RowsConfig = RowsConfig()
    reader: ReaderConfig = ReaderConfig()

    def __post_init__(self) -> None:
        for key, low, high in (
            ("max_seq_len", 8, 1 << 24),
            ("global_batch", 1, 1 << 24),
            ("window_steps", 1, 1 << 20),
            ("seed", 0, (1 << 63) - 1),
        ):
            if not low <= getattr(self, key) <= high:
                raise ConfigError(f"{getattr(self, key)} is not within {low} and {high}", where=key)
        if self.window_steps * self.global_batch > _MAX_ROWS:
            raise ConfigError(
                f"a window of {self.window_steps * self.global_batch:,} rows is more than {_MAX_ROWS:,}",
                where="window_steps",
                hint="Use fewer steps a window.",
            )
        if self.tolerance is not None and parse_duration(self.tolerance) < 0:
            raise ConfigError(f"{self.tolerance} is negative", where="tolerance")
        if not self.datasets:
            raise ConfigError("no data sets", where="datasets", hint="Add a [[datasets]] table.")
        if not self.phases:
            raise ConfigError("no phases", where="phases", hint="Leave them out, or add a [[phases]] table.")
        for what, names in (
            ("datasets", [each.name for each in self.datasets]),
            ("phases", [each.name for each in self.phases]),
        ):
            double = next((name for name in names if names.count(name) > 1), None)
            if double is not None:
                raise ConfigError(f"two are called '{double}'", where=what, hint="Rename one.")

    @property
    def tolerance_ns(self) -> int | None:
        """`tolerance` in ns."""
        return None if self.tolerance is None else parse_duration(self.tolerance)

    def resolve_paths(self, base: Path) -> PlanConfig:
        """The same with paths made relative to `base`, the folder of the file."""
        from msgspec.structs import replace

        def at(path: str) -> str:
            return path if not path or "://" in path else str(base / path)

        return replace(
            self,
            datasets=tuple(replace(each, shards=at(each.shards)) for each in self.datasets),
            rows=replace(self.rows, codec=at(self.rows.codec)),
            reader=replace(self.reader, cache=at(self.reader.cache), quarantine=at(self.reader.quarantine)),
        )
