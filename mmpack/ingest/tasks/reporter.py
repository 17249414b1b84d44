"""Progress messages of a build, and the interface that receives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class TaskProgress:
    """The progress of a task.

    Attributes:
        task: name of the task.
        done: number of samples that have been written.
        total: number of samples of the task.
        size_bytes: bytes written since the last progress message.
    """

    task: str
    done: int
    total: int
    size_bytes: int


class BuildReporter(Protocol):
    """A receiver of the progress and the warnings of a build."""

    def on_progress(self, progress: TaskProgress) -> None:
        """Receives the progress of a task."""
        ...

    def on_warning(self, message: str) -> None:
        """Receives a warning, for instance that a worker died and its task is repeated."""
        ...


class SilentReporter:
    """A reporter that does nothing."""

    def on_progress(self, progress: TaskProgress) -> None:
        """Does nothing."""

    def on_warning(self, message: str) -> None:
        """Does nothing."""
