"""Settings of an engine: where the tasks of a build run, and which of them run on this rank."""

from __future__ import annotations

import os
from dataclasses import dataclass

from mmpack.errors import ConfigError


@dataclass(frozen=True)
class EngineConfig:
    """The engine of a build, its workers and its rank. They do not change the result of the build.

    Attributes:
        name: name of an engine in :data:`mmpack.ingest.engines.ENGINES`, or "auto": "in_process" for 0 workers, else
            "workers".
        workers: number of worker processes; None for one per core, or for 0 with the engine "in_process".
        rank: index of this process among the ranks, which share the tasks.
        ranks: number of ranks. Ranks communicate only through the target.
    """

    name: str = "auto"
    workers: int | None = None
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ConfigError(
                f"{self.workers} is not a number of workers", hint="Set --workers to 0 or more, or omit it."
            )
        if self.ranks < 1:
            raise ConfigError(f"{self.ranks} is not a number of ranks", hint="Set --ranks to 1 or more.")
        if not 0 <= self.rank < self.ranks:
            raise ConfigError(
                f"rank {self.rank} is not one of {self.ranks} ranks",
                hint=f"Set --rank to a number from 0 to {self.ranks - 1}.",
            )

    @property
    def num_workers(self) -> int:
        """The number of worker processes, with None replaced by its value."""
        if self.workers is None and self.name == "in_process":
            return 0
        return (os.cpu_count() or 1) if self.workers is None else self.workers
