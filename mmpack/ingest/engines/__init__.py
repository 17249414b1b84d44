"""Engines: where the tasks of a build run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmpack.ingest.engines.engine import Failure
from mmpack.ingest.engines.in_process import _run_here
from mmpack.ingest.engines.worker_pool import _Pool
from mmpack.ingest.tasks.build_plan import Plan, Task
from mmpack.ingest.tasks.task import Progress


def run_local(
    plan: Plan,
    tasks: Sequence[Task],
    url: str,
    *,
    workers: int,
    tell: Callable[[Progress], None],
    warn: Callable[[str], None],
) -> list[Failure]:
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
        return _run_here(plan, tasks, url, tell)
    # Few tasks for many workers: the cores left over decode cameras side by side.
    threads = len(tasks) < workers
    pool = _Pool(plan, url, threads, min(workers, max(len(tasks), 1)))
    try:
        return pool.run(tasks, tell, warn)
    finally:
        pool.close()
