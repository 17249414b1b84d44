"""Interface of an engine, and the run of one task that all engines share."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mmpack.errors import MmpackError
from mmpack.ingest.tasks.build_plan import BuildPlan, Task
from mmpack.ingest.tasks.reporter import BuildReporter, TaskProgress
from mmpack.ingest.tasks.task import run_task
from mmpack.storage.store import Store


@dataclass(frozen=True)
class TaskFailure:
    """The failure of a task.

    Attributes:
        task: name of the task.
        error: error that ended the task.
    """

    task: str
    error: MmpackError


class Engine(Protocol):
    """A way to run the tasks of a build."""

    def run(
        self, plan: BuildPlan, tasks: Sequence[Task], url: str, *, workers: int, reporter: BuildReporter
    ) -> list[TaskFailure]:
        """Runs `tasks`; a failure does not stop the other tasks.

        Args:
            plan: plan of the build.
            tasks: tasks of this rank.
            url: folder or URL of the target.
            workers: number of worker processes.
            reporter: receiver of progress and warnings.

        Returns:
            The failures, in the order in which they happened.

        Raises:
            ConfigError: the engine cannot run with this number of workers.
        """
        ...


def run_one_task(
    plan: BuildPlan,
    task: Task,
    store: Store,
    *,
    threads: bool = False,
    on_progress: Callable[[TaskProgress], None],
) -> MmpackError | None:
    """Runs a task and returns its error, or None if it succeeded. Every exception becomes a MmpackError.

    Args:
        plan: plan of the build.
        task: task of the plan.
        store: target of the build.
        threads: if True, every camera is decoded in a thread of its own.
        on_progress: function that is called with the progress of the task.
    """
    try:
        run_task(plan, task, store, threads=threads, on_progress=on_progress)
    except MmpackError as error:
        return error
    except MemoryError:
        return MmpackError(
            "out of memory", where=task.name, hint="Use fewer --workers, or a machine with more memory."
        )
    except Exception as error:
        # A bug in mmpack is reported in one line with its file and line; raised, it would end the other tasks of the
        # build, or be lost with its worker.
        last = traceback.extract_tb(error.__traceback__)[-1]
        return MmpackError(
            f"unexpected {type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})",
            where=task.name,
            hint="This is a bug in mmpack: report it with the description of the input.",
        )
    return None
