"""This process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmpack.errors import MmpackError
from mmpack.ingest.engines.engine import Failure
from mmpack.ingest.tasks.build_plan import Plan, Task
from mmpack.ingest.tasks.task import Progress, run_task
from mmpack.storage import open_store


def _run_here(plan: Plan, tasks: Sequence[Task], url: str, tell: Callable[[Progress], None]) -> list[Failure]:
    failures: list[Failure] = []
    for task in tasks:
        try:
            run_task(plan, task, open_store(url), tell=tell)
        except MmpackError as error:
            failures.append(Failure(task.name, error))
    return failures
