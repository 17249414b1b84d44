"""Engine protocol, TaskFailure."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmpack.errors import MmpackError
from mmpack.ingest.tasks.build_plan import BuildPlan, Task
from mmpack.ingest.tasks.task import TaskProgress, run_task
from mmpack.storage.store import Store


@dataclass(frozen=True)
class TaskFailure:
    """A task that did not end well.

    Attributes:
        task: its name.
        error: what went wrong.
    """

    task: str
    error: MmpackError


def run_one_task(
    plan: BuildPlan, task: Task, store: Store, threads: bool, on_progress: Callable[[TaskProgress], None]
) -> MmpackError | None:
    """None for a task that ended well, else why it did not."""
    try:
        run_task(plan, task, store, threads=threads, on_progress=on_progress)
    except MmpackError as error:
        return error
    except MemoryError:
        return MmpackError("out of memory", where=task.name, hint="Use fewer --workers.")
    except (
        Exception
    ) as error:  # a fault of ours: said in one line with its place, rather than lost with the worker
        last = traceback.extract_tb(error.__traceback__)[-1]
        return MmpackError(
            f"unexpected {type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})",
            where=task.name,
            hint="This is a bug in mmpack: please report it with the input's description.",
        )
    return None
