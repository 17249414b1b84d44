"""The local engine: worker processes, each taking a task at a time; a dead one is replaced and its task tried
again.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from mmpack.errors import MmpackError
from mmpack.ingest.engines.engine import TaskFailure, run_one_task
from mmpack.ingest.tasks.build_plan import BuildPlan, Task
from mmpack.ingest.tasks.task import TaskProgress
from mmpack.storage import open_store

#: A task that kills three workers in a row is not the victim but the cause.
MAX_TRIES = 3


class WorkerPool:
    def __init__(self, plan: BuildPlan, url: str, threads: bool, size: int) -> None:
        # 'spawn': a fork would inherit half of a decoder's threads and locks.
        self._context = mp.get_context("spawn")
        # A worker needs the settings; its tasks it is sent one by one.
        self._job = (BuildPlan(plan.config, ()), url, threads)
        self._workers: dict[Connection, tuple[BaseProcess, Task | None]] = {}
        for _ in range(size):
            self._start()

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        # The job goes through our pipe and not with the process: multiprocessing would wait for ever for a
        # worker that is killed before it has read arguments larger than a pipe holds.
        process = self._context.Process(target=_worker_main, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        _send(ours, self._job)
        self._workers[ours] = (process, None)

    def run(
        self,
        tasks: Sequence[Task],
        on_progress: Callable[[TaskProgress], None],
        on_warning: Callable[[str], None],
    ) -> list[TaskFailure]:
        waiting, tries = deque(tasks), dict.fromkeys((task.name for task in tasks), 0)
        failures: list[TaskFailure] = []
        left = len(waiting)
        while left:
            for pipe, (process, task) in list(self._workers.items()):
                if task is None and waiting:
                    task = waiting.popleft()
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
                    if task is not None and tries[task.name] + 1 < MAX_TRIES:
                        tries[task.name] += 1
                        on_warning(
                            f"a worker died ({_exit_reason(process)}) in '{task.name}'; trying it again"
                        )
                        waiting.appendleft(task)
                        task = None
                    if waiting:
                        self._start()
                    if task is None:
                        continue
                    message = MmpackError(
                        f"{MAX_TRIES} workers died of it ({_exit_reason(process)})",
                        where=task.name,
                        hint="Too little memory is the usual cause: use fewer --workers.",
                    )
                if isinstance(message, TaskProgress):
                    on_progress(message)
                    continue
                left -= 1
                if ready in self._workers:
                    self._workers[ready] = (process, None)
                if isinstance(message, MmpackError):
                    assert task is not None
                    failures.append(TaskFailure(task.name, message))
        return failures

    def close(self) -> None:
        for pipe, (process, _) in self._workers.items():
            pipe.close()
            process.terminate()
        for process, _ in self._workers.values():
            process.join()


def _send(pipe: Connection, message: object) -> None:
    # To a dead worker nothing can be sent; reading from it says that it is dead.
    with suppress(OSError):
        pipe.send(message)


def _exit_reason(process: BaseProcess) -> str:
    code = process.exitcode
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _worker_main(pipe: Connection) -> None:
    _die_with_parent()
    with suppress(EOFError, OSError):
        plan, url, threads = pipe.recv()
        store = open_store(url)
        while True:
            pipe.send(run_one_task(plan, pipe.recv(), store, threads, pipe.send))


def _die_with_parent() -> None:
    """A killed parent takes its workers along: an orphan would go on writing beside the resumed build."""
    parent = mp.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="mmpack-parent-watch", daemon=True).start()
