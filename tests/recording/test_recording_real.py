"""Real media files: the timestamps read without decoding equal those of the decoded frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from mmpack.recording import AudioSource, FrameSource, TextSource
from mmpack.recording.formats import open_recordings
from mmpack.recording.sources.audio import AudioFile

S = 10**9
VIDEOS = {
    "av_speech/nasa_13013.mp4": 2,
    "gopro/max-heromode.mp4": 1,
    "bags/owa_0.5.1.mkv": 1,
    "lerobot_v21_g1/videos/chunk-000/observation.images.cam_high/episode_000029.mp4": 1,
    "lerobot_v21_g1/videos/chunk-000/observation.images.cam_high/episode_000030.mp4": 1,
}


def decode_times_ns(path: Path, track: int) -> list[int]:
    with av.open(str(path), metadata_errors="ignore") as container:
        frames = [(frame.pts, frame.time_base) for frame in container.decode(video=track)]
    return [(2 * pts * base * S + 1) // 2 for pts, base in frames]


@pytest.mark.parametrize("name", VIDEOS)
def test_timestamps_equal_those_of_the_decoded_frames(real_data: Path, name: str) -> None:
    (recording,) = open_recordings(real_data / name)
    cameras = recording.streams_of_kind("camera")
    assert len(cameras) == VIDEOS[name]
    for track, camera in enumerate(cameras):
        assert camera.timestamps.t_ns.tolist() == decode_times_ns(real_data / name, track)


def test_frames_are_selected_by_index(real_data: Path) -> None:
    (recording,) = open_recordings(real_data / "gopro" / "max-heromode.mp4")
    source = recording.streams["video_0"].source
    assert isinstance(source, FrameSource)
    indices = [0, 1, 1, 17, 40]
    frames = list(source.frames(indices))
    assert [frame.index for frame in frames] == indices
    with av.open(str(real_data / "gopro" / "max-heromode.mp4"), metadata_errors="ignore") as container:
        expected = [
            frame.to_ndarray() for _, frame in zip(range(41), container.decode(video=0), strict=False)
        ]
    for frame, index in zip(frames, indices, strict=True):
        assert frame.decoded is not None
        assert np.array_equal(frame.decoded.to_ndarray(), expected[index])


def test_a_gopro_video_has_2997_frames_per_second_and_audio_from_its_first_frame(real_data: Path) -> None:
    (recording,) = open_recordings(real_data / "gopro" / "max-heromode.mp4")
    t_ns = recording.streams["video_0"].timestamps.t_ns
    assert len(t_ns) == 315
    assert t_ns.tolist() == [round(Fraction(k * 1001 * S, 30_000)) for k in range(315)]
    timeline = recording.streams["audio_0"].audio_timeline
    assert (timeline.rate_hz, timeline.t_ns.tolist()) == (48_000, [0])


def test_matroska_timestamps_have_a_resolution_of_one_millisecond(real_data: Path) -> None:
    (recording,) = open_recordings(real_data / "bags" / "owa_0.5.1.mkv")
    assert recording.streams["video_0"].timestamps.resolution_ns == 10**6
    texts = recording.streams_of_kind("text")
    assert len(texts) == 1
    source = texts[0].source
    assert isinstance(source, TextSource)
    assert all(source.texts())
    assert np.all(np.diff(texts[0].timestamps.t_ns) >= 0)


def test_a_compressed_track_can_be_read_in_parts_and_backwards(real_data: Path) -> None:
    (recording,) = open_recordings(real_data / "gopro" / "max-heromode.mp4")
    source = recording.streams["audio_0"].source
    assert isinstance(source, AudioSource)
    expected = source.read(0, 100_000)
    parts = [source.read(start, start + 12_345) for start in range(0, 86_000, 12_345)]
    assert np.array_equal(np.concatenate(parts), expected[: len(parts) * 12_345])
    assert np.array_equal(source.read(48_000, 48_100), expected[48_000:48_100])
    assert np.array_equal(source.read(10, 20), expected[10:20])


def test_flac_is_sample_exact(real_data: Path) -> None:
    path = real_data / "av_speech" / "jfk.flac"
    expected, rate_hz = soundfile.read(path, dtype="int16", always_2d=True)
    source = AudioFile(path, "mic", start_ns=5 * S)
    timeline = source.timeline()
    assert (timeline.rate_hz, timeline.samples.tolist(), timeline.t_ns.tolist()) == (
        rate_hz,
        [len(expected)],
        [5 * S],
    )
    assert np.array_equal(source.read(12_345, 23_456), expected[12_345:23_456])
