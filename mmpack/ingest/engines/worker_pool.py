"""Engine that runs the tasks of a build in worker processes on this machine."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from mmpack.errors import ConfigError, MmpackError
from mmpack.ingest.engines.engine import TaskFailure, run_one_task
from mmpack.ingest.tasks.build_plan import BuildPlan, Task
from mmpack.ingest.tasks.reporter import BuildReporter, TaskProgress
from mmpack.storage import open_store

#: Number of workers that may die in one task. A task that ends so many is taken for the cause of their death.
MAX_TRIES = 3


class WorkerPoolEngine:
    """The engine "workers": tasks run in worker processes on this machine."""

    def run(
        self, plan: BuildPlan, tasks: Sequence[Task], url: str, *, workers: int, reporter: BuildReporter
    ) -> list[TaskFailure]:
        """Runs `tasks`, as described in :meth:`mmpack.ingest.engines.engine.Engine.run`.

        Raises:
            ConfigError: `workers` is 0.
        """
        if not workers:
            raise ConfigError(
                "the engine 'workers' needs at least one worker",
                hint="Set --workers to 1 or more, or --engine to 'in_process'.",
            )
        # With fewer tasks than workers, the remaining cores decode cameras in parallel.
        threads = len(tasks) < workers
        pool = WorkerPool(plan, url, threads, min(workers, max(len(tasks), 1)))
        try:
            return pool.run(tasks, reporter)
        finally:
            pool.close()


class WorkerPool:
    """A pool of worker processes, each of which runs one task at a time.

    A worker that dies is replaced and its task is repeated, up to `MAX_TRIES` times in total.

    Args:
        plan: plan of the build.
        url: folder or URL of the target.
        threads: if True, every camera is decoded in a thread of its own.
        size: number of worker processes.
    """

    def __init__(self, plan: BuildPlan, url: str, threads: bool, size: int) -> None:
        # A forked process would inherit the locks of decoder threads that do not exist in it.
        self._context = mp.get_context("spawn")
        # A worker needs the settings only; it receives its tasks one by one.
        self._job = (BuildPlan(plan.config, ()), url, threads)
        self._workers: dict[Connection, tuple[BaseProcess, Task | None]] = {}
        for _ in range(size):
            self._start()

    def _start(self) -> None:
        parent_end, child_end = self._context.Pipe()
        # The job is sent through this pipe and not as an argument of the process. multiprocessing waits for ever for a
        # worker that is killed before it has read arguments larger than the capacity of a pipe.
        process = self._context.Process(target=_worker_main, args=(child_end,), daemon=True)
        process.start()
        child_end.close()
        _send(parent_end, self._job)
        self._workers[parent_end] = (process, None)

    def run(self, tasks: Sequence[Task], reporter: BuildReporter) -> list[TaskFailure]:
        """Runs `tasks` and returns the failures, in the order in which they happened.

        Args:
            tasks: tasks to run.
            reporter: receiver of progress, and of a warning when a worker died and its task is repeated.
        """
        queue, num_tries = deque(tasks), dict.fromkeys((task.name for task in tasks), 0)
        failures: list[TaskFailure] = []
        num_unfinished = len(queue)
        while num_unfinished:
            for pipe, (process, task) in list(self._workers.items()):
                if task is None and queue:
                    task = queue.popleft()
                    self._workers[pipe] = (process, task)
                    _send(pipe, task)
            for ready in wait(list(self._workers)):
                assert isinstance(ready, Connection)
                process, task = self._workers[ready]
                try:
                    message = ready.recv()
                except (EOFError, OSError):
                    del self._workers[ready]
                    ready.close()
                    process.join()
                    if task is not None and num_tries[task.name] + 1 < MAX_TRIES:
                        num_tries[task.name] += 1
                        reporter.on_warning(
                            f"a worker died ({_format_exit(process)}) in '{task.name}'; the task is repeated"
                        )
                        queue.appendleft(task)
                        task = None
                    if queue:
                        self._start()
                    if task is None:
                        continue
                    message = MmpackError(
                        f"{MAX_TRIES} workers died in this task ({_format_exit(process)})",
                        where=task.name,
                        hint="Use fewer --workers: too little memory is the usual cause.",
                    )
                if isinstance(message, TaskProgress):
                    reporter.on_progress(message)
                    continue
                num_unfinished -= 1
                if ready in self._workers:
                    self._workers[ready] = (process, None)
                if isinstance(message, MmpackError):
                    assert task is not None
                    failures.append(TaskFailure(task.name, message))
        return failures

    def close(self) -> None:
        """Terminates the worker processes."""
        for pipe, (process, _) in self._workers.items():
            pipe.close()
            process.terminate()
        for process, _ in self._workers.values():
            process.join()


def _send(pipe: Connection, message: object) -> None:
    # Sending to a dead worker fails. Its death is handled where its messages are received.
    with suppress(OSError):
        pipe.send(message)


def _format_exit(process: BaseProcess) -> str:
    code = process.exitcode
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _worker_main(pipe: Connection) -> None:
    # A terminal sends Ctrl-C to the workers too. The parent handles it and ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _exit_with_parent()
    with suppress(EOFError, OSError):
        plan, url, threads = pipe.recv()
        store = open_store(url)
        while True:
            pipe.send(run_one_task(plan, pipe.recv(), store, threads=threads, on_progress=pipe.send))


def _exit_with_parent() -> None:
    """Ends this worker as soon as its parent process ends.

    The worker of a killed build would otherwise continue to write while the build is resumed.
    """
    parent = mp.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="mmpack-parent-watch", daemon=True).start()
