"""Fingerprints of tasks: independent of names in the code, sensitive to the inputs."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpack import BuildConfig, build_shards
from mmpack.clock import Clock, ClockMap
from mmpack.errors import ConfigError
from mmpack.ingest import SourceConfig
from mmpack.ingest.tasks.fingerprint import compute_fingerprint
from mmpack.recording import Recording, Stream, Timestamps
from mmpack.recording.model import Source
from mmpack.recording.sources.audio import AudioFile, AudioTrack
from mmpack.recording.sources.images import ImageFiles
from mmpack.recording.sources.subtitles import SubtitleFile, SubtitleTrack, TimedTexts
from mmpack.recording.sources.tables import NumericTable, TimeColumn
from mmpack.recording.sources.timestamps import FileNameTimestamps, TimestampColumn
from mmpack.recording.sources.video import VideoTrack

T_NS = np.arange(3, dtype=np.int64)


@pytest.fixture
def table(tmp_path: Path) -> NumericTable:
    path = tmp_path / "imu.csv"
    path.write_text("t_ns,ax\n1,2\n")
    return NumericTable(path, TimeColumn(path, "t_ns", "ns"), "imu")


def fingerprint(source: Source, **fields: Any) -> str:
    maps = (ClockMap(source="a", target="b", anchor_source_ns=0, anchor_target_ns=5),)
    stream = Stream("imu", "imu", Clock("rig", "boot"), source, **fields)
    return compute_fingerprint("settings", "drive", Recording("drive", {"imu": stream}, maps), None)


def test_a_fingerprint_does_not_depend_on_names_of_classes_and_attributes(table: NumericTable) -> None:
    @dataclass(frozen=True)
    class RenamedTable(NumericTable):
        renamed_attribute: int = 7

    @dataclass(frozen=True)
    class RenamedTime(TimeColumn):
        pass

    @dataclass(frozen=True)
    class RenamedStream(Stream):
        renamed_attribute: int = 7

    time = RenamedTime(table.time.path, table.time.column, table.time.unit)
    renamed = RenamedTable(table.path, time, table.stream)
    assert fingerprint(renamed) == fingerprint(table)
    recordings = [
        Recording("drive", {"imu": type_("imu", "imu", Clock("rig", "boot"), table)})
        for type_ in (Stream, RenamedStream)
    ]
    first, second = (compute_fingerprint("settings", "drive", recording, None) for recording in recordings)
    assert first == second


def test_a_fingerprint_depends_on_every_value_of_the_source_and_the_stream(table: NumericTable) -> None:
    other_file = table.path.with_name("other.csv")
    other_file.write_text("t_ns,ax\n1,3\n")
    fingerprints = [
        fingerprint(table),
        fingerprint(replace(table, start_ns=1)),
        fingerprint(replace(table, selected_columns=("ax",))),
        fingerprint(replace(table, time=replace(table.time, unit="us"))),
        fingerprint(replace(table, time=replace(table.time, column="ax"))),
        fingerprint(replace(table, path=other_file)),
        fingerprint(table, latency_ns=1),
        fingerprint(table, nominal_offset_ns=0),
        fingerprint(table, nominal_period_ns=1),
        fingerprint(table, semantics="mid"),
    ]
    assert len(set(fingerprints)) == len(fingerprints)
    table.path.write_text("t_ns,ax\n1,9\n")
    assert fingerprint(table) not in fingerprints


TIMES = Timestamps(T_NS)
TIME_KEYS = {"t_ns", "end_ns", "resolution_ns", "origin", "unit"}


@pytest.mark.parametrize(
    ("source", "keys"),
    [
        (AudioFile(Path("a"), "s"), {"source", "path", "start_ns"}),
        (AudioTrack(Path("a"), "a:0", "s"), {"source", "path", "track", "start_ns"}),
        (TimedTexts(("a",), TIMES, Path("a")), {"source", "path", "texts", "times"}),
        (SubtitleFile(Path("a"), "s"), {"source", "path", "start_ns"}),
        (SubtitleTrack(Path("a"), "s:0", "s"), {"source", "path", "track", "start_ns"}),
        (
            ImageFiles(folder=Path("a"), names=("b",), t_ns=T_NS, origin="file name", stream="s"),
            {"source", "folder", "names", "times"},
        ),
        (
            NumericTable(Path("a"), TimeColumn(Path("a"), 0, "ns"), "s"),
            {"source", "path", "time", "columns", "start_ns"},
        ),
        (TimestampColumn(TimeColumn(Path("a"), 0, "ns"), "s"), {"source", "time", "start_ns"}),
        (FileNameTimestamps(T_NS, "file name"), {"source", "times"}),
        (VideoTrack(Path("a"), "v:0", "s", 0, TIMES), {"source", "path", "track", "start_ns", "times"}),
    ],
)
def test_the_keys_of_an_identity_are_fixed(source: Source, keys: set[str]) -> None:
    identity = source.identity()
    assert identity.keys() == keys
    assert identity.get("times", TIMES.identity()).keys() == TIME_KEYS


def test_every_source_has_another_identity() -> None:
    path = Path("a")
    sources: list[Source] = [
        AudioFile(path, "s"),
        SubtitleFile(path, "s"),
        AudioTrack(path, "x:0", "s"),
        SubtitleTrack(path, "x:0", "s"),
    ]
    names = [source.identity()["source"] for source in sources]
    assert len(set(names)) == len(names)


def test_a_build_with_records_of_an_earlier_version_is_not_resumed(tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "one"}\n')
    config = BuildConfig(samples=(SourceConfig(name="texts", kind="text", path=str(texts)),))
    out = tmp_path / "out"
    build_shards(config, str(out))
    (out / "manifest.json").unlink()
    settings = json.loads((out / "_build/settings.json").read_text())
    del settings["version"]
    (out / "_build/settings.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=r"records have version 1.*only version 2") as caught:
        build_shards(config, str(out))
    assert "--overwrite" in str(caught.value)
    outcome = build_shards(config, str(out), overwrite=True)
    assert outcome.manifest is not None
