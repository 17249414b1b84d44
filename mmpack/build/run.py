"""A build: plan, do this rank's tasks, finish if all are done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from mmpack.build.config import BuildConfig
from mmpack.build.finish import finish
from mmpack.build.local import Failure, run_local
from mmpack.build.plan import Plan, make_plan
from mmpack.build.task import Progress, read_done
from mmpack.config import canonical_json
from mmpack.errors import ConfigError
from mmpack.shards.manifest import MANIFEST_NAME, Manifest
from mmpack.shards.store import Store, open_store

_SETTINGS_NAME = "_build/settings.json"


@dataclass(frozen=True)
class Outcome:
    """How a build ended.

    Attributes:
        plan: what was to be built.
        manifest: of the finished build; None if tasks are left (failed here, or other ranks').
        failures: of this rank.
        resumed: tasks that were complete before.
    """

    plan: Plan
    manifest: Manifest | None
    failures: list[Failure]
    resumed: int


def build(
    config: BuildConfig,
    out: str,
    *,
    workers: int = 0,
    rank: int = 0,
    num_ranks: int = 1,
    overwrite: bool = False,
    root: Path | None = None,
    tell: Callable[[Progress], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
) -> Outcome:
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
        raise ConfigError(f"rank {rank} of {num_ranks} ranks", mend="Ranks count from 0.")
    if overwrite and num_ranks > 1:
        raise ConfigError(
            "--overwrite with several ranks would delete what the others wrote", mend="Empty the target first."
        )
    plan = make_plan(config, root=root)
    store = open_store(out)
    if overwrite:
        _clear(store)
    _claim(plan, store)
    mine = [task for number, task in enumerate(plan.tasks) if number % num_ranks == rank]
    resumed = sum(read_done(store, task.name) is not None for task in mine)
    failures = run_local(plan, mine, out, workers=workers, tell=tell, warn=warn)
    manifest = None if failures else finish(plan, store)
    return Outcome(plan, manifest, failures, resumed)


def _claim(plan: Plan, store: Store) -> None:
    """Marks the target as this build's. Raises ConfigError, with the settings that differ, if it is
    another's.
    """
    mine = {"settings": plan.settings, "layout": plan.layout.fingerprint, "fingerprint": plan.fingerprint}
    if not store.exists(_SETTINGS_NAME):
        if store.exists(MANIFEST_NAME):
            raise ConfigError(
                "the target holds shards of unknown settings", where=store.url, mend="Choose another --out."
            )
        store.write(_SETTINGS_NAME, canonical_json(mine))
        return
    theirs = msgspec.json.decode(store.read(_SETTINGS_NAME, limit=64 << 20))
    if theirs.get("fingerprint") != plan.fingerprint:
        changed = ", ".join(_differences(theirs.get("settings", {}), plan.settings)) or "the layout"
        raise ConfigError(
            f"the target holds a build with other settings: {changed}",
            where=store.url,
            mend="Choose another --out, or add --overwrite to build it anew.",
        )


def _differences(theirs: Any, mine: Any, place: str = "") -> list[str]:
    if isinstance(theirs, dict) and isinstance(mine, dict):
        return [
            line
            for key in sorted(theirs.keys() | mine.keys())
            for line in _differences(theirs.get(key), mine.get(key), f"{place}.{key}" if place else str(key))
        ]
    return [] if theirs == mine else [f"{place} is {mine!r} and was {theirs!r}"]


def _clear(store: Store) -> None:
    # The manifest goes first: without it nothing takes the rest for a finished build.
    store.delete(MANIFEST_NAME)
    for name in list(store.names()):
        if name.startswith(("_build/", "shards/")) or name.endswith(".parquet"):
            store.delete(name)
