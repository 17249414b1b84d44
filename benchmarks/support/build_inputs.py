"""Recordings for benchmarks/build_shards.py: six cameras of JPEG files, and clips of one camera."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle
from pathlib import Path

import av
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from benchmarks.support.measure import REAL_DATA

CAMERAS = ("cam_back", "cam_back_left", "cam_back_right", "cam_front", "cam_front_left", "cam_front_right")
_NUSCENES = REAL_DATA / "nuscenes_drivelm" / "samples"
_GOPRO = REAL_DATA / "gopro" / "max-heromode.mp4"
_START_US, _PERIOD_US, _STAGGER_US = 1_600_000_000_000_000, 500_000, 7_000


@dataclass(frozen=True)
class Clip:
    """A recording of one camera.

    Attributes:
        folder: of its recording.toml.
        path: the mp4.
        what: in words.
    """

    folder: Path
    path: Path
    what: str


def jpeg_recording(folder: Path, slices: int) -> str:
    """Six folders of `slices` JPEG files, stamps in their names, and a recording.toml.

    The files are copies, not links: a few pictures read again and again would stay in the processor's cache.

    Returns:
        Where the pictures are from, in words.
    """
    pictures, origin = _pictures()
    tables = ['[recording]\nname = "six"\nclock = "rig"\n[clocks.rig]\ndomain = "utc"\n']
    for number, camera in enumerate(CAMERAS):
        (folder / camera).mkdir(parents=True)
        turn = cycle(pictures[camera])
        for count in range(slices):
            stamp_us = _START_US + count * _PERIOD_US + number * _STAGGER_US
            (folder / camera / f"{camera}_{stamp_us}.jpg").write_bytes(next(turn))
        time = "{ pattern = '_(\\d+)\\.jpg$', unit = \"us\" }"
        tables.append(f'[streams.{camera}]\nkind = "camera"\npath = "{camera}"\ntime = {time}\n')
    (folder / "recording.toml").write_text("".join(tables))
    return origin


def jpeg_files(folder: Path) -> list[list[Path]]:
    """Files of the recording, slice by slice."""
    columns = [sorted((folder / camera).iterdir()) for camera in CAMERAS]
    return [list(row) for row in zip(*columns, strict=True)]


def clips(folder: Path) -> list[Clip]:
    """A real camera's clip where there is one, and a drawn one of 720 lines."""
    found: list[Clip] = []
    if _GOPRO.exists():
        found.append(_clip(folder / "gopro", _GOPRO, "GoPro 848x480 (BT.709: through RGB)"))
    drawn = folder / "drawn.mp4"
    _draw(drawn, frames=240, size=(720, 1280))
    found.append(_clip(folder / "drawn", drawn, "drawn 1280x720 (BT.601: planes)"))
    return found


def _pictures() -> tuple[dict[str, list[bytes]], str]:
    if _NUSCENES.is_dir():
        found = {
            camera: [path.read_bytes() for path in sorted((_NUSCENES / camera.upper()).glob("*.jpg"))]
            for camera in CAMERAS
        }
        return found, "nuScenes keyframes, repeated"
    rng = np.random.default_rng(0)
    drawn = [simplejpeg.encode_jpeg(_texture(rng, (900, 1600)), quality=80) for _ in range(9)]
    return dict.fromkeys(CAMERAS, drawn), "drawn, since MMPACK_REAL_DATA holds no nuScenes pictures"


def _texture(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Structure at several scales, uint8, shape (height, width, 3): as costly to a codec as a photograph."""
    height, width = size
    picture = np.zeros((height, width, 3))
    for scale, weight in ((64, 50.0), (16, 25.0), (4, 8.0)):
        coarse = rng.normal(0, weight, (height // scale + 1, width // scale + 1, 3))
        picture += coarse.repeat(scale, axis=0).repeat(scale, axis=1)[:height, :width]
    return np.clip(picture + 128, 0, 255).astype(np.uint8)


def _draw(path: Path, *, frames: int, size: tuple[int, int]) -> None:
    """A camera that pans over a texture, H.264, untagged colours (which decoders take for BT.601)."""
    height, width = size
    wall = _texture(np.random.default_rng(0), (height, width + 4 * frames))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(30))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        stream.options = {"preset": "veryfast", "crf": "23", "x264-params": "threads=1"}
        for number in range(frames):
            view = np.ascontiguousarray(wall[:, 4 * number : 4 * number + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
        container.mux(stream.encode(None))


def _clip(folder: Path, source: Path, what: str) -> Clip:
    folder.mkdir(parents=True)
    path = folder / "camera.mp4"
    shutil.copyfile(source, path)
    (folder / "recording.toml").write_text('[streams.camera]\nkind = "camera"\npath = "camera.mp4"\n')
    return Clip(folder, path, what)
