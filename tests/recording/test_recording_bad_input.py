"""Bad input of the readers: each case gives one error that names the file and the stream and has a hint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mmpack.errors import ClockError, ConfigError, DataError, MmpackError
from mmpack.recording import FrameSource
from mmpack.recording.formats import open_recordings
from mmpack.recording.formats.nuscenes import open_nuscenes
from mmpack.recording.sources.audio import AudioFile
from mmpack.recording.sources.container import scan_packets
from mmpack.sync import SyncConfig, SyncResult, synchronise
from tests.recording.media_files import (
    MS,
    S,
    imu_table,
    write_audio_track,
    write_image,
    write_recording_toml,
    write_video,
    write_wav,
)

UTC_US = 1_537_291_002_262_404
CAMERA = '[streams.cam]\nkind = "camera"\npath = "cam.mp4"\n'
MICROPHONE = '[streams.mic]\nkind = "audio"\npath = "mic.wav"\n'
IMAGES = (
    '[streams.cam]\nkind = "camera"\npath = "cam"\n'
    "time = { pattern = '_(\\d+)\\.(jpg|png)$', unit = \"UNIT\" }\n"
)


def sync_folder(folder: Path, text: str, clock: str) -> SyncResult:
    (recording,) = open_recordings(write_recording_toml(folder, text, clock=clock))
    return synchronise(recording, SyncConfig(reference="rate:10"))


def expect_error(folder: Path, text: str, type_: type[MmpackError], *, clock: str = "boot") -> MmpackError:
    """Opens and synchronises a folder and returns the error, which must have the type `type_` and a hint."""
    with pytest.raises(MmpackError) as caught:
        sync_folder(folder, text, clock)
    assert type(caught.value) is type_
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return caught.value


def write_rows(path: Path, times: list[int], header: str = "t,ax") -> None:
    path.write_text(header + "\n" + "".join(f"{t},0\n" for t in times))


def test_a_missing_camera_file(tmp_path: Path) -> None:
    error = expect_error(tmp_path, CAMERA, DataError)
    assert "no such file" in error.message
    assert "cam.mp4" in error.where
    assert error.hint == "Correct its path in recording.toml."
    assert "'cam'" in error.where


def test_a_missing_and_an_empty_image_folder(tmp_path: Path) -> None:
    text = IMAGES.replace("UNIT", "us")
    assert "cam" in expect_error(tmp_path, text, DataError).where
    (tmp_path / "cam").mkdir()
    with pytest.raises(DataError, match="no JPEG or PNG") as caught:
        open_recordings(write_recording_toml(tmp_path, text))
    assert "'cam'" in caught.value.where


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("flags", ["faststart", "moov at the end"])
def test_a_truncated_mp4(tmp_path: Path, flags: str, share: float) -> None:
    complete = tmp_path / "complete.mp4"
    write_video(
        complete,
        [40 * k for k in range(100)],
        audio_s=4,
        options={"movflags": "+faststart"} if "fast" in flags else {},
    )
    data = complete.read_bytes()
    (tmp_path / "cam.mp4").write_bytes(data[: int(len(data) * share)])
    for text in (CAMERA, '[streams.cam]\nkind = "audio"\npath = "cam.mp4"\n'):
        error = expect_error(tmp_path, text, DataError)
        assert "cam.mp4" in error.where
        assert "'cam'" in error.where
        assert "truncated" in str(error) or "Copy" in error.hint
    shutil.copy(complete, tmp_path / "cam.mp4")
    assert len(scan_packets(tmp_path / "cam.mp4", "v:0", stream="cam").pts) == 100
    assert len(scan_packets(tmp_path / "cam.mp4", "a:0", stream="cam").pts) >= 62


@pytest.mark.parametrize(("codec", "name"), [("aac", "a.m4a"), ("pcm_s16le", "a.mov")])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_audio_track_raises(tmp_path: Path, codec: str, name: str, share: float) -> None:
    path = tmp_path / name
    write_audio_track(path, codec, 5.0, {"movflags": "+faststart"})
    scan_packets(path, "a:0", stream="mic")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError) as caught:
        scan_packets(path, "a:0", stream="mic")
    assert name in caught.value.where


def test_a_truncated_mkv(tmp_path: Path) -> None:
    path = tmp_path / "cam.mkv"
    write_video(path, [40 * k for k in range(100)], audio_s=4)
    assert len(scan_packets(path, "v:0", stream="cam").pts) == 100
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for spec in ("v:0", "a:0"):
        with pytest.raises(DataError, match="truncated") as caught:
            scan_packets(path, spec, stream="cam")
        assert "cam.mkv" in caught.value.where


@pytest.mark.parametrize("content", [b"", b"RIFF", b"not an audio file"])
def test_a_wav_without_valid_content(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mic.wav").write_bytes(content)
    error = expect_error(tmp_path, MICROPHONE, DataError)
    assert "mic.wav" in error.where
    assert "'mic'" in error.where
    assert ("0 bytes" in error.message) == (content == b"")


@pytest.mark.parametrize(
    ("format_", "subtype", "endian"),
    [
        ("WAV", "PCM_16", "FILE"),
        ("WAV", "FLOAT", "BIG"),
        ("WAV", "PCM_24", "FILE"),
        ("RF64", "PCM_16", "FILE"),
        ("AIFF", "PCM_16", "FILE"),
        ("FLAC", "PCM_16", "FILE"),
    ],
)
def test_a_truncated_audio_file(tmp_path: Path, format_: str, subtype: str, endian: str) -> None:
    path = tmp_path / "mic.wav"
    soundfile.write(path, np.zeros(16_000), 16_000, format=format_, subtype=subtype, endian=endian)
    data = path.read_bytes()
    description = write_recording_toml(tmp_path, MICROPHONE)
    assert open_recordings(description)[0].streams["mic"].audio_timeline.samples.tolist() == [16_000]
    for cut in (len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        source = AudioFile(path, "mic")
        with pytest.raises(DataError, match="truncated") as caught:
            source.read(0, int(source.timeline().samples[0]))
        assert "mic.wav" in caught.value.where


def test_a_wav_written_to_a_pipe_has_no_size(tmp_path: Path) -> None:
    path = tmp_path / "mic.wav"
    write_wav(path)
    data = path.read_bytes()
    offset = data.index(b"data") + 4
    path.write_bytes(data[:offset] + b"\xff" * 4 + data[offset + 4 :])
    assert AudioFile(path, "mic").timeline().samples.tolist() == [16_000]
    path.write_bytes(data[:offset] + bytes(4) + data[offset + 4 :])
    with pytest.raises(DataError, match="or its header declares none") as caught:
        AudioFile(path, "mic").timeline()
    assert "repair the header" in caught.value.hint


def test_a_wav_with_further_chunks_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "mic.wav"
    write_wav(path)
    data = path.read_bytes()
    offset = data.index(b"data")
    path.write_bytes(data[:offset] + b"note" + (3).to_bytes(4, "little") + b"abc\0" + data[offset:] + b"LIST")
    (recording,) = open_recordings(write_recording_toml(tmp_path, MICROPHONE))
    assert recording.streams["mic"].audio_timeline.samples.tolist() == [16_000]


def test_a_wav_with_only_a_header(tmp_path: Path) -> None:
    write_wav(tmp_path / "mic.wav", 0.0)
    with pytest.raises(DataError, match="no audio samples") as caught:
        open_recordings(write_recording_toml(tmp_path, MICROPHONE))[0].streams["mic"].audio_timeline  # noqa: B018
    assert "mic.wav" in caught.value.where


def test_a_csv_without_the_time_column(tmp_path: Path) -> None:
    write_rows(tmp_path / "imu.csv", [1, 2], "time_ns,ax")
    error = expect_error(tmp_path, imu_table('column = "t_ns", unit = "ns"'), DataError)
    assert "no column 't_ns'" in error.message
    assert "imu.csv" in error.where
    assert "'time_ns'" in error.hint


def test_a_csv_with_only_a_header(tmp_path: Path) -> None:
    write_rows(tmp_path / "imu.csv", [])
    assert "no items" in expect_error(tmp_path, imu_table(), DataError).message


def test_a_csv_with_one_row_gives_one_tick(tmp_path: Path) -> None:
    write_rows(tmp_path / "imu.csv", [5 * S])
    result = synchronise(
        open_recordings(write_recording_toml(tmp_path, imu_table()))[0], SyncConfig(reference="rate:10")
    )
    assert result.ticks.t_ns.tolist() == [5 * S]
    assert result.passed.all()


@pytest.mark.parametrize(
    ("per_s", "unit", "type_", "suggestion"),
    [
        (10**3, "s", DataError, "ms"),
        (10**6, "ms", DataError, "us"),
        (10**9, "us", DataError, "ns"),
        (10**6, "ns", ClockError, "us"),
        (1, "ms", ClockError, "Read as s "),
        (10**3, "us", ClockError, "Read as ms "),
    ],
)
def test_epoch_times_in_the_wrong_unit_suggest_the_right_one(
    tmp_path: Path, per_s: int, unit: str, type_: type[MmpackError], suggestion: str
) -> None:
    write_rows(tmp_path / "imu.csv", [(UTC_US + k * 10_000) * per_s // 10**6 for k in range(50)])
    error = expect_error(tmp_path, imu_table(f'column = "t", unit = "{unit}"'), type_, clock="utc")
    assert "imu" in error.where
    assert suggestion in error.hint


def test_times_in_the_year_2464(tmp_path: Path) -> None:
    write_rows(tmp_path / "imu.csv", [15_600_000_000 + k for k in range(50)])
    error = expect_error(tmp_path, imu_table('column = "t", unit = "s"'), DataError, clock="utc")
    assert "2464" in error.message
    assert "imu.csv" in error.where


@pytest.mark.parametrize("unit", ["us", "ns"])
def test_image_names_with_times_in_another_unit(tmp_path: Path, unit: str) -> None:
    for k in range(3):
        time_us = UTC_US + k * 100_000
        write_image(tmp_path / "cam" / f"a_{time_us * 1000 if unit == 'us' else time_us}.jpg")
    error = expect_error(
        tmp_path, IMAGES.replace("UNIT", unit), DataError if unit == "us" else ClockError, clock="utc"
    )
    assert "cam" in error.where
    assert "ns" in error.hint if unit == "us" else "us" in error.hint


def test_float_nanoseconds_in_a_csv(tmp_path: Path) -> None:
    lines = "".join(
        f"{np.float64(1.673069018503469952e18 + k * 1e8)!r},0\n".replace("np.float64(", "").replace(")", "")
        for k in range(9)
    )
    (tmp_path / "imu.csv").write_text("t,ax\n" + lines)
    error = expect_error(tmp_path, imu_table(), DataError, clock="utc")
    assert "float64" in error.message
    assert "256 ns" in error.message
    assert "imu.csv" in error.where
    assert "row 0" in error.where


def test_many_timestamps_out_of_order_raise_and_few_are_excluded(tmp_path: Path) -> None:
    t_ns = [5 * S + k * 10 * MS for k in range(400)]
    many = [t - 357 * MS if k % 4 == 3 else t for k, t in enumerate(t_ns)]
    write_rows(tmp_path / "imu.csv", many)
    error = expect_error(tmp_path, imu_table(), DataError)
    assert "out of order" in error.message
    assert "imu" in error.where
    few = [t - 25 * MS if k == 100 else t for k, t in enumerate(t_ns)]
    write_rows(tmp_path / "imu.csv", few)
    result = synchronise(
        open_recordings(write_recording_toml(tmp_path, imu_table()))[0], SyncConfig(reference="rate:10")
    )
    assert [(finding.kind, finding.count) for finding in result.findings] == [("backward", 1)]
    assert result.passed.all()


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        (imu_table(more='colums = ["ax"]'), "streams.imu.colums", "columns"),
        (imu_table('colum = "t"'), "streams.imu.time.colum", "column"),
        (imu_table() + "[clock.x]\ndomain = 'boot'\n", "clock", "clocks"),
        (
            imu_table() + "[[clock_maps]]\nsource = 'a'\ntarget = 'b'\ndrift = 1.0\n",
            "clock_maps[0].drift",
            "drift_ppm",
        ),
    ],
)
def test_an_unknown_key_suggests_the_nearest(tmp_path: Path, text: str, key: str, nearest: str) -> None:
    write_rows(tmp_path / "imu.csv", [1, 2])
    error = expect_error(tmp_path, text, ConfigError)
    assert f"'{key}'" in error.message
    assert f"'{nearest}'" in error.hint
    assert "recording.toml" in error.where


def test_an_unknown_kind_lists_the_known_ones(tmp_path: Path) -> None:
    write_rows(tmp_path / "imu.csv", [1, 2])
    error = expect_error(tmp_path, imu_table().replace('"imu"', '"imux"', 1), ConfigError)
    assert "'imux'" in error.message
    assert "'streams.imu.kind'" in error.message
    assert "Did you mean 'imu'?" in error.hint
    for kind in ("camera", "audio", "lidar"):
        assert kind in error.hint


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (CAMERA + 'columns = ["a"]', "columns"),
        (CAMERA + 'end = "t"', "end"),
        (MICROPHONE + 'time = { column = "t" }', "time"),
        (MICROPHONE + 'track = "a:0"\ntime = { column = "t" }', "time"),
        (IMAGES.replace("UNIT", "us") + 'track = "v:0"', "track"),
        (imu_table(more='track = "s:0"'), "track"),
        (imu_table(more='text = "words"'), "text"),
        ('[streams.speech]\nkind = "text"\npath = "a.srt"\nend = "stop"', "end"),
        (
            '[streams.speech]\nkind = "text"\npath = "imu.csv"\ntrack = "s:0"\ntime = { column = "t" }',
            "track",
        ),
        (
            '[streams.hit]\nkind = "event"\ntime = { path = "imu.csv", column = "t" }\ncolumns = ["ax"]',
            "columns",
        ),
        (imu_table("column = \"t\", pattern = '([0-9]+)'"), "time.pattern"),
        (imu_table('column = "t", file_column = "ax"'), "time.file_column"),
        (imu_table('column = "t", columns = ["t", "ax"]'), "time.columns"),
        (imu_table('column = "t", columns = ["t", "ax"], unit = "gps_week_s"'), "time.column"),
        (IMAGES.replace('unit = "UNIT"', 'column = "t"'), "time.column"),
    ],
)
def test_a_key_that_would_not_be_read_raises(tmp_path: Path, text: str, key: str) -> None:
    write_rows(tmp_path / "imu.csv", [1, 2])
    write_wav(tmp_path / "mic.wav")
    write_video(tmp_path / "cam.mp4", [0, 40])
    (tmp_path / "a.srt").write_text("1\n00:00:01,000 --> 00:00:02,500\nLeft.\n")
    if "pattern" in text:
        (tmp_path / "cam").mkdir()
    error = expect_error(tmp_path, text, ConfigError)
    assert f"key '{key}' has no meaning" in error.message
    assert "[streams." in error.where


def test_a_clock_map_with_offset_and_pairs_raises(tmp_path: Path) -> None:
    write_rows(tmp_path / "imu.csv", [1, 2])
    pair = '{ path = "imu.csv", column = "t" }'
    text = (
        imu_table()
        + f"[[clock_maps]]\nsource = 'car'\ntarget = 'media'\npairs = {{ source = {pair}, target = {pair} }}\n"
    )
    assert "next to pairs" in expect_error(tmp_path, text + 'offset = "1s"', ConfigError).message


@pytest.mark.parametrize(
    ("content", "message"), [("a = " + "[" * 20_000, "too deeply"), ("a = " + "1" * 20_000, "not valid TOML")]
)
def test_a_recording_toml_that_cannot_be_parsed(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "recording.toml").write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        open_recordings(tmp_path)
    assert "recording.toml" in caught.value.where


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[streams.imu]\nkind = "lidaar"\npath = "imu.csv"\n', "lidaar"),
        ('[streams.imu]\nkind = "imu"\npath = "imu.csv"\n', "needs time"),
        ('[streams.imu]\nkind = "event"\n', "needs path"),
        (imu_table(more='start = "5 parsecs"'), "not a duration"),
        (imu_table(more='clock = "moon"'), "clock 'moon'"),
        ('[streams."a.b"]\nkind = "event"\npath = "imu.csv"\n', "dot"),
        ("[streams]\n", r"no \[streams"),
        ("[streams.imu\n", "not valid TOML"),
    ],
)
def test_an_invalid_recording_toml(tmp_path: Path, text: str, message: str) -> None:
    write_rows(tmp_path / "imu.csv", [1, 2])
    with pytest.raises(ConfigError, match=message) as caught:
        open_recordings(write_recording_toml(tmp_path, text))
    assert "recording.toml" in caught.value.where


def test_different_numbers_of_timestamps_and_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "cam.mp4", [40 * k for k in range(20)])
    write_rows(tmp_path / "cam.csv", [5 * S + k * 40 * MS for k in range(19)])
    text = CAMERA + 'time = { path = "cam.csv", column = "t", unit = "ns" }\n'
    error = expect_error(tmp_path, text, DataError)
    assert "20 frames but 19 timestamps" in error.message
    assert "cam.mp4" in error.where


def test_images_with_equal_timestamps_are_duplicates(tmp_path: Path) -> None:
    for k in range(12):
        write_image(tmp_path / "cam" / f"a_{k * 100}.jpg", k)
    write_image(tmp_path / "cam" / "b_500.jpg", 99)
    text = IMAGES.replace("UNIT", "ms")
    (recording,) = open_recordings(write_recording_toml(tmp_path, text))
    result = synchronise(recording)
    assert len(result.ticks.t_ns) == 12
    assert [
        (finding.kind, finding.count) for finding in result.findings if finding.severity == "problem"
    ] == [("duplicate", 1)]
    source = recording.streams["cam"].source
    assert isinstance(source, FrameSource)
    encoded = [frame.encoded for frame in source.frames(result.matches["cam"].items.tolist())]
    assert encoded[5] == (tmp_path / "cam" / "a_500.jpg").read_bytes()


def test_image_names_without_a_time_and_files_that_are_no_images(tmp_path: Path) -> None:
    write_image(tmp_path / "cam" / "front.jpg")
    with pytest.raises(DataError, match=r"does not match time\.pattern") as caught:
        open_recordings(write_recording_toml(tmp_path, IMAGES.replace("UNIT", "us")))
    assert "front.jpg" in caught.value.where
    (tmp_path / "cam" / "front.jpg").unlink()
    for k, content in enumerate([b"", b"GIF89a", b"\x89PNG but a jpg"]):
        (tmp_path / "cam" / f"a_{k}.jpg").write_bytes(content)
    source = (
        open_recordings(write_recording_toml(tmp_path, IMAGES.replace("UNIT", "s")))[0].streams["cam"].source
    )
    assert isinstance(source, FrameSource)
    for k in range(3):
        with pytest.raises(DataError) as caught:
            list(source.frames([k]))
        assert f"a_{k}.jpg" in caught.value.where


@pytest.mark.parametrize(
    "names",
    ["nothing", "a__CAM__x.jpg", "a__CAM__1.jpg\nrubbish\n", "a__CAM__0.jpg", "a__CAM__" + "9" * 30 + ".jpg"],
)
def test_an_invalid_list_of_names(tmp_path: Path, names: str) -> None:
    path = tmp_path / "names.txt"
    path.write_text(names)
    with pytest.raises(DataError) as caught:
        list(open_nuscenes(path))
    assert "names.txt" in caught.value.where


def test_a_list_of_names_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(f"a__CAM__{UTC_US}.jpg\n".encode() + "straße".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8") as caught:
        open_recordings(path)
    assert "names.txt" in caught.value.where


@pytest.mark.parametrize("timestamp", ["abc", "", None, True, [1], 1.5e15, float("nan")])
def test_a_timestamp_that_is_not_an_integer(tmp_path: Path, timestamp: Any) -> None:
    path = tmp_path / "sample_data.json"
    path.write_text(json.dumps([{"filename": "samples/CAM/a.jpg", "timestamp": timestamp}]))
    with pytest.raises(DataError) as caught:
        open_recordings(path)
    assert "sample_data.json" in caught.value.where


@pytest.mark.parametrize(
    ("table", "content"),
    [
        ("sample.json", "[" * 100_000),
        ("sample.json", '[{"scene_token": "s"}]'),
        ("sample.json", '[{"token": ["t"], "scene_token": "s"}]'),
        ("scene.json", '[{"token": "s"}]'),
        ("scene.json", '[{"token": "s", "name": 5}]'),
        ("sample_data.json", '[{"is_key_frame": true, "sample_token": []}]'),
        ("sample_data.json", '[{"is_key_frame": true}]'),
    ],
)
def test_invalid_nuscenes_tables(tmp_path: Path, table: str, content: str) -> None:
    folder = tmp_path / "v1.0-mini"
    folder.mkdir()
    (folder / "sample.json").write_text('[{"token": "t", "scene_token": "s"}]')
    (folder / "scene.json").write_text('[{"token": "s", "name": "scene-1"}]')
    (folder / "sample_data.json").write_text("[]")
    (folder / table).write_text(content)
    with pytest.raises(DataError) as caught:
        open_recordings(tmp_path)
    assert "v1.0-mini" in caught.value.where


def test_names_with_nanoseconds_are_recognised(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text(f"a__CAM__{UTC_US}.jpg\nb__CAM__{UTC_US * 1000 + 1}.jpg\n")
    first, second = open_recordings(path)
    assert first.streams["cam"].timestamps.t_ns.tolist() == [UTC_US * 1000]
    assert second.streams["cam"].timestamps.t_ns.tolist() == [UTC_US * 1000 + 1]


@pytest.mark.parametrize("name", ["nowhere", "a.bin", "empty"])
def test_an_input_of_unknown_format(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.bin").write_bytes(b"\x00")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        open_recordings(tmp_path / name)
    assert name in caught.value.where
    assert caught.value.hint


@pytest.mark.parametrize("content", [b"", b"\x00" * 1000, b"ftypisom"])
def test_a_media_file_without_valid_content(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_recordings(tmp_path / "a.mp4")
    assert "a.mp4" in caught.value.where
    assert caught.value.hint
