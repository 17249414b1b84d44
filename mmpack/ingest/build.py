"""A build: plan, do this rank's tasks, finish if all are done."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpack.errors import ConfigError
from mmpack.ingest.engines import run_tasks
from mmpack.ingest.engines.engine import TaskFailure
from mmpack.ingest.finish import finish_build
from mmpack.ingest.tasks.build_config import BuildConfig
from mmpack.ingest.tasks.build_plan import BuildPlan, plan_build
from mmpack.ingest.tasks.task import TaskProgress, read_task_record
from mmpack.serialisation import canonical_json, from_json
from mmpack.shards.manifest import MANIFEST_NAME, Manifest
from mmpack.storage import open_store
from mmpack.storage.store import Store

_SETTINGS_NAME = "_build/settings.json"
_SHARD_NAME = re.compile(r"shards/[^/]+-\d{5,}\.tar")
#: What a build writes beside its shards.
TOP_LEVEL = frozenset({MANIFEST_NAME, "index.parquet", "quarantine.parquet", "sync.parquet", "sync.json"})


@dataclass(frozen=True)
class BuildOutcome:
    """How a build ended.

    Attributes:
        plan: what was to be built.
        manifest: of the finished build; None if tasks are left (failed here, or other ranks').
        failures: of this rank.
        resumed: tasks that were complete before.
    """

    plan: BuildPlan
    manifest: Manifest | None
    failures: list[TaskFailure]
    resumed: int


def build_shards(
    config: BuildConfig,
    out: str,
    *,
    workers: int = 0,
    rank: int = 0,
    num_ranks: int = 1,
    overwrite: bool = False,
    root: Path | None = None,
    on_progress: Callable[[TaskProgress], None] = lambda _: None,
    on_warning: Callable[[str], None] = lambda _: None,
) -> BuildOutcome:
    """Builds shards, index and manifest at `out`; picks up where an earlier run was killed.

    The result is the same to the byte for any number of workers and ranks.

    Args:
        config: what to build; paths as they can be opened from here.
        out: a folder or object store URL.
        workers: processes; 0 works in this one. With more, the calling script needs its `if __name__ ==
            "__main__":`.
        rank, num_ranks: this run's share of the tasks. Ranks need nothing of each other but the target.
        overwrite: removes what the target holds first.
        root: where the relative paths of recording.toml files start, in place of what they say.
        tell: told of progress.
        warn: told of workers that died and were replaced.

    Raises:
        ConfigError: bad settings, or the target holds another build.
        DataError: a recording cannot be opened.
        StorageError: the target refuses.
    """
    if not 0 <= rank < num_ranks:
        raise ConfigError(f"rank {rank} of {num_ranks} ranks", hint="Ranks count from 0.")
    if overwrite and num_ranks > 1:
        raise ConfigError(
            "--overwrite with several ranks would delete what the others wrote",
            hint="Empty the target first.",
        )
    if not out.strip():
        raise ConfigError("no target", hint="Give --out a folder or an object store URL.")
    plan = plan_build(config, root=root)
    store = open_store(out)
    if overwrite:
        _clear_target(store)
    _claim_target(plan, store)
    mine = [task for number, task in enumerate(plan.tasks) if number % num_ranks == rank]
    resumed = sum(read_task_record(store, task.name) is not None for task in mine)
    failures = run_tasks(plan, mine, out, workers=workers, on_progress=on_progress, on_warning=on_warning)
    manifest = None if failures else finish_build(plan, store)
    return BuildOutcome(plan, manifest, failures, resumed)


def _claim_target(plan: BuildPlan, store: Store) -> None:
    """Marks the target as this build's. Raises ConfigError, with what differs, if it is another's."""
    mine = {"settings": plan.settings, "layout": plan.layout.fingerprint, "fingerprint": plan.fingerprint}
    mend = "Choose another --out, or add --overwrite to build it anew."
    if not store.exists(_SETTINGS_NAME):
        if store.exists(MANIFEST_NAME):
            raise ConfigError(
                "the target holds finished shards, and the records that a build goes on from were removed",
                where=store.url,
                hint=mend,
            )
        store.write(_SETTINGS_NAME, canonical_json(mine))
        return
    theirs = from_json(store.read(_SETTINGS_NAME, limit=64 << 20))
    if theirs.get("fingerprint") != plan.fingerprint:
        changed = ", ".join(_differences(theirs.get("settings", {}), plan.settings)) or "the layout"
        raise ConfigError(
            f"the target holds a build with other settings: {changed}", where=store.url, hint=mend
        )
    known = {task.name for task in plan.tasks}
    held = {name.split("/")[2] for name in store.list_names("_build/tasks/")}
    if held - known:
        raise ConfigError(
            f"the target also holds '{min(held - known)}', which is not among the inputs",
            where=store.url,
            hint=mend,
        )


def _differences(stored: Any, current: Any, path: str = "") -> list[str]:
    if isinstance(stored, dict) and isinstance(current, dict):
        return [
            line
            for key in sorted(stored.keys() | current.keys())
            for line in _differences(stored.get(key), current.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if stored == current else [f"{path} is {current!r} and was {stored!r}"]


def _clear_target(store: Store) -> None:
    """Removes what a build wrote, and nothing else. Raises ConfigError if the target holds files but no build."""
    names = list(store.list_names())
    if names and not {MANIFEST_NAME, _SETTINGS_NAME} & set(names):
        raise ConfigError(
            f"--overwrite removes builds, and the target holds none but other files ('{names[0]}')",
            where=store.url,
            hint="Choose another --out, or empty it yourself.",
        )
    ours = [
        name
        for name in names
        if name in TOP_LEVEL or _SHARD_NAME.fullmatch(name) or name.startswith("_build/")
    ]
    # The manifest goes first: without it nothing takes the rest for a finished build; the settings last, so that a killed
    # clearing is taken up again.
    ours.sort(key=lambda name: (name != MANIFEST_NAME, name == _SETTINGS_NAME))
    for name in ours:
        store.delete(name)
