"""Engine that runs the tasks of a build in this process."""

from __future__ import annotations

from collections.abc import Sequence

from mmpack.errors import ConfigError
from mmpack.ingest.engines.engine import TaskFailure, run_one_task
from mmpack.ingest.tasks.build_plan import BuildPlan, Task
from mmpack.ingest.tasks.reporter import BuildReporter
from mmpack.storage import open_store


class InProcessEngine:
    """The engine "in_process": tasks run in this process, one after the other."""

    def run(
        self, plan: BuildPlan, tasks: Sequence[Task], url: str, *, workers: int, reporter: BuildReporter
    ) -> list[TaskFailure]:
        """Runs `tasks`, as described in :meth:`mmpack.ingest.engines.engine.Engine.run`.

        Raises:
            ConfigError: `workers` is not 0.
        """
        if workers:
            raise ConfigError(
                f"the engine 'in_process' has no workers, but {workers} are requested",
                hint="Set --workers to 0, or --engine to 'workers'.",
            )
        store = open_store(url)
        failures: list[TaskFailure] = []
        for task in tasks:
            error = run_one_task(plan, task, store, on_progress=reporter.on_progress)
            if error is not None:
                failures.append(TaskFailure(task.name, error))
        return failures
