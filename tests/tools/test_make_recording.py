"""Tests of the synthetic drive: its files are readable and consistent, and have exactly the stated faults."""

from __future__ import annotations

import csv
import filecmp
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import asdict
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpack.errors import ConfigError
from tests.examples import examples
from tools.drive.bitmap_font import text_bitmap
from tools.drive.camera import MOUNTS, clock_text
from tools.drive.faults import KINDS, choose_fault_times
from tools.drive.motion import WHEELBASE_M
from tools.make_recording import CameraSettings, GeneratedRecording, make_recording

ROOT = Path(__file__).parents[2]
CAMERAS = [mount.name for mount in MOUNTS]
STREAMS = [*CAMERAS, "imu", "can", "action"]
SECOND_NS = 10**9


def read_csv(path: Path) -> dict[str, list[str]]:
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    return {name: list(column) for name, column in zip(header, zip(*rows, strict=True), strict=True)}


def read_timestamps(folder: Path, stream: str) -> list[int]:
    return [int(text) for text in read_csv(folder / f"{stream}.csv")["t_ns"]]


def read_values(folder: Path, stream: str) -> dict[str, np.ndarray]:
    return {
        name: np.array(column, dtype=float) for name, column in read_csv(folder / f"{stream}.csv").items()
    }


def read_images(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def read_start_ns(folder: Path, stream: str) -> int:
    table = tomllib.loads((folder / "recording.toml").read_text())["streams"][stream]
    return int(Decimal(table["start"].removesuffix("s")) * SECOND_NS)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GeneratedRecording]:
    folder = tmp_path_factory.mktemp("clean")
    return folder, make_recording(folder, CameraSettings(seconds=6, size=(96, 160)), seed=3, faults=False)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GeneratedRecording]:
    folder = tmp_path_factory.mktemp("faulty")
    return folder, make_recording(folder, CameraSettings(seconds=6, size=(96, 160)), seed=3)


def test_recording_toml_names_every_file_on_one_clock(clean: tuple[Path, GeneratedRecording]) -> None:
    folder, planted = clean
    assert planted.toml == folder / "recording.toml"
    description = tomllib.loads(planted.toml.read_text())
    assert description["recording"] == {"name": "drive-003", "clock": "rig"}
    assert description["clocks"] == {"rig": {"domain": "boot"}}
    assert set(description["streams"]) == {*STREAMS, "mic", "subtitles"}
    for table in description["streams"].values():
        assert (folder / table["path"]).stat().st_size > 0
    assert description["streams"]["cam_back"]["time"] == {
        "path": "cam_back.csv",
        "column": "t_ns",
        "unit": "ns",
    }
    assert 4_000 * SECOND_NS <= read_start_ns(folder, "subtitles") < 90_000 * SECOND_NS


@pytest.mark.parametrize("camera", CAMERAS)
def test_video_has_a_constant_rate_and_one_frame_per_timestamp(
    faulty: tuple[Path, GeneratedRecording], camera: str
) -> None:
    folder, _ = faulty
    with av.open(str(folder / f"{camera}.mp4")) as file:
        context = file.streams.video[0].codec_context
        frames = list(file.decode(video=0))
        assert (context.name, context.pix_fmt, context.height, context.width) == ("h264", "yuv420p", 96, 160)
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (
            1,
            1,
            1,
            1,
        )
    seconds = [frame.pts * frame.time_base for frame in frames if frame.pts is not None and frame.time_base]
    assert [time * 10 for time in seconds] == list(range(len(frames)))
    assert read_csv(folder / f"{camera}.csv")["frame"] == [str(index) for index in range(len(frames))]
    assert sum(frame.key_frame for frame in frames) >= len(frames) // 10


def test_triggers_are_staggered_with_microseconds_of_jitter(clean: tuple[Path, GeneratedRecording]) -> None:
    folder, planted = clean
    ticks = read_start_ns(folder, "subtitles") + np.arange(60) * (SECOND_NS // 10)
    for camera in CAMERAS:
        residual = np.array(read_timestamps(folder, camera)) - planted.offsets_ns[camera] - ticks
        assert np.abs(residual).max() <= 30_000
        assert residual.std() > 1_000
    offsets = sorted(planted.offsets_ns.values())
    assert offsets[0] == -offsets[-1] == -21_300_000
    assert len(set(offsets)) == 6


def test_camera_offsets_shrink_with_the_frame_period(tmp_path: Path) -> None:
    planted = make_recording(tmp_path, CameraSettings(seconds=0.2, rate_hz=40, size=(32, 32)), faults=False)
    assert max(planted.offsets_ns.values()) == 21_300_000 // 4
    assert all(len(read_timestamps(tmp_path, camera)) == 8 for camera in CAMERAS)


def test_burned_in_time_is_the_time_of_the_image(clean: tuple[Path, GeneratedRecording]) -> None:
    folder, _ = clean
    for camera in CAMERAS:
        times = [clock_text(t_ns) for t_ns in read_timestamps(folder, camera)]
        bitmaps = [text_bitmap(time) for time in times]
        height, width = bitmaps[0].shape
        shown = [
            image[height : 2 * height, :width].mean(axis=2) > 127
            for image in read_images(folder / f"{camera}.mp4")
        ]
        for index, text in enumerate(shown):
            differences = [int((text != bitmap).sum()) for bitmap in bitmaps]
            assert int(np.argmin(differences)) == index, (
                f"{camera} frame {index} does not show {times[index]}"
            )


def test_images_differ_between_cameras_and_over_time(clean: tuple[Path, GeneratedRecording]) -> None:
    folder, _ = clean
    images = {camera: read_images(folder / f"{camera}.mp4") for camera in CAMERAS}
    below_text = np.s_[20:, :]
    for camera, frames in images.items():
        assert np.abs(frames[0][below_text].astype(int) - frames[30][below_text]).mean() > 3, camera
    for one, other in pairwise(CAMERAS):
        assert np.abs(images[one][0][below_text].astype(int) - images[other][0][below_text]).mean() > 3


def test_flash_is_visible_only_during_audio_events(clean: tuple[Path, GeneratedRecording]) -> None:
    folder, planted = clean
    assert len(planted.audio_events_ns) == 2
    for camera in CAMERAS:
        t_ns = np.array(read_timestamps(folder, camera))
        corner = np.array([image[-16:, -16:].min() for image in read_images(folder / f"{camera}.mp4")])
        expected = np.zeros(len(t_ns), dtype=bool)
        for event_ns in planted.audio_events_ns:
            during = (t_ns >= event_ns) & (t_ns < event_ns + 120_000_000)
            assert during.any()
            expected |= during
        np.testing.assert_array_equal(corner > 230, expected)


def test_beeps_start_exactly_at_their_audio_sample(clean: tuple[Path, GeneratedRecording]) -> None:
    folder, planted = clean
    audio, rate_hz = soundfile.read(folder / "mic.wav", dtype="float64")
    info = soundfile.info(folder / "mic.wav")
    assert (rate_hz, info.channels, info.subtype, len(audio)) == (48_000, 1, "PCM_16", 9 * 48_000)
    loud = np.flatnonzero(np.abs(audio) > 0.1)
    starts = loud[np.diff(loud, prepend=-48_000) > 4_800]
    begin_ns = read_start_ns(folder, "mic")
    assert [begin_ns + int(sample) * SECOND_NS // 48_000 for sample in starts] == list(
        planted.audio_events_ns
    )
    beep = audio[starts[0] : starts[0] + 4_800]
    assert np.abs(np.fft.rfft(beep)).argmax() == 100  # bins of 10 Hz
    quiet = audio[: starts[0]]
    assert 0.002 < quiet.std() < 0.004


def test_other_sensors_record_longer_than_the_cameras(clean: tuple[Path, GeneratedRecording]) -> None:
    folder, _ = clean
    camera_times = [read_timestamps(folder, camera) for camera in CAMERAS]
    first, last = min(t_ns[0] for t_ns in camera_times), max(t_ns[-1] for t_ns in camera_times)
    for stream, rate_hz in (("imu", 100), ("can", 50), ("action", 10)):
        t_ns = read_timestamps(folder, stream)
        assert t_ns[0] < first - SECOND_NS
        assert t_ns[-1] > last + SECOND_NS
        assert np.abs(np.diff(t_ns) - SECOND_NS // rate_hz).max() <= 60_000
    assert read_start_ns(folder, "mic") < first - SECOND_NS
    assert read_start_ns(folder, "mic") + 9 * SECOND_NS > last + SECOND_NS


def test_imu_can_and_actions_describe_the_same_motion(clean: tuple[Path, GeneratedRecording]) -> None:
    folder, _ = clean
    imu, can, action = (read_values(folder, stream) for stream in ("imu", "can", "action"))
    speed = np.interp(imu["t_ns"], can["t_ns"], can["speed"])
    steering = np.interp(imu["t_ns"], can["t_ns"], can["steering"])
    speed_change = np.cumsum(imu["ax"]) * 0.01
    inside = np.s_[10:-10]
    assert np.abs((speed - speed[0] - speed_change)[inside]).max() < 0.1
    assert np.abs(imu["gz"] - speed * np.tan(steering) / WHEELBASE_M)[inside].max() < 0.02
    assert np.abs(imu["ay"] - speed * imu["gz"])[inside].max() < 0.2
    assert abs(imu["az"].mean() - 9.80665) < 0.01
    assert np.abs(steering).max() > 0.05
    steer = np.interp(action["t_ns"], can["t_ns"], can["steering"]) / 0.5
    assert np.abs(action["steer"] - steer)[1:-1].max() < 0.01
    assert not np.any((action["throttle"] > 0) & (action["brake"] > 0))


def test_subtitles_are_in_order_and_within_the_drive(clean: tuple[Path, GeneratedRecording]) -> None:
    folder, _ = clean
    blocks = (folder / "subtitles.srt").read_text().strip().split("\n\n")
    edges = []
    for number, block in enumerate(blocks, start=1):
        index, times, sentence = block.split("\n")
        assert index == str(number)
        assert re.match(r"(Driving|Turning|Speeding|Slowing) .* km/h\.$", sentence)
        for time in times.split(" --> "):
            hours, minutes, seconds = time.replace(",", ".").split(":")
            edges.append(int(hours) * 3600 + int(minutes) * 60 + float(seconds))
    assert len(blocks) >= 2
    assert edges == sorted(edges)
    assert (edges[0], edges[-1]) == (0.0, 6.0)


def test_planted_json_equals_the_returned_faults(faulty: tuple[Path, GeneratedRecording]) -> None:
    folder, planted = faulty
    content = json.loads((folder / "planted.json").read_text())
    assert content == {
        "faults": [asdict(fault) for fault in planted.faults],
        "audio_events_ns": list(planted.audio_events_ns),
        "offsets_ns": planted.offsets_ns,
        "rate_hz": 10,
    }
    assert sorted(fault["kind"] for fault in content["faults"]) == sorted(KINDS)


def test_a_recording_without_faults_has_regular_timestamps(clean: tuple[Path, GeneratedRecording]) -> None:
    folder, planted = clean
    assert planted.faults == ()
    assert json.loads((folder / "planted.json").read_text())["faults"] == []
    for camera in CAMERAS:
        assert np.abs(np.diff(read_timestamps(folder, camera)) - SECOND_NS // 10).max() <= 60_000
        assert len(read_timestamps(folder, camera)) == 60


def undo_faults(planted: GeneratedRecording, stream: str, written: list[int], true: list[int]) -> list[int]:
    """Undoes the stated faults of one stream, the last first, and checks each one against the true timestamps."""
    for fault in reversed([fault for fault in planted.faults if fault.stream == stream]):
        match fault.kind:
            case "gap" | "dead_camera":
                missing = [
                    t_ns for t_ns in true if fault.t_ns <= t_ns < fault.t_ns + fault.duration_ns - 1_000_000
                ]
                assert written[fault.row - 1] < missing[0] == fault.t_ns
                assert written[fault.row] > missing[-1]
                written = written[: fault.row] + missing + written[fault.row :]
            case "duplicate":
                assert written[fault.row - 1] == written[fault.row] == fault.t_ns
                written = written[: fault.row] + written[fault.row + 1 :]
            case "outlier" | "backward":
                shift_ns = written[fault.row] - fault.t_ns
                assert shift_ns == (fault.duration_ns if fault.kind == "outlier" else -fault.duration_ns)
                written = [*written[: fault.row], fault.t_ns, *written[fault.row + 1 :]]
    return written


@given(seed=st.integers(0, 2**32), seconds=st.sampled_from([4.0, 5.0]), rate_hz=st.sampled_from([10, 12]))
@settings(max_examples=examples(6), deadline=None)
def test_streams_differ_from_the_true_ones_by_exactly_the_stated_faults(
    seed: int, seconds: float, rate_hz: int
) -> None:
    with tempfile.TemporaryDirectory() as clean_at, tempfile.TemporaryDirectory() as faulty_at:
        clean_folder, faulty_folder = Path(clean_at), Path(faulty_at)
        cameras = CameraSettings(seconds, rate_hz, (32, 32))
        make_recording(clean_folder, cameras, seed=seed, faults=False)
        planted = make_recording(faulty_folder, cameras, seed=seed, faults=True)
        assert sorted(fault.kind for fault in planted.faults) == sorted(KINDS)
        for stream in STREAMS:
            written, true = read_timestamps(faulty_folder, stream), read_timestamps(clean_folder, stream)
            assert undo_faults(planted, stream, written, true) == true
            has_fault = any(fault.stream == stream for fault in planted.faults)
            assert (written != true) == has_fault
        by_kind = {fault.kind: fault for fault in planted.faults}
        assert (
            len(read_values(clean_folder, "imu")["t_ns"]) - len(read_values(faulty_folder, "imu")["t_ns"])
            == 15
        )
        assert by_kind["gap"].duration_ns == 150_000_000
        assert (by_kind["outlier"].duration_ns, by_kind["backward"].duration_ns) == (7_000_000, 25_000_000)
        assert by_kind["outlier"].stream != by_kind["dead_camera"].stream
        dead = by_kind["dead_camera"]
        assert len(read_images(faulty_folder / f"{dead.stream}.mp4")) == len(
            read_timestamps(faulty_folder, dead.stream)
        )
        for name in ("mic.wav", "subtitles.srt", "recording.toml", "action.csv"):
            assert filecmp.cmp(clean_folder / name, faulty_folder / name, shallow=False)


def test_an_outlier_changes_the_timestamp_but_not_the_image(faulty: tuple[Path, GeneratedRecording]) -> None:
    folder, planted = faulty
    (fault,) = (fault for fault in planted.faults if fault.kind == "outlier")
    image = read_images(folder / f"{fault.stream}.mp4")[fault.row]
    true, written = (
        text_bitmap(clock_text(t_ns))
        for t_ns in (fault.t_ns, read_timestamps(folder, fault.stream)[fault.row])
    )
    height, width = true.shape
    shown = image[height : 2 * height, :width].mean(axis=2) > 127
    assert (shown != true).sum() < (shown != written).sum()


@given(seed=st.integers(0, 2**32), seconds=st.floats(5.0, 100.0), rate_hz=st.integers(10, 60))
def test_faults_have_the_required_distances(seed: int, seconds: float, rate_hz: int) -> None:
    end_ns, period_ns = round(seconds * SECOND_NS), round(SECOND_NS / rate_hz)
    fault_times = choose_fault_times(np.random.default_rng(seed), 0, end_ns, period_ns)
    assert sorted(fault_times) == sorted(KINDS)
    times = list(fault_times.values())
    dead_ns = max(1, round(300_000_000 / period_ns)) * period_ns
    lengths = [{"gap": 150_000_000, "dead_camera": dead_ns}.get(kind, 0) for kind in fault_times]
    ends = [time + length for time, length in zip(times, lengths, strict=True)]
    assert times[0] >= SECOND_NS
    assert ends[-1] <= end_ns - SECOND_NS
    assert all(later - end >= SECOND_NS // 2 for end, later in zip(ends, times[1:], strict=False))


def run_tool(out: Path, *arguments: str, perturb: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs the tool in a separate process, in which glibc fills new memory with the byte ``perturb``."""
    line = [sys.executable, "-m", "tools.make_recording", str(out), *arguments]
    env = {**os.environ, "MALLOC_PERTURB_": str(perturb)}
    return subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_gives_others(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("first", "again", "other")]
    for folder, seed, perturb in zip(folders, ("5", "5", "6"), (85, 170, 85), strict=True):
        settings = ("--seconds", "4", "--size", "96", "160", "--name", "drive")
        process = run_tool(folder, "--seed", seed, *settings, perturb=perturb)
        assert process.returncode == 0, process.stderr
    names = sorted(path.name for path in folders[0].iterdir())
    assert len(names) == 6 * 2 + 3 + 4
    assert filecmp.cmpfiles(folders[0], folders[1], names, shallow=False) == (names, [], [])
    assert filecmp.cmpfiles(folders[0], folders[2], names, shallow=False) == ([], names, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cameras": CameraSettings(seconds=3.0)}, "too short for 5 faults"),
        ({"cameras": CameraSettings(seconds=0.1), "faults": False}, "fewer than two frames"),
        ({"cameras": CameraSettings(size=(47, 64))}, "47 x 64"),
        ({"cameras": CameraSettings(size=(30, 64))}, "30 x 64"),
        ({"cameras": CameraSettings(rate_hz=0)}, "rate_hz is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"name": "a b"}, "name is 'a b'"),
    ],
)
def test_settings_out_of_range_raise_errors_before_anything_is_written(
    tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        make_recording(tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_command_line_reports_errors_and_planted_faults(tmp_path: Path) -> None:
    failed = run_tool(tmp_path / "out", "--seconds", "2")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("error: make_recording: a drive of 2 s is too short for 5 faults")
    process = run_tool(tmp_path / "out", "--seconds", "4", "--size", "48", "64", "--name", "short")
    assert process.returncode == 0, process.stderr
    assert all(kind in process.stdout for kind in KINDS)
    assert 'name = "short"' in (tmp_path / "out" / "recording.toml").read_text()
