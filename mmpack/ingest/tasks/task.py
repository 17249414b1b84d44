"""One task from start to finish: sync, gate, media, shards, and the record that says it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mmpack.errors import ConfigError, IntegrityError, QuarantineError
from mmpack.ingest.tasks.build_plan import Plan, Task
from mmpack.ingest.tasks.slices import Sample, slices
from mmpack.ingest.tasks.sources import count, samples
from mmpack.serialisation import BAD_JSON, canonical_json, from_json
from mmpack.settings import Settings
from mmpack.shards import index
from mmpack.shards.writer import ShardWriter, earlier_records, part_name, record_name
from mmpack.storage.store import Store
from mmpack.sync import SyncResult, synchronise
from mmpack.sync.sync_report import recording_facts, to_table


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
class Progress:
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


def done_name(task: str) -> str:
    """The task's completion record."""
    return f"_build/tasks/{task}/done.json"


def sync_name(task: str) -> str:
    """The task's part of sync.parquet."""
    return f"_build/tasks/{task}/sync.parquet"


def read_done(store: Store, task: str) -> TaskRecord | None:
    """The completion record of a task; None if it is not complete. Raises IntegrityError for a damaged one."""
    name = done_name(task)
    if not store.exists(name):
        return None
    try:
        return from_json(store.read(name, limit=1 << 30), TaskRecord)
    except BAD_JSON as error:
        raise IntegrityError(f"a damaged completion record ({error})", where=f"{store.url}/{name}") from None


def run_task(
    plan: Plan,
    task: Task,
    store: Store,
    *,
    threads: bool = False,
    tell: Callable[[Progress], None] | None = None,
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
    with store.working(task.name):
        _run(plan, task, store, threads=threads, tell=tell)


def _run(
    plan: Plan, task: Task, store: Store, *, threads: bool, tell: Callable[[Progress], None] | None
) -> None:
    fingerprint = task.fingerprint(plan.fingerprint)
    finished = read_done(store, task.name)
    if finished is not None and finished.fingerprint == fingerprint:
        return
    if finished is not None:
        raise ConfigError(
            f"the target holds '{task.name}' built from other files",
            where=store.url,
            mend="Choose another --out, or add --overwrite to build it anew.",
        )
    _begin(store, task.name, fingerprint)
    records = earlier_records(store, task.name)
    skip = records[-1].done if records else 0
    done = skip
    report, stream, total = _source(plan, task, store, skip=skip, threads=threads)

    def on_bytes(size: int) -> None:
        nonlocal done
        done += 1
        if tell is not None:
            tell(Progress(task.name, done, total, size))

    writer = ShardWriter(
        store,
        task.name,
        plan.layout,
        shard_bytes=plan.config.shards.size_bytes,
        earlier=records,
        on_bytes=on_bytes,
    )
    if tell is not None:
        tell(Progress(task.name, done, total, 0))
    try:
        for sample in stream:
            writer.add(sample.row, sample.members, sample.statistics)
        writer.close_shard()
    except BaseException:
        writer.abandon()
        raise
    finally:
        stream.close()
    record = TaskRecord(fingerprint=fingerprint, shards=len(writer.records), report=report)
    store.write(done_name(task.name), canonical_json(record))


def _begin(store: Store, task: str, fingerprint: str) -> None:
    """Notes what the task is made from. Shards of an unfinished run from other files (since repaired) are
    dropped first.
    """
    name = f"_build/tasks/{task}/begun.json"
    if store.exists(name):
        if from_json(store.read(name, limit=1 << 20)) == fingerprint:
            return
        records = earlier_records(store, task)
        for number, record in reversed(list(enumerate(records))):
            # The record goes first: without it the shard does not count.
            store.delete(record_name(task, number))
            store.delete(part_name(task, number))
            store.delete(record.name)
    store.write(name, canonical_json(fingerprint))


def _source(
    plan: Plan, task: Task, store: Store, *, skip: int, threads: bool
) -> tuple[dict[str, Any] | None, Any, int]:
    """(sync report, generator of samples, number of samples) of a task."""
    if task.samples is not None:
        return None, samples(task.samples, skip=skip), count(task.samples)
    assert task.recording is not None
    result = synchronise(task.recording, plan.config.sync)
    gate(result, plan.config.max_quarantine)
    store.write(sync_name(task.name), index.to_bytes(to_table([result])))
    stream: Iterator[Sample] = slices(result, plan.config.shards, skip=skip, threads=threads)
    report = recording_facts(result)
    report.pop("path")  # where the input lay does not belong into what is built from it
    return report, stream, int(result.passed.sum())


def gate(result: SyncResult, max_quarantine: float) -> None:
    """Refuses a recording of which too much would be set aside. Raises QuarantineError with the commonest
    reasons.
    """
    aside = result.quarantined()
    share = len(aside) / len(result.passed)
    if share <= max_quarantine:
        return
    causes: dict[str, int] = {}
    for tick in aside.tolist():
        for name, why in result.reasons(tick):
            label = f"{name}: {why}"
            causes[label] = causes.get(label, 0) + 1
    worst = sorted(causes.items(), key=lambda item: -item[1])[:3]
    named = "; ".join(f"{label} ({number} times)" for label, number in worst)
    raise QuarantineError(
        f"{len(aside)} of {len(result.passed)} slices ({share:.1%}) would be set aside, allowed are {max_quarantine:.1%}. {named}",
        where=result.recording.name,
        mend="Look at `mmpack sync` of it; correct the description, or raise --max-quarantine.",
    )
