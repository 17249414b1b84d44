"""Engine that runs the tasks of a build in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmpack.errors import MmpackError
from mmpack.ingest.engines.engine import TaskFailure
from mmpack.ingest.tasks.build_plan import BuildPlan, Task
from mmpack.ingest.tasks.task import TaskProgress, run_task
from mmpack.storage import open_store


def run_in_process(
    plan: BuildPlan, tasks: Sequence[Task], url: str, on_progress: Callable[[TaskProgress], None]
) -> list[TaskFailure]:
    """Runs `tasks` one after the other and returns the failures, in order.

    Args:
        plan: plan of the build.
        tasks: tasks to run.
        url: folder or URL of the target.
        on_progress: function that is called with the progress of the tasks.
    """
    failures: list[TaskFailure] = []
    for task in tasks:
        try:
            run_task(plan, task, open_store(url), on_progress=on_progress)
        except MmpackError as error:
            failures.append(TaskFailure(task.name, error))
    return failures
