"""Plan of a build: its tasks, and the token layout that all tasks share."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from mmpack.errors import ConfigError
from mmpack.ingest.tasks.build_config import BuildConfig, SourceConfig
from mmpack.ingest.tasks.fingerprint import compute_fingerprint
from mmpack.layout import Layout, NumericLayout
from mmpack.recording import TABLE_KINDS, Recording, TableSource
from mmpack.recording.files import sanitise_name
from mmpack.recording.formats import open_recordings
from mmpack.serialisation import canonical_json, from_json, to_builtins
from mmpack.settings import suggest
from mmpack.shards.manifest import FORMAT_VERSION


@dataclass(frozen=True)
class Task:
    """One recording or one stand-alone source, built by one worker.

    Attributes:
        name: name of the task, with which its keys and shard names begin.
        recording: recording to build; None for a stand-alone source.
        samples: settings of the stand-alone source; None for a recording.
    """

    name: str
    recording: Recording | None = None
    samples: SourceConfig | None = None

    def fingerprint(self, settings: str) -> str:
        """Computes the sha256 of the settings and all inputs, as :func:`compute_fingerprint` describes.

        Args:
            settings: fingerprint of the build's settings.
        """
        return compute_fingerprint(settings, self.name, self.recording, self.samples)


@dataclass(frozen=True)
class BuildPlan:
    """The settings and tasks that determine the bytes of a build, without paths, workers and ranks.

    Attributes:
        config: settings, with the cameras and numeric streams of the recordings added to the layout.
        tasks: tasks, sorted by name.
    """

    config: BuildConfig
    tasks: tuple[Task, ...]

    @cached_property
    def layout(self) -> Layout:
        """The token layout of all tasks."""
        return Layout(self.config.layout)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All settings as JSON values, with defaults; without the paths of recordings and the folders of sources."""
        settings = from_json(canonical_json(to_builtins(self.config)))
        settings.pop("recordings")
        for source in settings["samples"]:
            source["path"] = Path(source["path"]).name
        return settings

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of the settings, the layout and the format version."""
        content = {"settings": self.settings, "layout": self.layout.fingerprint, "format": FORMAT_VERSION}
        return hashlib.sha256(canonical_json(content)).hexdigest()


def plan_build(config: BuildConfig, *, root: Path | None = None) -> BuildPlan:
    """Opens all recordings without reading their media, and completes the token layout.

    Args:
        config: settings, with paths that can be opened from the current folder.
        root: folder that replaces `recording.root` as the base of relative paths in recording.toml files.

    Raises:
        ConfigError: the settings are invalid, there is nothing to build, or two tasks have the same name.
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
    for first, second in itertools.pairwise(tasks):
        if first.name == second.name:
            raise ConfigError(
                f"two inputs are called '{second.name}'",
                hint="Change recording.name or samples.name of one of them.",
            )
    recordings = [task.recording for task in tasks if task.recording is not None]
    return BuildPlan(_fill_layout(config, recordings), tuple(tasks))


def _fill_layout(config: BuildConfig, recordings: Sequence[Recording]) -> BuildConfig:
    """Returns the settings with the cameras and numeric streams of the recordings added to the layout.

    Raises:
        ConfigError: a camera is not in the layout's list, a numeric stream has another number of columns than in the
            layout, or other columns than in another recording.
    """
    layout = config.layout
    cameras: set[str] = set()
    columns: dict[str, tuple[str, tuple[str, ...]]] = {}
    numeric = {stream.name: stream for stream in layout.numeric}
    for recording in recordings:
        for stream in recording.streams.values():
            if config.sync.policy_for(stream.name).is_ignored:
                continue
            if stream.kind == "camera":
                cameras.add(stream.name)
            if stream.kind in TABLE_KINDS | {"radar"} and isinstance(stream.source, TableSource):
                names = stream.source.columns()
                first, first_names = columns.setdefault(stream.name, (recording.name, names))
                if names != first_names:
                    raise ConfigError(
                        f"'{stream.name}' has columns {', '.join(names)}, but in '{first}' {', '.join(first_names)}",
                        where=recording.path,
                        hint="Set the same columns = [...] in both descriptions.",
                    )
                role = "action" if stream.kind == "action" else "observation"
                added = NumericLayout(name=stream.name, width=len(names), role=role)
                if numeric.setdefault(stream.name, added).width != len(names):
                    raise ConfigError(
                        f"'{stream.name}' has {len(names)} columns ({', '.join(names)}), but a width of "
                        f"{numeric[stream.name].width} in the layout",
                        where="layout.numeric",
                        hint=f"Set width = {len(names)}.",
                    )
    unlisted = sorted(cameras.difference(layout.cameras)) if layout.cameras else []
    if unlisted:
        raise ConfigError(
            f"the camera '{unlisted[0]}' is not listed",
            where="layout.cameras",
            hint=f"{suggest(unlisted[0], layout.cameras)} Add the camera, or set its policy to 'ignore'.",
        )
    # The names are sorted, so that the order of the recordings does not change the vocabulary.
    listed = layout.cameras or tuple(sorted(cameras))
    fixed = [stream.name for stream in layout.numeric]
    streams = tuple(numeric[name] for name in [*fixed, *sorted(numeric.keys() - set(fixed))])
    return msgspec.structs.replace(
        config, layout=msgspec.structs.replace(layout, cameras=listed, numeric=streams)
    )
