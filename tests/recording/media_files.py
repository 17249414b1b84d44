"""Small media files and folders for the tests of the readers."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import simplejpeg
import soundfile
from numpy.typing import NDArray

MS = 10**6
S = 10**9


def grey_level(index: int) -> int:
    """Returns the grey level of frame `index`, which differs enough from its neighbours' to survive lossy coding."""
    return 20 + (index * 37) % 200


def write_video(
    path: Path,
    pts_ms: Sequence[int],
    *,
    b_frames: int = 0,
    earlier_ms: int = 0,
    audio_s: float = 0,
    options: dict[str, str] | None = None,
) -> None:
    """Writes a grey h264 video with frames at `pts_ms` minus `earlier_ms`, and `audio_s` seconds of noise in AAC.

    Frames before 0 make the muxer write an edit list that hides them. There is no audio track if `audio_s` is 0.
    """
    millisecond = Fraction(1, 1000)
    with av.open(str(path), "w", options=options or {}) as container:
        video: Any = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.options = {
            "preset": "veryfast",
            "bf": str(b_frames),
            "g": "12",
            "x264-params": "b-adapt=0:scenecut=0",
        }
        video.time_base = video.codec_context.time_base = millisecond
        audio: Any = container.add_stream("aac", rate=16_000, layout="mono") if audio_s else None
        packets: list[Any] = []
        for index, pts in enumerate(pts_ms):
            frame = av.VideoFrame.from_ndarray(
                np.full((48, 64, 3), grey_level(index), np.uint8), format="rgb24"
            )
            frame.pts, frame.time_base = pts, millisecond
            packets += video.encode(frame)
        packets += video.encode(None)
        for packet in packets:
            packet.pts -= earlier_ms
            packet.dts -= earlier_ms
        if audio is not None:
            packets += _encode_noise(audio, audio_s)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)


def write_audio_track(path: Path, codec: str, seconds: float, options: dict[str, str] | None = None) -> None:
    """Writes a container with a single audio track of noise at 16 kHz."""
    with av.open(str(path), "w", options=options or {}) as container:
        audio: Any = container.add_stream(codec, rate=16_000, layout="mono")
        for packet in _encode_noise(audio, seconds):
            container.mux(packet)


def noise(seconds: float) -> NDArray[np.int16]:
    """Returns mono noise at 16 kHz, shape (samples,)."""
    return (np.random.default_rng(0).standard_normal(round(16_000 * seconds)) * 3_000).astype(np.int16)


def _encode_noise(audio: Any, seconds: float) -> list[Any]:
    raw = av.AudioFrame.from_ndarray(noise(seconds)[None], format="s16", layout="mono")
    raw.sample_rate, raw.pts, raw.time_base = 16_000, 0, Fraction(1, 16_000)
    frames = av.AudioResampler(format=audio.codec_context.format, layout="mono", rate=16_000).resample(raw)
    return [packet for frame in [*frames, None] for packet in audio.encode(frame)]


def write_wav(path: Path, seconds: float = 1.0) -> None:
    """Writes a mono wav file of noise at 16 kHz."""
    soundfile.write(path, noise(seconds), 16_000, subtype="PCM_16")


def write_image(path: Path, index: int = 0) -> None:
    """Writes a small JPEG with the grey level of frame `index`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(simplejpeg.encode_jpeg(np.full((16, 16, 3), grey_level(index), np.uint8)))


def write_recording_toml(folder: Path, text: str, *, clock: str = "boot") -> Path:
    """Writes a recording.toml with the [streams.*] tables `text`, all on a clock 'car' of the domain `clock`."""
    path = folder / "recording.toml"
    path.write_text(
        f'[recording]\nname = "made"\nclock = "car"\n[clocks.car]\ndomain = "{clock}"\n{text}\n', "utf-8"
    )
    return path


def imu_table(time: str = 'column = "t", unit = "ns"', path: str = "imu.csv", more: str = "") -> str:
    """Returns the TOML table of a stream called 'imu'; `more` are further lines of the table."""
    return f'[streams.imu]\nkind = "imu"\npath = "{path}"\ntime = {{ {time} }}\n{more}'
