"""What a build consists of: its tasks, and the layout that all of them share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from mmpack.build.config import BuildConfig, SamplesConfig
from mmpack.config import canonical_json, to_builtins
from mmpack.errors import ConfigError
from mmpack.layout import Layout, NumericLayout
from mmpack.recording import TABLE_KINDS, Recording, Stream, TableSource, open_recordings
from mmpack.recording.files import safe_name
from mmpack.shards.manifest import FORMAT_VERSION
from mmpack.sync.config import DEFAULT_POLICY


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
    samples: SamplesConfig | None = None

    def fingerprint(self, settings: str) -> str:
        """sha256 of the settings, and of the names and sizes of all files that the task reads."""
        facts: list[Any] = [settings, self.name]
        if self.recording is not None:
            for stream in self.recording.streams.values():
                facts.append([stream.name, stream.kind, stream.clock.name, stream.clock.domain, stream.semantics])
                facts.append([stream.nominal_offset_ns, stream.latency_ns, sorted(stream.source.files())])
        if self.samples is not None:
            path = Path(self.samples.path)
            facts.append([path.name, path.stat().st_size if path.exists() else 0])
        return hashlib.sha256(canonical_json(facts)).hexdigest()


@dataclass(frozen=True)
class Plan:
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
        """Every setting, defaults written out, paths left out."""
        whole = to_builtins(self.config)
        whole.pop("recordings")
        for source in whole["samples"]:
            source["path"] = Path(source["path"]).name
        return whole

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the settings, the layout and the format."""
        whole = {"settings": self.settings, "layout": self.layout.fingerprint, "format": FORMAT_VERSION}
        return hashlib.sha256(canonical_json(whole)).hexdigest()


def make_plan(config: BuildConfig, *, root: Path | None = None) -> Plan:
    """Opens every recording (without reading its media) and settles the layout.

    Args:
        config: with paths that can be opened from here.
        root: where the relative paths of recording.toml files start, in place of what they say.

    Raises:
        ConfigError: nothing to build, or two tasks of one name.
        DataError: a recording cannot be opened.
    """
    config.checked()
    tasks = [
        Task(recording.name, recording=recording)
        for path in config.recordings
        for recording in open_recordings(path, root=root)
    ]
    tasks += [Task(safe_name(source.name), samples=source) for source in config.samples]
    tasks.sort(key=lambda task: task.name)
    for before, after in zip(tasks, tasks[1:], strict=False):
        if before.name == after.name:
            raise ConfigError(
                f"two inputs are called '{after.name}'", mend="Give one another recording.name or samples.name."
            )
    recordings = [task.recording for task in tasks if task.recording is not None]
    return Plan(_with_streams(config, recordings), tuple(tasks))


def _with_streams(config: BuildConfig, recordings: Sequence[Recording]) -> BuildConfig:
    """Cameras and numeric streams that the layout does not list are added in the order they come."""
    layout = config.layout
    cameras, numeric = list(layout.cameras), {stream.name: stream for stream in layout.numeric}
    for recording in recordings:
        for stream in recording.streams.values():
            if (config.sync.of(stream.name).policy or DEFAULT_POLICY[stream.kind]) == "ignore":
                continue
            if stream.kind == "camera" and stream.name not in cameras and not layout.cameras:
                cameras.append(stream.name)
            if _is_numeric(stream) and stream.name not in numeric:
                numeric[stream.name] = _numeric_layout(stream)
    # Sorted, so that the order in which recordings are named does not change the vocabulary.
    listed = layout.cameras or tuple(sorted(cameras))
    fixed = [stream.name for stream in layout.numeric]
    added = sorted(name for name in numeric if name not in fixed)
    streams = tuple(numeric[name] for name in [*fixed, *added])
    return msgspec.structs.replace(
        config, layout=msgspec.structs.replace(layout, cameras=listed, numeric=streams)
    )


def _is_numeric(stream: Stream) -> bool:
    return stream.kind in TABLE_KINDS | {"radar"} and isinstance(stream.source, TableSource)


def _numeric_layout(stream: Stream) -> NumericLayout:
    assert isinstance(stream.source, TableSource)
    role = "action" if stream.kind == "action" else "observation"
    return NumericLayout(name=stream.name, width=len(stream.source.columns()), role=role)
