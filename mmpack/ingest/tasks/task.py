"""Run of one task: synchronisation, quarantine check, encoding, shards, and the completion record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mmpack.errors import ConfigError, IntegrityError, QuarantineError
from mmpack.ingest.tasks.build_plan import BuildPlan, Task
from mmpack.ingest.tasks.reporter import TaskProgress
from mmpack.ingest.tasks.slices import EncodedSample, encode_slices
from mmpack.ingest.tasks.sources import count_rows, read_source
from mmpack.serialisation import JSON_ERRORS, Record, canonical_json, from_json
from mmpack.shards import index
from mmpack.shards.writer import ShardWriter, part_name, read_records, record_name
from mmpack.storage.store import Store
from mmpack.sync import SyncResult, synchronise
from mmpack.sync.sync_report import recording_report, to_table


class TaskRecord(Record, frozen=True, kw_only=True):
    """The completion record of a task.

    Fields:
        fingerprint: fingerprint of settings and inputs; another fingerprint means another build.
        shards: number of published shards.
        report: sync report; None for a stand-alone source.
    """

    fingerprint: str
    shards: int
    report: dict[str, Any] | None = None


def task_record_name(task: str) -> str:
    """Returns the file name of a task's completion record."""
    return f"_build/tasks/{task}/done.json"


def task_sync_name(task: str) -> str:
    """Returns the file name of a task's part of sync.parquet."""
    return f"_build/tasks/{task}/sync.parquet"


def read_task_record(store: Store, task: str) -> TaskRecord | None:
    """Reads the completion record of a task; returns None if the task is not complete.

    Raises:
        IntegrityError: the record is damaged.
    """
    name = task_record_name(task)
    if not store.exists(name):
        return None
    try:
        return from_json(store.read(name, limit=1 << 30), TaskRecord)
    except JSON_ERRORS as error:
        raise IntegrityError(
            f"the completion record is damaged ({error})", where=f"{store.url}/{name}"
        ) from None


def run_task(
    plan: BuildPlan,
    task: Task,
    store: Store,
    *,
    threads: bool = False,
    on_progress: Callable[[TaskProgress], None] | None = None,
) -> None:
    """Runs the part of a task that is not complete yet.

    Args:
        plan: plan of the build.
        task: task of the plan.
        store: target of the build.
        threads: if True, every camera is decoded in a thread of its own, for fewer tasks than cores.
        on_progress: function that is called with the progress of the task.

    Raises:
        ConfigError: the target contains this task, built from other settings or inputs.
        DataError: the input cannot be read.
        QuarantineError: more slices would be quarantined than `max_quarantine` allows.
        StorageError: the target cannot be read or written.
    """
    with store.lock_task(task.name):
        _run_locked(plan, task, store, threads=threads, on_progress=on_progress)


def _run_locked(
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
            f"the target contains '{task.name}' built from other files",
            where=store.url,
            hint="Choose another --out, or add --overwrite to rebuild the target.",
        )
    _prepare_task(store, task.name, fingerprint)
    records = read_records(store, task.name)
    skip = records[-1].done if records else 0
    done = skip
    report, samples, total = _open_task(plan, task, store, skip=skip, threads=threads)

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
        earlier_records=records,
        on_bytes=on_bytes,
    )
    if on_progress is not None:
        on_progress(TaskProgress(task.name, done, total, 0))
    try:
        for sample in samples:
            writer.add(sample.entry, sample.members, sample.statistics)
        writer.close_shard()
    except BaseException:
        writer.discard()
        raise
    finally:
        samples.close()
    record = TaskRecord(fingerprint=fingerprint, shards=len(writer.records), report=report)
    store.write(task_record_name(task.name), canonical_json(record))


def _prepare_task(store: Store, task: str, fingerprint: str) -> None:
    """Writes the fingerprint of a task before it runs.

    Shards of an unfinished task with another fingerprint, for instance of a since repaired input, are deleted first.
    """
    name = f"_build/tasks/{task}/begun.json"
    if store.exists(name):
        if from_json(store.read(name, limit=1 << 20)) == fingerprint:
            return
        records = read_records(store, task)
        for shard_index, record in reversed(list(enumerate(records))):
            # The record is deleted first, because a shard without its record is not part of the build.
            store.delete(record_name(task, shard_index))
            store.delete(part_name(task, shard_index))
            store.delete(record.name)
    store.write(name, canonical_json(fingerprint))


def _open_task(
    plan: BuildPlan, task: Task, store: Store, *, skip: int, threads: bool
) -> tuple[dict[str, Any] | None, Any, int]:
    """Opens the input of a task; returns (sync report, generator of samples, number of samples)."""
    if task.samples is not None:
        return None, read_source(task.samples, skip=skip), count_rows(task.samples)
    assert task.recording is not None
    result = synchronise(task.recording, plan.config.sync)
    check_quarantine_share(result, plan.config.max_quarantine)
    store.write(task_sync_name(task.name), index.encode_parquet(to_table([result])))
    stream: Iterator[EncodedSample] = encode_slices(result, plan.config.shards, skip=skip, threads=threads)
    report = recording_report(result)
    report.pop("path")  # The location of the input must not change the bytes of the build.
    return report, stream, int(result.passed.sum())


def check_quarantine_share(result: SyncResult, max_quarantine: float) -> None:
    """Raises QuarantineError if too many slices of a recording are quarantined; the error lists the main reasons.

    Args:
        result: synchronised recording.
        max_quarantine: largest allowed share of quarantined slices, 0 to 1.
    """
    quarantined = result.quarantined_ordinals()
    share = len(quarantined) / len(result.passed)
    if share <= max_quarantine:
        return
    counts: dict[str, int] = {}
    for tick in quarantined.tolist():
        for name, failure in result.failure_reasons(tick):
            reason = f"{name}: {failure}"
            counts[reason] = counts.get(reason, 0) + 1
    main_reasons = sorted(counts.items(), key=lambda item: -item[1])[:3]
    reasons = "; ".join(f"{reason} ({count} times)" for reason, count in main_reasons)
    raise QuarantineError(
        f"{len(quarantined)} of {len(result.passed)} slices ({share:.1%}) would be quarantined, but at most "
        f"{max_quarantine:.1%} are allowed. {reasons}",
        where=result.recording.name,
        # Another --max-quarantine is another build: without --overwrite the target would be refused.
        hint="Run `mmpack sync` on the recording, then correct its recording.toml, or build again with a higher "
        "--max-quarantine and --overwrite.",
    )
