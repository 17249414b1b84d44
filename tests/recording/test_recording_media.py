"""Video, sound and subtitles in files: what is read without decoding is what decoding gives."""

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

CFR = [number * 40 for number in range(40)]
VFR = np.cumsum(np.random.default_rng(0).integers(5, 120, 40)).tolist()
B_PYRAMID = 2


def shown(path: Path) -> list[tuple[int, int]]:
    """(time in ns, grey) of every frame that a player shows."""
    with av.open(str(path)) as container:
        return [
            ((2 * frame.pts * frame.time_base * S + 1) // 2, int(frame.to_ndarray(format="gray").mean()))
            for frame in container.decode(video=0)
        ]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("b_frames", [0, B_PYRAMID])
@pytest.mark.parametrize("pts_ms", [CFR, VFR], ids=["cfr", "vfr"])
def test_stamps_and_frames_agree_with_the_decoder(
    tmp_path: Path, suffix: str, b_frames: int, pts_ms: list[int]
) -> None:
    path = tmp_path / f"a.{suffix}"
    write_video(path, pts_ms, b_frames=b_frames)
    video = VideoTrack(path, "v:0", "cam")
    assert [t for t, _ in shown(path)] == video.timestamps().t_ns.tolist()
    steps_ms = np.diff(video.timestamps().t_ns) / MS
    assert np.abs(steps_ms - np.diff(pts_ms)).max() <= 1
    frames = list(video.frames(range(40)))
    greys = [
        int(frame.decoded.to_ndarray(format="gray").mean()) for frame in frames if frame.decoded is not None
    ]
    assert greys == [grey for _, grey in shown(path)]
    # Coding moves a grey by a little, and the neighbours' by 37 at least: each picture is the one drawn for
    # its place.
    assert np.abs(np.array(greys) - [grey_level(k) for k in range(40)]).max() < 8


@pytest.mark.parametrize("b_frames", [0, B_PYRAMID])
@pytest.mark.parametrize("hidden", [1, 5, 13])
def test_frames_hidden_by_an_edit_list_are_not_counted(tmp_path: Path, b_frames: int, hidden: int) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, CFR, b_frames=b_frames, earlier_ms=hidden * 40)
    video = VideoTrack(path, "v:0", "cam")
    assert video.timestamps().t_ns.tolist() == [t for t, _ in shown(path)]
    assert len(video.timestamps()) == 40 - hidden
    (first,) = video.frames([0])
    assert first.decoded is not None
    assert int(first.decoded.to_ndarray(format="gray").mean()) == shown(path)[0][1]


def test_frames_are_taken_by_number_and_repeated_where_asked(tmp_path: Path) -> None:
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


def test_frames_are_found_by_their_own_pts_whatever_becomes_of_them(tmp_path: Path) -> None:
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
def test_a_container_of_sound_alone_is_a_recording(tmp_path: Path, codec: str, suffix: str) -> None:
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
    whole = np.concatenate(arrays, axis=1)[0]
    if whole.dtype != np.int16:
        whole = np.clip(np.rint(whole * 32768.0), -32768, 32767).astype(np.int16)
    assert np.array_equal(source.read(0, 2 * timeline.rate_hz)[:, 0], whole[: 2 * timeline.rate_hz])
    promised = int(timeline.samples[0])
    assert len(source.read(promised - 8_000, promised)) == 8_000


def test_lossless_sound_in_a_container_is_the_sound_that_went_in(tmp_path: Path) -> None:
    write_audio_track(tmp_path / "a.mov", "pcm_s16le", 2.0)
    assert np.array_equal(
        AudioTrack(tmp_path / "a.mov", "a:0", "mic").read(100, 30_000)[:, 0], noise(2.0)[100:30_000]
    )


def test_windows_of_a_track_overlap_and_ascend(tmp_path: Path) -> None:
    write_audio_track(tmp_path / "a.mov", "pcm_s16le", 2.0)
    source = AudioTrack(tmp_path / "a.mov", "a:0", "mic")
    whole = noise(2.0)
    for start in range(0, 24_000, 3_000):
        assert np.array_equal(source.read(start, start + 8_000)[:, 0], whole[start : start + 8_000])


@pytest.mark.parametrize("kind", ["file", "track"])
def test_a_sound_source_survives_the_way_to_a_worker(tmp_path: Path, kind: str) -> None:
    write_wav(tmp_path / "a.wav")
    write_audio_track(tmp_path / "a.mov", "pcm_s16le", 1.0)
    source: AudioSource = (
        AudioFile(tmp_path / "a.wav", "mic")
        if kind == "file"
        else AudioTrack(tmp_path / "a.mov", "a:0", "mic")
    )
    before = source.read(0, 1_000)
    assert np.array_equal(pickle.loads(pickle.dumps(source)).read(0, 1_000), before)


def test_a_sound_file_does_not_give_what_it_has_not(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav")
    with pytest.raises(DataError, match="truncated") as caught:
        AudioFile(tmp_path / "a.wav", "mic").read(15_000, 17_000)
    assert "a.wav" in caught.value.where


@pytest.mark.parametrize(
    ("form", "subtype", "slack"),
    [("WAV", "FLOAT", 0), ("WAV", "DOUBLE", 0), ("AIFF", "FLOAT", 0), ("OGG", "VORBIS", 8_000)],
)
def test_float_sound_is_scaled_and_clipped(tmp_path: Path, form: str, subtype: str, slack: int) -> None:
    path = tmp_path / "a.wav"
    given = np.tile(np.repeat([0.5, -0.25, 1.5, -1.5, 1.0, -1.0, 1 / 2**15, 0.0], 500), 8)
    soundfile.write(path, given, 16_000, format=form, subtype=subtype)
    read = AudioFile(path, "mic").read(0, len(given))[:, 0].astype(np.int64)
    wanted = np.tile(np.repeat([16384, -8192, 32767, -32768, 32767, -32768, 1, 0], 500), 8)
    # A lossy codec rings at the steps; what wrapped around would be off by most of the range there.
    middle = np.arange(len(given)) % 500 == 250
    assert np.abs(read - wanted)[middle].max() <= slack
    assert np.abs(read - wanted).max() <= (60_000 if slack else 0)


def test_a_sample_that_is_no_number_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0.0, np.nan, 0.0]), 16_000, subtype="FLOAT")
    assert AudioFile(tmp_path / "a.wav", "mic").read(0, 1).tolist() == [[0]]
    with pytest.raises(DataError, match="no number") as caught:
        AudioFile(tmp_path / "a.wav", "mic").read(0, 3)
    assert "a.wav" in caught.value.where


def test_of_24_bits_the_upper_16_are_read(tmp_path: Path) -> None:
    given = np.array([0x12345678, -0x12345678, 0x7FFFFFFF], np.int32)
    soundfile.write(tmp_path / "a.wav", given, 16_000, subtype="PCM_24")
    assert AudioFile(tmp_path / "a.wav", "mic").read(0, 3)[:, 0].tolist() == (given >> 16).tolist()


def test_a_track_that_is_not_there_is_named(tmp_path: Path) -> None:
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
def test_subtitles_are_whole_milliseconds(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode())
    source = SubtitleFile(tmp_path / name, "said", start_ns=100 * S)
    assert source.texts() == ["Turning left.", "Two\nlines"]
    assert source.timestamps().t_ns.tolist() == [101 * S, 103 * S + MS]
    assert source.timestamps().end_ns is not None
    assert source.timestamps().end_ns.tolist() == [102_500 * MS, 104 * S]  # type: ignore[union-attr]


@pytest.mark.parametrize("content", [b"no subtitles here", b"\xff\xfe\x00\x01", b"1\n00:00:01,000 -->"])
def test_what_holds_no_subtitle_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.srt").write_bytes(content)
    with pytest.raises(DataError) as caught:
        SubtitleFile(tmp_path / "a.srt", "said").timestamps()
    assert "a.srt" in caught.value.where
    assert "said" in caught.value.where
