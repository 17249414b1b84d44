"""Entry point of a build: plans it, runs the tasks of this rank, and finishes the shard set if all are complete."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpack.errors import ConfigError
from mmpack.ingest.engines import EngineConfig, TaskFailure, select_engine
from mmpack.ingest.merge_parts import finish_build
from mmpack.ingest.tasks.build_config import BuildConfig
from mmpack.ingest.tasks.build_plan import BuildPlan, plan_build
from mmpack.ingest.tasks.fingerprint import RECORDS_VERSION
from mmpack.ingest.tasks.reporter import BuildReporter, SilentReporter
from mmpack.ingest.tasks.task import read_task_record
from mmpack.serialisation import canonical_json, from_json
from mmpack.shards.manifest import MANIFEST_NAME, Manifest
from mmpack.storage import open_store
from mmpack.storage.store import Store

_SETTINGS_NAME = "_build/settings.json"
_IN_PROCESS = EngineConfig("in_process")
_SILENT = SilentReporter()
_SHARD_NAME = re.compile(r"shards/[^/]+-\d{5,}\.tar")
#: Names of the files that a build writes next to its folders.
TOP_LEVEL = frozenset({MANIFEST_NAME, "index.parquet", "quarantine.parquet", "sync.parquet", "sync.json"})


@dataclass(frozen=True)
class BuildOutcome:
    """The outcome of a build on one rank.

    Attributes:
        plan: plan of the build.
        manifest: manifest of the finished shard set; None if a task of this or another rank is not complete.
        failures: failed tasks of this rank.
        resumed: number of tasks of this rank that were complete before.
    """

    plan: BuildPlan
    manifest: Manifest | None
    failures: list[TaskFailure]
    resumed: int


def build_shards(
    config: BuildConfig,
    out: str,
    *,
    engine: EngineConfig = _IN_PROCESS,
    overwrite: bool = False,
    root: Path | None = None,
    reporter: BuildReporter = _SILENT,
) -> BuildOutcome:
    """Builds shards, index and manifest at `out`; resumes a build that was stopped.

    The result is identical to the byte for any number of workers and ranks.

    Args:
        config: settings of the build, with paths that can be opened from the current folder.
        out: folder or object store URL of the target.
        engine: where the tasks run, and which of them run on this rank; by default all tasks run in this process.
            With worker processes, the calling script needs `if __name__ == "__main__":`.
        overwrite: if True, an existing build in the target is removed first.
        root: folder that replaces `recording.root` as the base of relative paths in recording.toml files.
        reporter: receiver of progress and warnings; by default neither is reported.

    Raises:
        ConfigError: the settings or the engine are invalid, or the target contains another build.
        DataError: a recording cannot be opened.
        StorageError: the target cannot be read or written.
    """
    selected = select_engine(engine)
    if overwrite and engine.ranks > 1:
        raise ConfigError(
            "--overwrite with several ranks would delete the output of the other ranks",
            hint="Empty the target first.",
        )
    if not out.strip():
        raise ConfigError("no target is set", hint="Give --out a folder or an object store URL.")
    plan = plan_build(config, root=root)
    store = open_store(out)
    if overwrite:
        _clear_target(store)
    _claim_target(plan, store)
    tasks = [task for index, task in enumerate(plan.tasks) if index % engine.ranks == engine.rank]
    resumed = sum(read_task_record(store, task.name) is not None for task in tasks)
    failures = selected.run(plan, tasks, out, workers=engine.num_workers, reporter=reporter)
    manifest = None if failures else finish_build(plan, store)
    return BuildOutcome(plan, manifest, failures, resumed)


def _claim_target(plan: BuildPlan, store: Store) -> None:
    """Writes the settings of this build to the target, or compares them with the stored ones.

    Raises:
        ConfigError: the target contains another build (the error lists the differences), or records of another version.
    """
    settings = {
        "version": RECORDS_VERSION,
        "settings": plan.settings,
        "layout": plan.layout.fingerprint,
        "fingerprint": plan.fingerprint,
    }
    hint = "Choose another --out, or add --overwrite to rebuild the target."
    if not store.exists(_SETTINGS_NAME):
        if store.exists(MANIFEST_NAME):
            raise ConfigError(
                "the target contains a finished shard set without the records that a build needs to resume",
                where=store.url,
                hint=hint,
            )
        store.write(_SETTINGS_NAME, canonical_json(settings))
        return
    stored = from_json(store.read(_SETTINGS_NAME, limit=64 << 20))
    version = stored.get("version", 1)
    if version != RECORDS_VERSION:
        raise ConfigError(
            f"the target contains a build whose records have version {version}, but this version of mmpack resumes "
            f"only version {RECORDS_VERSION}",
            where=store.url,
            hint=hint,
        )
    if stored.get("fingerprint") != plan.fingerprint:
        changes = ", ".join(_list_differences(stored.get("settings", {}), plan.settings)) or "the layout"
        raise ConfigError(
            f"the target contains a build with other settings: {changes}", where=store.url, hint=hint
        )
    stored_tasks = {name.split("/")[2] for name in store.list_names("_build/tasks/")}
    removed_tasks = stored_tasks - {task.name for task in plan.tasks}
    if removed_tasks:
        raise ConfigError(
            f"the target also contains '{min(removed_tasks)}', which is not among the inputs",
            where=store.url,
            hint=hint,
        )


def _list_differences(stored: Any, current: Any, path: str = "") -> list[str]:
    """Lists the differing values of two JSON trees as texts; `path` is the dotted key of the trees."""
    if isinstance(stored, dict) and isinstance(current, dict):
        return [
            line
            for key in sorted(stored.keys() | current.keys())
            for line in _list_differences(
                stored.get(key), current.get(key), f"{path}.{key}" if path else str(key)
            )
        ]
    return [] if stored == current else [f"{path} is {current!r} and was {stored!r}"]


def _clear_target(store: Store) -> None:
    """Deletes the files of a build and no others. Raises ConfigError if the target has files but no build."""
    names = list(store.list_names())
    if names and not {MANIFEST_NAME, _SETTINGS_NAME} & set(names):
        raise ConfigError(
            f"--overwrite deletes only a build, but the target contains other files ('{names[0]}') and no build",
            where=store.url,
            hint="Choose another --out, or empty the target yourself.",
        )
    build_files = [
        name
        for name in names
        if name in TOP_LEVEL or _SHARD_NAME.fullmatch(name) or name.startswith("_build/")
    ]
    # The manifest is deleted first, because without it the target is no finished shard set. The settings are deleted
    # last, so that a deletion that was stopped can be repeated.
    build_files.sort(key=lambda name: (name != MANIFEST_NAME, name == _SETTINGS_NAME))
    for name in build_files:
        store.delete(name)
