"""Engines that run the tasks of a build: this process, or a pool of worker processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmpack.ingest.engines.engine import TaskFailure
from mmpack.ingest.engines.in_process import run_in_process
from mmpack.ingest.engines.worker_pool import WorkerPool
from mmpack.ingest.tasks.build_plan import BuildPlan, Task
from mmpack.ingest.tasks.task import TaskProgress


def run_tasks(
    plan: BuildPlan,
    tasks: Sequence[Task],
    url: str,
    *,
    workers: int,
    on_progress: Callable[[TaskProgress], None],
    on_warning: Callable[[str], None],
) -> list[TaskFailure]:
    """Runs `tasks` in worker processes or in this process; a failure does not stop the other tasks.

    Args:
        plan: plan of the build.
        tasks: tasks of this rank.
        url: folder or URL of the target.
        workers: number of worker processes; 0 runs the tasks in this process.
        on_progress: function that is called with the progress of tasks.
        on_warning: function that is called with a message when a worker died and its task is repeated.

    Returns:
        The failures, in the order in which they happened.
    """
    if workers <= 0:
        return run_in_process(plan, tasks, url, on_progress)
    # With fewer tasks than workers, the remaining cores decode cameras in parallel.
    threads = len(tasks) < workers
    pool = WorkerPool(plan, url, threads, min(workers, max(len(tasks), 1)))
    try:
        return pool.run(tasks, on_progress, on_warning)
    finally:
        pool.close()
