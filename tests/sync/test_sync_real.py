"""Synchronisation of real recordings with known properties."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mmpack.errors import DataError
from mmpack.recording import AudioSource, Recording
from mmpack.recording.formats import open_recordings
from mmpack.sync import Finding, MatchStatus, SyncConfig, SyncResult, synchronise
from mmpack.sync.sync_report import sync_report

ROOT = Path(__file__).parents[2]
S = 10**9
MS = 10**6
CAMERAS = ("front", "front_left", "front_right", "back", "back_left", "back_right")


@pytest.fixture(scope="module")
def keyframes(real_data: Path) -> list[Recording]:
    return open_recordings(real_data / "nuscenes_mini_404_keyframe_filenames.txt")


def synchronise_all(keyframes: list[Recording], reference: str) -> list[SyncResult]:
    return [synchronise(log, SyncConfig(reference=reference)) for log in keyframes]


@pytest.mark.parametrize("reference", ["consensus", "auto", "consensus:cam_*"])
def test_six_keyframes_of_404_are_out_of_sync_by_one_camera_each(
    keyframes: list[Recording], reference: str
) -> None:
    results = synchronise_all(keyframes, reference)
    report = sync_report(results)
    assert (report["ticks"], report["passed"], report["quarantined"]) == (404, 398, 6)
    blamed = [
        result.failure_reasons(int(tick)) for result in results for tick in result.quarantined_ordinals()
    ]
    assert all(len(reasons) == 1 for reasons in blamed)
    assert Counter(reasons[0][0] for reasons in blamed) == {
        "cam_front_left": 2,
        "cam_front_right": 2,
        "cam_back": 2,
    }


def test_the_raw_spread_is_40_to_43_ms_and_the_residual_21_us(keyframes: list[Recording]) -> None:
    results = synchronise_all(keyframes, "consensus")
    spread = np.concatenate([result.raw_spread_ns for result in results])
    assert (len(spread), spread.min(), spread.max()) == (404, 40_281_000, 43_251_000)
    matches = [result.matches[f"cam_{camera}"] for result in results for camera in CAMERAS]
    residual = np.concatenate([np.abs(match.residual_ns[match.has_item]) for match in matches])
    assert len(residual) == 404 * 6
    assert np.percentile(residual, 99) == pytest.approx(20_800, abs=50)
    assert np.median(residual) <= 1_000
    assert residual.max() == 2_467_000


def test_the_lidar_as_reference_is_reported_as_unstable(keyframes: list[Recording]) -> None:
    results = synchronise_all(keyframes, "lidar_top")
    report = sync_report(results)
    assert (report["ticks"], report["passed"]) == (404, 329)
    wander = [
        finding for result in results for finding in result.findings if finding.kind == "unstable_reference"
    ]
    assert wander
    assert {finding.stream for finding in wander} == {"lidar_top"}
    assert (
        sum(finding.count for finding in wander) >= 69
    )  # 404 - 329 = 75, of which six fail because of a camera


def test_the_front_camera_as_reference_passes_as_many_ticks_as_the_consensus(
    keyframes: list[Recording],
) -> None:
    assert sync_report(synchronise_all(keyframes, "cam_front"))["passed"] == 398


@pytest.fixture(scope="module")
def comma(real_data: Path) -> SyncResult:
    (opened,) = open_recordings(ROOT / "examples" / "comma2k19", root=real_data / "comma2k19")
    return synchronise(opened, SyncConfig(reference="frames"))


def find_finding(result: SyncResult, kind: str, stream: str) -> Finding:
    (match,) = [finding for finding in result.findings if (finding.kind, finding.stream) == (kind, stream)]
    return match


def test_comma2k19_radar_has_3937_duplicates_of_10100(comma: SyncResult) -> None:
    finding = find_finding(comma, "duplicate", "radar")
    assert finding.count == 3_937
    assert "3937 of 10100" in finding.text


def test_comma2k19_has_a_boot_and_a_gps_clock(comma: SyncResult) -> None:
    report = sync_report([comma])["recordings"][0]
    clocks = {name: (stream["clock"], stream["clock_domain"]) for name, stream in report["streams"].items()}
    assert clocks.pop("velocity") == ("gps", "gps")
    assert set(clocks.values()) == {("boot", "boot")}
    assert [(clock_map["source"], clock_map["target"]) for clock_map in report["clock_maps"]] == [
        ("gps", "boot")
    ]
    # Each frame has a timestamp on both clocks; the clock map makes them equal.
    velocity = comma.matches["velocity"]
    assert np.all(velocity.status == MatchStatus.OK)
    assert np.abs(velocity.stream.t_ns - comma.ticks.t_ns).max() < 1_000


def test_comma2k19_frame_period_is_14_ppm_short_with_its_interval(comma: SyncResult) -> None:
    text = find_finding(comma, "drift", "frames").text
    ppm, low, high = (
        float(part.strip("[],")) for part in text.split("period ")[1].replace("ppm ", "").split()[:3]
    )
    assert ppm == pytest.approx(-14, abs=0.5)
    assert low < ppm < high
    assert high - low < 2
    assert "from 50 ms" in text


def test_comma2k19_rates_policies_and_edges(comma: SyncResult) -> None:
    streams = sync_report([comma])["recordings"][0]["streams"]
    rates = {name: S / stream["period_ns"] for name, stream in streams.items()}
    assert rates["accelerometer"] == pytest.approx(104, abs=0.5)
    assert rates["gyro"] == pytest.approx(104, abs=0.5)
    assert rates["speed"] == pytest.approx(89, abs=0.5)
    policies = {name: stream["policy"] for name, stream in streams.items() if name != "frames"}
    assert policies == {
        "velocity": "interpolate",
        "accelerometer": "interpolate",
        "gyro": "interpolate",
        "speed": "hold",
        "steering": "hold",
        "wheel_speed": "hold",
        "radar": "hold",
    }
    assert comma.quarantined_ordinals().tolist() == [0]
    for name in ("accelerometer", "gyro", "speed", "steering", "wheel_speed"):
        edge = find_finding(comma, "truncated_edge", name)
        assert (edge.severity, edge.times_ns) == ("info", (int(comma.ticks.t_ns[0]),))
        assert (name, "outside the stream's first and last item") in comma.failure_reasons(0)


@pytest.fixture(scope="module")
def nasa(real_data: Path) -> SyncResult:
    (opened,) = open_recordings(real_data / "av_speech" / "nasa_13013.mp4")
    return synchronise(opened, SyncConfig(reference="rate:1"))


@pytest.mark.parametrize(("name", "rate"), [("video_0", Fraction(25)), ("video_1", Fraction(30_000, 1001))])
def test_nasa_frames_have_exact_integer_timestamps(nasa: SyncResult, name: str, rate: Fraction) -> None:
    timestamps = nasa.recording.streams[name].timestamps.t_ns
    assert timestamps.dtype == np.int64
    assert timestamps.tolist() == [(2 * k * S / rate + 1) // 2 for k in range(len(timestamps))]


def test_nasa_every_second_is_a_slice_with_all_tracks(nasa: SyncResult) -> None:
    assert nasa.passed.all()
    assert np.diff(nasa.ticks.t_ns).tolist() == [S] * (len(nasa.ticks.t_ns) - 1)
    assert len(nasa.ticks.t_ns) == 13  # the audio is 13.056 s long


@pytest.mark.parametrize(("name", "rate_hz"), [("audio_0", 8_000), ("audio_1", 16_000)])
def test_nasa_audio_windows_have_the_samples_of_a_full_decode(
    nasa: SyncResult, real_data: Path, name: str, rate_hz: int
) -> None:
    match = nasa.matches[name]
    assert np.all(np.abs(match.count - rate_hz) <= 1)
    source = nasa.recording.streams[name].source
    assert isinstance(source, AudioSource)
    with av.open(str(real_data / "av_speech" / "nasa_13013.mp4")) as container:
        frames = list(container.decode(audio=int(name[-1])))
    planes = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
    full = np.clip(np.rint(planes.T * 32768.0), -32768, 32767).astype(np.int16)
    starts_ns = Fraction(int(frames[0].pts or 0) * S) * frames[0].time_base
    for tick, t_ns in enumerate(nasa.ticks.t_ns.tolist()):
        first, count = int(match.first[tick]), int(match.count[tick])
        assert first == -((starts_ns - t_ns) * rate_hz // S)  # the first sample not before the tick
        assert match.aligned_ns[tick] == (2 * (starts_ns + Fraction(first * S, rate_hz)) + 1) // 2
        assert np.array_equal(source.read(first, first + count), full[first : first + count])


@pytest.mark.parametrize("name", ["text_0", "text_1"])
def test_nasa_subtitles_are_in_the_slice_in_which_they_start(
    nasa: SyncResult, real_data: Path, name: str
) -> None:
    match, timestamps = nasa.matches[name], nasa.recording.streams[name].timestamps
    with av.open(str(real_data / "av_speech" / "nasa_13013.mp4")) as container:
        track = [stream for stream in container.streams if stream.type == "subtitle"][int(name[-1])]
        packets = [packet for packet in container.demux(track) if packet.pts is not None and packet.size > 2]
        starts = [int(packet.pts * packet.time_base * S) for packet in packets]
    assert timestamps.t_ns.tolist() == starts
    assert timestamps.t_ns.dtype == np.int64
    tick_of_text = {
        int(item): tick
        for tick in range(len(nasa.ticks.t_ns))
        for item in match.items[match.first[tick] : match.first[tick] + match.count[tick]]
    }
    inside = [item for item, start in enumerate(starts) if start < nasa.ticks.t_ns[-1] + S]
    assert tick_of_text == {item: starts[item] // S for item in inside}
    assert len(inside) >= 3


def test_float_nanoseconds_are_an_error_with_file_and_rounding(real_data: Path) -> None:
    with pytest.raises(DataError, match=r"float64") as caught:
        open_recordings(real_data / "adversarial" / "float_ns_sample_data.json")
    assert "float_ns_sample_data.json" in caught.value.where
    assert "128" in caught.value.message
    assert caught.value.hint


def test_drivelm_keyframes_are_all_in_sync(real_data: Path) -> None:
    results = [synchronise(recording) for recording in open_recordings(real_data / "nuscenes_drivelm")]
    report: dict[str, Any] = sync_report(results)
    assert (report["ticks"], report["passed"]) == (9, 9)
    assert max(report["streams"][f"cam_{camera}"]["residual_max_ns"] for camera in CAMERAS) < MS
