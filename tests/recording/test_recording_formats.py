"""The registry of input formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpack.errors import DataError
from mmpack.recording import FORMATS, InputFormat, Recording, formats, open_recordings
from tests.recording.media_files import imu_table, write_recording_toml


def write_recording(folder: Path) -> None:
    """Writes a recording.toml whose table is not in its own folder."""
    folder.mkdir(parents=True)
    write_recording_toml(folder, imu_table('column = "t", unit = "ns"'))


def write_table(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "imu.csv").write_text("t,ax\n1,2\n")


def test_root_replaces_the_base_of_one_recording(tmp_path: Path) -> None:
    write_recording(tmp_path / "drive")
    write_table(tmp_path / "data")
    (recording,) = open_recordings(tmp_path / "drive", root=tmp_path / "data")
    assert recording.streams["imu"].timestamps.t_ns.tolist() == [1]
    with pytest.raises(DataError, match="no such file"):
        open_recordings(tmp_path / "drive")


def test_root_replaces_the_base_of_every_recording_of_a_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_recording(tmp_path / "drives" / name)
    write_table(tmp_path / "data")
    recordings = open_recordings(tmp_path / "drives", root=tmp_path / "data")
    assert [recording.streams["imu"].timestamps.t_ns.tolist() for recording in recordings] == [[1], [1]]


def test_an_unknown_input_raises_an_error_that_lists_the_formats(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("text")
    with pytest.raises(DataError) as caught:
        open_recordings(tmp_path / "notes.md")
    for format_ in FORMATS:
        assert format_.name in caught.value.hint


def test_a_new_format_is_one_entry_of_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added = InputFormat(
        "notes", lambda path: path.suffix == ".md", lambda path, _: [Recording(path.stem, {})]
    )
    monkeypatch.setattr(formats.registry, "FORMATS", (*FORMATS, added))
    (tmp_path / "notes.md").write_text("text")
    assert [recording.name for recording in open_recordings(tmp_path / "notes.md")] == ["notes"]
