"""Engines: where the tasks of a build run."""

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
    """Runs `tasks` in worker processes (in this one if `workers` is 0); the others go on when one fails.

    Args:
        plan: the build.
        tasks: those that are this run's to do.
        url: of the target.
        workers: number of processes.
        tell: told of progress.
        warn: told of workers that died.

    Returns:
        The failures, in the order they happened.
    """
    if workers <= 0:
        return run_in_process(plan, tasks, url, on_progress)
    # Few tasks for many workers: the cores left over decode cameras side by side.
    threads = len(tasks) < workers
    pool = WorkerPool(plan, url, threads, min(workers, max(len(tasks), 1)))
    try:
        return pool.run(tasks, on_progress, on_warning)
    finally:
        pool.close()
