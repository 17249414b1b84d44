"""Real media files: the stamps read without decoding are the stamps of the decoded frames."""

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


def decoded_ns(path: Path, track: int) -> list[int]:
    with av.open(str(path), metadata_errors="ignore") as container:
        frames = [(frame.pts, frame.time_base) for frame in container.decode(video=track)]
    return [(2 * pts * base * S + 1) // 2 for pts, base in frames]


@pytest.mark.parametrize("name", VIDEOS)
def test_stamps_are_those_of_the_decoded_frames(real_data: Path, name: str) -> None:
    (recording,) = open_recordings(real_data / name)
    cameras = recording.streams_of_kind("camera")
    assert len(cameras) == VIDEOS[name]
    for number, camera in enumerate(cameras):
        assert camera.timestamps.t_ns.tolist() == decoded_ns(real_data / name, number)


def test_frames_come_by_their_numbers(real_data: Path) -> None:
    (recording,) = open_recordings(real_data / "gopro" / "max-heromode.mp4")
    source = recording.streams["video_0"].source
    assert isinstance(source, FrameSource)
    wanted = [0, 1, 1, 17, 40]
    frames = list(source.frames(wanted))
    assert [frame.index for frame in frames] == wanted
    with av.open(str(real_data / "gopro" / "max-heromode.mp4"), metadata_errors="ignore") as container:
        first = [frame.to_ndarray() for _, frame in zip(range(41), container.decode(video=0), strict=False)]
    for frame, number in zip(frames, wanted, strict=True):
        assert frame.decoded is not None
        assert np.array_equal(frame.decoded.to_ndarray(), first[number])


def test_gopro_runs_at_2997_and_its_sound_starts_with_the_picture(real_data: Path) -> None:
    (recording,) = open_recordings(real_data / "gopro" / "max-heromode.mp4")
    stamps = recording.streams["video_0"].timestamps.t_ns
    assert len(stamps) == 315
    assert stamps.tolist() == [round(Fraction(k * 1001 * S, 30_000)) for k in range(315)]
    sound = recording.streams["audio_0"].audio_timeline
    assert (sound.rate_hz, sound.t_ns.tolist()) == (48_000, [0])


def test_matroska_stamps_declare_their_millisecond(real_data: Path) -> None:
    (recording,) = open_recordings(real_data / "bags" / "owa_0.5.1.mkv")
    assert recording.streams["video_0"].timestamps.resolution_ns == 10**6
    texts = recording.streams_of_kind("text")
    assert len(texts) == 1
    source = texts[0].source
    assert isinstance(source, TextSource)
    assert all(source.texts())
    assert np.all(np.diff(texts[0].timestamps.t_ns) >= 0)


def test_a_compressed_track_can_be_read_backwards_and_in_pieces(real_data: Path) -> None:
    (recording,) = open_recordings(real_data / "gopro" / "max-heromode.mp4")
    source = recording.streams["audio_0"].source
    assert isinstance(source, AudioSource)
    whole = source.read(0, 100_000)
    pieces = [source.read(start, start + 12_345) for start in range(0, 86_000, 12_345)]
    assert np.array_equal(np.concatenate(pieces), whole[: len(pieces) * 12_345])
    assert np.array_equal(source.read(48_000, 48_100), whole[48_000:48_100])
    assert np.array_equal(source.read(10, 20), whole[10:20])


def test_flac_is_sample_exact(real_data: Path) -> None:
    path = real_data / "av_speech" / "jfk.flac"
    whole, rate_hz = soundfile.read(path, dtype="int16", always_2d=True)
    source = AudioFile(path, "mic", start_ns=5 * S)
    timeline = source.timeline()
    assert (timeline.rate_hz, timeline.samples.tolist(), timeline.t_ns.tolist()) == (
        rate_hz,
        [len(whole)],
        [5 * S],
    )
    assert np.array_equal(source.read(12_345, 23_456), whole[12_345:23_456])
