"""End of a build: merges the parts of all tasks into index, quarantine table, sync table and sync reports.

The manifest is written last.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from mmpack.ingest.tasks.build_plan import BuildPlan
from mmpack.ingest.tasks.task import TaskRecord, read_task_record, task_sync_name
from mmpack.samples.statistics import NumericStatistics, merge_statistics
from mmpack.serialisation import canonical_json
from mmpack.shards import index
from mmpack.shards.manifest import (
    FORMAT_VERSION,
    SYNC_REPORTS_NAME,
    Manifest,
    ShardEntry,
    make_recording_entry,
    write_manifest,
)
from mmpack.shards.writer import part_name, read_records
from mmpack.storage.store import Store


def finish_build(plan: BuildPlan, store: Store) -> Manifest | None:
    """Merges the parts of all tasks and writes the manifest; returns None if a task is not complete.

    Every rank writes the same bytes, so two ranks may finish a build at the same time.

    Raises:
        StorageError: a part cannot be read, or the target cannot be written.
        IntegrityError: a part is damaged.
    """
    records: dict[str, TaskRecord] = {}
    for task in plan.tasks:
        record = read_task_record(store, task.name)
        if record is None:
            return None
        records[task.name] = record
    shards: list[ShardEntry] = []
    parts: list[pa.Table] = []
    statistics: dict[str, NumericStatistics] = {}
    for task in plan.tasks:
        for shard_index, shard in enumerate(read_records(store, task.name)):
            shards.append(
                ShardEntry(
                    name=shard.name,
                    size_bytes=shard.size_bytes,
                    sha256=shard.sha256,
                    samples=shard.samples,
                    tokens=shard.tokens,
                )
            )
            parts.append(index.read_parquet(store, part_name(task.name, shard_index)))
            for name, part in shard.statistics.items():
                statistics[name] = merge_statistics(statistics[name], part) if name in statistics else part
    table = pa.concat_tables(parts).unify_dictionaries() if parts else index.INDEX_SCHEMA.empty_table()
    reports = [record.report for record in records.values() if record.report is not None]
    sync = [
        index.read_parquet(store, task_sync_name(task.name))
        for task in plan.tasks
        if task.recording is not None
    ]
    files = {
        index.INDEX_NAME: _write(store, index.INDEX_NAME, index.encode_parquet(table)),
        index.QUARANTINE_NAME: _write(
            store, index.QUARANTINE_NAME, index.encode_parquet(_build_quarantine_table(reports))
        ),
        SYNC_REPORTS_NAME: _write(store, SYNC_REPORTS_NAME, canonical_json(reports)),
    }
    if sync:
        sync_table = pa.concat_tables(sync).unify_dictionaries()
        files[index.SYNC_NAME] = _write(store, index.SYNC_NAME, index.encode_parquet(sync_table))
    manifest = Manifest(
        format=FORMAT_VERSION,
        mmpack=version("mmpack"),
        config=plan.settings,
        layout_fingerprint=plan.layout.fingerprint,
        vocabulary_size=plan.layout.vocabulary.size,
        samples=table.num_rows,
        tokens=_sum_column(table, "tokens"),
        slices=sum(report["passed"] for report in reports),
        quarantined=sum(report["quarantined"] for report in reports),
        tokens_by_modality={name: _sum_column(table, f"tokens_{name}") for name in index.MODALITY_COLUMNS},
        shards=shards,
        recordings=[make_recording_entry(report, where=report["recording"]) for report in reports],
        numeric={name: part.to_manifest() for name, part in sorted(statistics.items())},
        files=files,
    )
    write_manifest(store, manifest)
    store.delete("_build/scratch")
    return manifest


def _write(store: Store, name: str, data: bytes) -> str:
    """Writes a file and returns its sha256 in hexadecimal."""
    store.write(name, data)
    return hashlib.sha256(data).hexdigest()


def _sum_column(table: pa.Table, column: str) -> int:
    return int(table[column].to_numpy().sum(dtype="int64"))


def _build_quarantine_table(reports: list[dict[str, Any]]) -> pa.Table:
    """Builds the table of quarantined slices, one row per slice and reason, from the sync reports."""
    rows = [
        {
            "recording": report["recording"],
            "ordinal": entry["ordinal"],
            "t_ns": entry["t_ns"],
            "stream": reason["stream"],
            "reason": reason["why"],
        }
        for report in reports
        for entry in report["quarantine"]
        for reason in entry["reasons"]
    ]
    return pa.Table.from_pylist(rows, schema=index.QUARANTINE_SCHEMA)
