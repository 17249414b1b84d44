"""What a build consists of: its tasks, and the layout that all of them share."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from mmpack.errors import ConfigError
from mmpack.ingest.tasks.build_config import BuildConfig, SourceConfig
from mmpack.layout import Layout, NumericLayout
from mmpack.recording import TABLE_KINDS, AudioSource, FrameSource, Recording, TableSource
from mmpack.recording.files import sanitise_name
from mmpack.recording.formats import open_recordings
from mmpack.serialisation import canonical_json, from_json, to_builtins
from mmpack.settings import suggest
from mmpack.shards.manifest import FORMAT_VERSION
from mmpack.sync.policies.rule import DEFAULT_POLICY

#: Tables and texts up to this size are hashed whole; an edit that keeps a file's size must not go unnoticed.
MAX_HASHED_BYTES = 64 << 20


@dataclass(frozen=True)
class Task:
    """One recording or one stand-alone source: the unit that a worker takes and that a killed build repeats.

    Attributes:
        name: begins its keys and shards.
        recording: what to slice; None for a stand-alone source.
        samples: the source; None for a recording.
    """

    name: str
    recording: Recording | None = None
    samples: SourceConfig | None = None

    def fingerprint(self, settings: str) -> str:
        """sha256 of the settings and of all that the task is made from: descriptions, stamps, file names and sizes.

        Small files (tables, subtitles, lists of samples) count with their content, media with their size.
        """
        facts: list[Any] = [settings, self.name]
        if self.recording is not None:
            facts.append([self.recording.reference, [_plain_values(known) for known in self.recording.maps]])
            for stream in self.recording.streams.values():
                hashed = not isinstance(stream.source, FrameSource | AudioSource)
                facts.append([_plain_values(stream, hashed=hashed), sorted(stream.source.files())])
        if self.samples is not None:
            facts.append(_plain_values(Path(self.samples.path), hashed=True))
        return hashlib.sha256(canonical_json(facts)).hexdigest()


def _plain_values(value: Any, *, hashed: bool = False) -> Any:
    """A description as plain values: a path becomes its name (and, if `hashed` and small, its digest), an array its digest."""
    if isinstance(value, Path):
        is_small = hashed and value.is_file() and value.stat().st_size <= MAX_HASHED_BYTES
        return [value.name, hashlib.sha256(value.read_bytes()).hexdigest() if is_small else ""]
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    if dataclasses.is_dataclass(value):
        named = [field.name for field in dataclasses.fields(value) if field.init]
        return [
            type(value).__name__,
            {name: _plain_values(getattr(value, name), hashed=hashed) for name in named},
        ]
    if isinstance(value, list | tuple):
        return [_plain_values(item, hashed=hashed) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return [
        type(value).__name__,
        {name: _plain_values(inner, hashed=hashed) for name, inner in vars(value).items()},
    ]


@dataclass(frozen=True)
class BuildPlan:
    """Everything that decides a build's bytes, and nothing that does not (paths, workers, ranks).

    Attributes:
        config: with the layout's cameras and numeric streams filled in.
        tasks: sorted by name.
    """

    config: BuildConfig
    tasks: tuple[Task, ...]

    @cached_property
    def layout(self) -> Layout:
        """The layout all tasks count under."""
        return Layout(self.config.layout)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Every setting as JSON values, defaults written out, paths left out."""
        whole = from_json(canonical_json(to_builtins(self.config)))
        whole.pop("recordings")
        for source in whole["samples"]:
            source["path"] = Path(source["path"]).name
        return whole

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the settings, the layout and the format."""
        whole = {"settings": self.settings, "layout": self.layout.fingerprint, "format": FORMAT_VERSION}
        return hashlib.sha256(canonical_json(whole)).hexdigest()


def plan_build(config: BuildConfig, *, root: Path | None = None) -> BuildPlan:
    """Opens every recording (without reading its media) and settles the layout.

    Args:
        config: with paths that can be opened from here.
        root: where the relative paths of recording.toml files start, in place of what they say.

    Raises:
        ConfigError: nothing to build, or two tasks of one name.
        DataError: a recording cannot be opened.
    """
    config.validate()
    tasks = [
        Task(recording.name, recording=recording)
        for path in config.recordings
        for recording in open_recordings(path, root=root)
    ]
    tasks += [Task(sanitise_name(source.name), samples=source) for source in config.samples]
    tasks.sort(key=lambda task: task.name)
    for before, after in itertools.pairwise(tasks):
        if before.name == after.name:
            raise ConfigError(
                f"two inputs are called '{after.name}'",
                hint="Give one another recording.name or samples.name.",
            )
    recordings = [task.recording for task in tasks if task.recording is not None]
    return BuildPlan(_fill_layout(config, recordings), tuple(tasks))


def _fill_layout(config: BuildConfig, recordings: Sequence[Recording]) -> BuildConfig:
    """The config with the recordings' cameras and numeric streams in its layout, where it does not list them itself.

    Raises:
        ConfigError: a camera is not among those listed, or a numeric stream has other columns than listed or than in
            another recording.
    """
    layout = config.layout
    cameras: set[str] = set()
    columns: dict[str, tuple[str, tuple[str, ...]]] = {}
    numeric = {stream.name: stream for stream in layout.numeric}
    for recording in recordings:
        for stream in recording.streams.values():
            if (config.sync.policy_for(stream.name).policy or DEFAULT_POLICY[stream.kind]) == "ignore":
                continue
            if stream.kind == "camera":
                cameras.add(stream.name)
            if stream.kind in TABLE_KINDS | {"radar"} and isinstance(stream.source, TableSource):
                mine = stream.source.columns()
                first, theirs = columns.setdefault(stream.name, (recording.name, mine))
                if mine != theirs:
                    raise ConfigError(
                        f"'{stream.name}' has columns {', '.join(mine)}, and in '{first}' {', '.join(theirs)}",
                        where=recording.path,
                        hint="Set the same columns = [...] in both descriptions.",
                    )
                role = "action" if stream.kind == "action" else "observation"
                added = NumericLayout(name=stream.name, width=len(mine), role=role)
                if numeric.setdefault(stream.name, added).width != len(mine):
                    raise ConfigError(
                        f"'{stream.name}' has {len(mine)} columns ({', '.join(mine)}) and a width of "
                        f"{numeric[stream.name].width} in the layout",
                        where="layout.numeric",
                        hint=f"Set width = {len(mine)}.",
                    )
    unlisted = sorted(cameras.difference(layout.cameras)) if layout.cameras else []
    if unlisted:
        raise ConfigError(
            f"the camera '{unlisted[0]}' is not listed",
            where="layout.cameras",
            hint=f"{suggest(unlisted[0], layout.cameras)} Or add it, or set its policy to 'ignore'.",
        )
    # Sorted, so that the order in which recordings are named does not change the vocabulary.
    listed = layout.cameras or tuple(sorted(cameras))
    fixed = [stream.name for stream in layout.numeric]
    streams = tuple(numeric[name] for name in [*fixed, *sorted(numeric.keys() - set(fixed))])
    return msgspec.structs.replace(
        config, layout=msgspec.structs.replace(layout, cameras=listed, numeric=streams)
    )
