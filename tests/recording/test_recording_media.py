"""Video, audio and subtitle files: what is read without decoding equals what the decoder returns."""

from __future__ import annotations

import pickle
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from mmpack.errors import ConfigError, DataError
from mmpack.recording import AudioSource
from mmpack.recording.formats import open_recordings
from mmpack.recording.sources.audio import AudioFile, AudioTrack
from mmpack.recording.sources.container import scan_packets
from mmpack.recording.sources.subtitles import SubtitleFile
from mmpack.recording.sources.video import VideoTrack
from tests.recording.media_files import MS, S, grey_level, noise, write_audio_track, write_video, write_wav

CFR = [index * 40 for index in range(40)]
VFR = np.cumsum(np.random.default_rng(0).integers(5, 120, 40)).tolist()
B_PYRAMID = 2


def decode_video(path: Path) -> list[tuple[int, int]]:
    """Returns (time in ns, grey level) of every frame that a player shows."""
    with av.open(str(path)) as container:
        return [
            ((2 * frame.pts * frame.time_base * S + 1) // 2, int(frame.to_ndarray(format="gray").mean()))
            for frame in container.decode(video=0)
        ]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("b_frames", [0, B_PYRAMID])
@pytest.mark.parametrize("pts_ms", [CFR, VFR], ids=["cfr", "vfr"])
def test_timestamps_and_frames_equal_those_of_the_decoder(
    tmp_path: Path, suffix: str, b_frames: int, pts_ms: list[int]
) -> None:
    path = tmp_path / f"a.{suffix}"
    write_video(path, pts_ms, b_frames=b_frames)
    video = VideoTrack(path, "v:0", "cam")
    assert [t for t, _ in decode_video(path)] == video.timestamps().t_ns.tolist()
    steps_ms = np.diff(video.timestamps().t_ns) / MS
    assert np.abs(steps_ms - np.diff(pts_ms)).max() <= 1
    frames = list(video.frames(range(40)))
    greys = [
        int(frame.decoded.to_ndarray(format="gray").mean()) for frame in frames if frame.decoded is not None
    ]
    assert greys == [grey for _, grey in decode_video(path)]
    # Lossy coding changes a grey level by a few units, and neighbouring frames differ by at least 37. A smaller
    # difference therefore proves that each frame has its own timestamp.
    assert np.abs(np.array(greys) - [grey_level(k) for k in range(40)]).max() < 8


@pytest.mark.parametrize("b_frames", [0, B_PYRAMID])
@pytest.mark.parametrize("hidden", [1, 5, 13])
def test_frames_hidden_by_an_edit_list_are_not_counted(tmp_path: Path, b_frames: int, hidden: int) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, CFR, b_frames=b_frames, earlier_ms=hidden * 40)
    video = VideoTrack(path, "v:0", "cam")
    assert video.timestamps().t_ns.tolist() == [t for t, _ in decode_video(path)]
    assert len(video.timestamps()) == 40 - hidden
    (first,) = video.frames([0])
    assert first.decoded is not None
    assert int(first.decoded.to_ndarray(format="gray").mean()) == decode_video(path)[0][1]


def test_frames_are_selected_by_index_and_repeated_on_request(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, CFR, b_frames=B_PYRAMID)
    frames = list(VideoTrack(path, "v:0", "cam").frames([3, 3, 20]))
    assert [frame.index for frame in frames] == [3, 3, 20]
    assert [frame.decoded.pts * frame.decoded.time_base for frame in frames if frame.decoded is not None] == [
        Fraction(120, 1000),
        Fraction(120, 1000),
        Fraction(800, 1000),
    ]
    assert list(VideoTrack(path, "v:0", "cam").frames([])) == []


def test_frames_are_selected_by_pts_even_if_the_caller_changes_it(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", CFR)
    indices = []
    for frame in VideoTrack(tmp_path / "a.mkv", "v:0", "cam").frames([3, 4, 4, 5]):
        indices.append((frame.index, int(frame.decoded.to_ndarray(format="gray").mean())))  # type: ignore[union-attr]
        frame.decoded.pts = 160  # type: ignore[union-attr]
    assert [index for index, _ in indices] == [3, 4, 4, 5]
    assert np.abs([grey - grey_level(index) for index, grey in indices]).max() < 8


@pytest.mark.parametrize(
    ("codec", "suffix"), [("aac", "m4a"), ("aac", "mp4"), ("libopus", "mkv"), ("pcm_s16le", "mov")]
)
def test_an_audio_only_container_is_a_recording(tmp_path: Path, codec: str, suffix: str) -> None:
    path = tmp_path / f"voice.{suffix}"
    try:
        write_audio_track(path, codec, 3.0)
    except (av.FFmpegError, ValueError):
        pytest.skip(f"this build of FFmpeg has no encoder {codec}")
    if suffix == "m4a":
        source = AudioTrack(path, "a:0", "mic")
    else:
        (recording,) = open_recordings(path)
        assert list(recording.streams) == ["audio_0"]
        source = recording.streams["audio_0"].source
        assert isinstance(source, AudioTrack)
    timeline = source.timeline()
    assert len(timeline.t_ns) == 1
    seconds = int(timeline.samples[0]) / timeline.rate_hz
    assert seconds == pytest.approx(3.0, abs=0.1)
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    first = frames[0]
    assert timeline.t_ns.tolist() == [(2 * (first.pts or 0) * first.time_base * S + 1) // 2]
    arrays = [frame.to_ndarray() for frame in frames]
    decoded = np.concatenate(arrays, axis=1)[0]
    if decoded.dtype != np.int16:
        decoded = np.clip(np.rint(decoded * 32768.0), -32768, 32767).astype(np.int16)
    assert np.array_equal(source.read(0, 2 * timeline.rate_hz)[:, 0], decoded[: 2 * timeline.rate_hz])
    num_samples = int(timeline.samples[0])
    assert len(source.read(num_samples - 8_000, num_samples)) == 8_000


def test_lossless_audio_in_a_container_is_read_unchanged(tmp_path: Path) -> None:
    write_audio_track(tmp_path / "a.mov", "pcm_s16le", 2.0)
    assert np.array_equal(
        AudioTrack(tmp_path / "a.mov", "a:0", "mic").read(100, 30_000)[:, 0], noise(2.0)[100:30_000]
    )


def test_overlapping_ascending_ranges_of_a_track(tmp_path: Path) -> None:
    write_audio_track(tmp_path / "a.mov", "pcm_s16le", 2.0)
    source = AudioTrack(tmp_path / "a.mov", "a:0", "mic")
    expected = noise(2.0)
    for start in range(0, 24_000, 3_000):
        assert np.array_equal(source.read(start, start + 8_000)[:, 0], expected[start : start + 8_000])


@pytest.mark.parametrize("kind", ["file", "track"])
def test_an_audio_source_can_be_pickled(tmp_path: Path, kind: str) -> None:
    write_wav(tmp_path / "a.wav")
    write_audio_track(tmp_path / "a.mov", "pcm_s16le", 1.0)
    source: AudioSource = (
        AudioFile(tmp_path / "a.wav", "mic")
        if kind == "file"
        else AudioTrack(tmp_path / "a.mov", "a:0", "mic")
    )
    before = source.read(0, 1_000)
    assert np.array_equal(pickle.loads(pickle.dumps(source)).read(0, 1_000), before)


def test_a_read_beyond_the_end_of_an_audio_file_raises(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav")
    with pytest.raises(DataError, match="truncated") as caught:
        AudioFile(tmp_path / "a.wav", "mic").read(15_000, 17_000)
    assert "a.wav" in caught.value.where


@pytest.mark.parametrize(
    ("format_", "subtype", "slack"),
    [("WAV", "FLOAT", 0), ("WAV", "DOUBLE", 0), ("AIFF", "FLOAT", 0), ("OGG", "VORBIS", 8_000)],
)
def test_float_audio_is_scaled_and_clipped(tmp_path: Path, format_: str, subtype: str, slack: int) -> None:
    path = tmp_path / "a.wav"
    written = np.tile(np.repeat([0.5, -0.25, 1.5, -1.5, 1.0, -1.0, 1 / 2**15, 0.0], 500), 8)
    soundfile.write(path, written, 16_000, format=format_, subtype=subtype)
    read = AudioFile(path, "mic").read(0, len(written))[:, 0].astype(np.int64)
    expected = np.tile(np.repeat([16384, -8192, 32767, -32768, 32767, -32768, 1, 0], 500), 8)
    # A lossy codec rings at the steps, so it is compared in the middle between them. A value that wrapped around would
    # differ by most of the range there.
    middle = np.arange(len(written)) % 500 == 250
    assert np.abs(read - expected)[middle].max() <= slack
    assert np.abs(read - expected).max() <= (60_000 if slack else 0)


def test_a_nan_sample_raises(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0.0, np.nan, 0.0]), 16_000, subtype="FLOAT")
    assert AudioFile(tmp_path / "a.wav", "mic").read(0, 1).tolist() == [[0]]
    with pytest.raises(DataError, match="not a number") as caught:
        AudioFile(tmp_path / "a.wav", "mic").read(0, 3)
    assert "a.wav" in caught.value.where


def test_the_upper_16_of_24_bits_are_read(tmp_path: Path) -> None:
    written = np.array([0x12345678, -0x12345678, 0x7FFFFFFF], np.int32)
    soundfile.write(tmp_path / "a.wav", written, 16_000, subtype="PCM_24")
    assert AudioFile(tmp_path / "a.wav", "mic").read(0, 3)[:, 0].tolist() == (written >> 16).tolist()


def test_a_missing_or_malformed_track_is_named(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", CFR)
    with pytest.raises(DataError, match="no video track number 3: the file has 1"):
        scan_packets(tmp_path / "a.mp4", "v:3", stream="cam")
    with pytest.raises(DataError, match="no audio track"):
        scan_packets(tmp_path / "a.mp4", "a:0", stream="cam")
    for malformed in ("video", "v:²", "v:-1", "v: 0"):
        with pytest.raises(ConfigError, match="v:0, a:0 or s:0"):
            scan_packets(tmp_path / "a.mp4", malformed, stream="cam")


SRT = (
    "1\n00:00:01,000 --> 00:00:02,500\nTurning left.\n\n2\n00:00:03,001 --> 00:00:04,000\n<i>Two</i>\nlines\n"
)
VTT = "WEBVTT\n\n00:01.000 --> 00:02.500\nTurning left.\n\n00:03.001 --> 00:04.000\nTwo\nlines\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.srt", SRT), ("a.srt", "\ufeff" + SRT), ("a.srt", SRT.replace("\n", "\r\n")), ("a.vtt", VTT)],
    ids=["srt", "bom", "crlf", "vtt"],
)
def test_subtitle_times_are_exact_milliseconds(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode())
    source = SubtitleFile(tmp_path / name, "speech", start_ns=100 * S)
    assert source.texts() == ["Turning left.", "Two\nlines"]
    assert source.timestamps().t_ns.tolist() == [101 * S, 103 * S + MS]
    assert source.timestamps().end_ns is not None
    assert source.timestamps().end_ns.tolist() == [102_500 * MS, 104 * S]  # type: ignore[union-attr]


@pytest.mark.parametrize("content", [b"no subtitles here", b"\xff\xfe\x00\x01", b"1\n00:00:01,000 -->"])
def test_a_file_without_subtitles_raises(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.srt").write_bytes(content)
    with pytest.raises(DataError) as caught:
        SubtitleFile(tmp_path / "a.srt", "speech").timestamps()
    assert "a.srt" in caught.value.where
    assert "speech" in caught.value.where
