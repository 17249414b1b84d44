"""One task from start to finish: sync, gate, media, shards, and the record that says it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mmpack.errors import ConfigError, IntegrityError, QuarantineError
from mmpack.ingest.tasks.build_plan import BuildPlan, Task
from mmpack.ingest.tasks.slices import EncodedSample, encode_slices
from mmpack.ingest.tasks.sources import count_rows, read_source
from mmpack.serialisation import JSON_ERRORS, canonical_json, from_json
from mmpack.settings import Settings
from mmpack.shards import index
from mmpack.shards.writer import ShardWriter, part_name, read_records, record_name
from mmpack.storage.store import Store
from mmpack.sync import SyncResult, synchronise
from mmpack.sync.sync_report import recording_report, to_table


class TaskRecord(Settings, frozen=True, kw_only=True):
    """Says that a task is complete, and what it found.

    Fields:
        fingerprint: of settings and inputs; a record with another one is of another build.
        shards: how many it published.
        report: of the sync; None for a stand-alone source.
    """

    fingerprint: str
    shards: int
    report: dict[str, Any] | None = None


@dataclass(frozen=True)
class TaskProgress:
    """How far a task is.

    Attributes:
        task: its name.
        done, total: samples.
        size_bytes: written since the last such message.
    """

    task: str
    done: int
    total: int
    size_bytes: int


def task_record_name(task: str) -> str:
    """The task's completion record."""
    return f"_build/tasks/{task}/done.json"


def task_sync_name(task: str) -> str:
    """The task's part of sync.parquet."""
    return f"_build/tasks/{task}/sync.parquet"


def read_task_record(store: Store, task: str) -> TaskRecord | None:
    """The completion record of a task; None if it is not complete. Raises IntegrityError for a damaged one."""
    name = task_record_name(task)
    if not store.exists(name):
        return None
    try:
        return from_json(store.read(name, limit=1 << 30), TaskRecord)
    except JSON_ERRORS as error:
        raise IntegrityError(f"a damaged completion record ({error})", where=f"{store.url}/{name}") from None


def run_task(
    plan: BuildPlan,
    task: Task,
    store: Store,
    *,
    threads: bool = False,
    on_progress: Callable[[TaskProgress], None] | None = None,
) -> None:
    """Does what is left of a task.

    Args:
        plan: the build.
        task: one of its tasks.
        store: the target.
        threads: one decoding thread per camera, for when there are more cores than tasks.
        tell: told of progress.

    Raises:
        ConfigError: the target holds this task from other settings or inputs.
        DataError: the input cannot be read.
        QuarantineError: more slices than allowed were set aside.
        StorageError: the target refuses.
    """
    with store.lock_task(task.name):
        _run(plan, task, store, threads=threads, on_progress=on_progress)


def _run(
    plan: BuildPlan,
    task: Task,
    store: Store,
    *,
    threads: bool,
    on_progress: Callable[[TaskProgress], None] | None,
) -> None:
    fingerprint = task.fingerprint(plan.fingerprint)
    finished = read_task_record(store, task.name)
    if finished is not None and finished.fingerprint == fingerprint:
        return
    if finished is not None:
        raise ConfigError(
            f"the target holds '{task.name}' built from other files",
            where=store.url,
            hint="Choose another --out, or add --overwrite to build it anew.",
        )
    _prepare_task(store, task.name, fingerprint)
    records = read_records(store, task.name)
    skip = records[-1].done if records else 0
    done = skip
    report, stream, total = _open_task(plan, task, store, skip=skip, threads=threads)

    def on_bytes(size: int) -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(TaskProgress(task.name, done, total, size))

    writer = ShardWriter(
        store,
        task.name,
        plan.layout,
        shard_bytes=plan.config.shards.size_bytes,
        earlier=records,
        on_bytes=on_bytes,
    )
    if on_progress is not None:
        on_progress(TaskProgress(task.name, done, total, 0))
    try:
        for sample in stream:
            writer.add(sample.row, sample.members, sample.statistics)
        writer.close_shard()
    except BaseException:
        writer.discard()
        raise
    finally:
        stream.close()
    record = TaskRecord(fingerprint=fingerprint, shards=len(writer.records), report=report)
    store.write(task_record_name(task.name), canonical_json(record))


def _prepare_task(store: Store, task: str, fingerprint: str) -> None:
    """Notes what the task is made from. Shards of an unfinished run from other files (since repaired) are
    dropped first.
    """
    name = f"_build/tasks/{task}/begun.json"
    if store.exists(name):
        if from_json(store.read(name, limit=1 << 20)) == fingerprint:
            return
        records = read_records(store, task)
        for number, record in reversed(list(enumerate(records))):
            # The record goes first: without it the shard does not count.
            store.delete(record_name(task, number))
            store.delete(part_name(task, number))
            store.delete(record.name)
    store.write(name, canonical_json(fingerprint))


def _open_task(
    plan: BuildPlan, task: Task, store: Store, *, skip: int, threads: bool
) -> tuple[dict[str, Any] | None, Any, int]:
    """(sync report, generator of samples, number of samples) of a task."""
    if task.samples is not None:
        return None, read_source(task.samples, skip=skip), count_rows(task.samples)
    assert task.recording is not None
    result = synchronise(task.recording, plan.config.sync)
    check_quarantine_share(result, plan.config.max_quarantine)
    store.write(task_sync_name(task.name), index.encode_parquet(to_table([result])))
    stream: Iterator[EncodedSample] = encode_slices(result, plan.config.shards, skip=skip, threads=threads)
    report = recording_report(result)
    report.pop("path")  # where the input lay does not belong into what is built from it
    return report, stream, int(result.passed.sum())


def check_quarantine_share(result: SyncResult, max_quarantine: float) -> None:
    """Refuses a recording of which too much would be set aside. Raises QuarantineError with the commonest
    reasons.
    """
    aside = result.quarantined_ordinals()
    share = len(aside) / len(result.passed)
    if share <= max_quarantine:
        return
    causes: dict[str, int] = {}
    for tick in aside.tolist():
        for name, why in result.failure_reasons(tick):
            label = f"{name}: {why}"
            causes[label] = causes.get(label, 0) + 1
    worst = sorted(causes.items(), key=lambda item: -item[1])[:3]
    named = "; ".join(f"{label} ({number} times)" for label, number in worst)
    raise QuarantineError(
        f"{len(aside)} of {len(result.passed)} slices ({share:.1%}) would be set aside, allowed are {max_quarantine:.1%}. {named}",
        where=result.recording.name,
        hint="Look at `mmpack sync` of it; correct the description, or raise --max-quarantine.",
    )
