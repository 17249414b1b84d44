"""Progress on stderr: a live bar on a terminal, otherwise a plain line at regular intervals."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from mmpack.ingest import TaskProgress

#: Time between two plain lines.
_LINE_INTERVAL_S = 10.0


class ProgressBar:
    """The progress of one quantity, with its rate and the remaining time.

    Args:
        label: name of the work.
        unit: unit of the printed counts, as in 'MB'.
        scale: number by which counts are divided before they are printed.
    """

    def __init__(self, label: str, unit: str, scale: float = 1.0) -> None:
        self._label, self._unit, self._scale = label, unit, scale
        self._live: Any = None
        self._task: Any = None
        self._start = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
            )
            self._live = Progress(*columns, console=Console(stderr=True))
            self._live.start()
            self._task = self._live.add_task(self._label, total=None, text="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, done: float, total: float, note: str = "") -> None:
        """Shows `done` of `total`, followed by `note`."""
        now = time.monotonic()
        rate = done / self._scale / max(now - self._start, 1e-3)
        unit = self._unit
        text = f"{done / self._scale:.0f}/{total / self._scale:.0f} {unit}, {rate:.1f} {unit}/s{note}"
        if self._live is not None:
            self._live.update(self._task, completed=done, total=total, text=text)
        elif now - self._last_line >= _LINE_INTERVAL_S:
            self._last_line = now
            remaining_s = (total - done) / self._scale / max(rate, 1e-9)
            print(f"{self._label}: {text}, {remaining_s:.0f} s left", file=sys.stderr, flush=True)

    def print(self, line: str) -> None:
        """Prints a line above the bar."""
        if self._live is not None:
            self._live.console.print(line)
        else:
            print(line, file=sys.stderr, flush=True)


class BuildProgress:
    """The progress of a build: samples of all tasks together. Implements :class:`mmpack.ingest.BuildReporter`."""

    def __init__(self) -> None:
        self._bar = ProgressBar("build-shards", "samples")
        self._tasks: dict[str, tuple[int, int]] = {}
        self._size_bytes = 0

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.__exit__()

    def on_progress(self, progress: TaskProgress) -> None:
        """Adds the progress of a task."""
        self._tasks[progress.task] = (progress.done, progress.total)
        self._size_bytes += progress.size_bytes
        done = sum(done for done, _ in self._tasks.values())
        total = sum(total for _, total in self._tasks.values())
        self._bar.update(done, total, f", {self._size_bytes / 1e6:.0f} MB")

    def on_warning(self, message: str) -> None:
        """Prints a warning, for instance about a worker that died."""
        self._bar.print(f"warning: {message}")
