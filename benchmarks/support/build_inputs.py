"""Recordings for benchmarks/build_shards.py: six cameras with JPEG files, and video clips of one camera."""

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
        folder: folder with the recording.toml.
        path: path of the mp4.
        description: description for the results.
    """

    folder: Path
    path: Path
    description: str


def make_jpeg_recording(folder: Path, slices: int) -> str:
    """Writes six folders of `slices` JPEG files with timestamps in their names, and a recording.toml.

    The files are copies, not links, because a few images that are read again and again would stay in the processor's
    cache.

    Returns:
        A description of the origin of the images.
    """
    images, origin = _load_images()
    tables = ['[recording]\nname = "six"\nclock = "vehicle"\n[clocks.vehicle]\ndomain = "utc"\n']
    for index, camera in enumerate(CAMERAS):
        (folder / camera).mkdir(parents=True)
        camera_images = cycle(images[camera])
        for slice_index in range(slices):
            timestamp_us = _START_US + slice_index * _PERIOD_US + index * _STAGGER_US
            (folder / camera / f"{camera}_{timestamp_us}.jpg").write_bytes(next(camera_images))
        time = "{ pattern = '_(\\d+)\\.jpg$', unit = \"us\" }"
        tables.append(f'[streams.{camera}]\nkind = "camera"\npath = "{camera}"\ntime = {time}\n')
    (folder / "recording.toml").write_text("".join(tables))
    return origin


def list_jpeg_files(folder: Path) -> list[list[Path]]:
    """Returns the files of the recording, slice by slice."""
    columns = [sorted((folder / camera).iterdir()) for camera in CAMERAS]
    return [list(row) for row in zip(*columns, strict=True)]


def make_clips(folder: Path) -> list[Clip]:
    """Makes a clip of a real camera if the data is available, and a generated clip with 720 lines."""
    clips: list[Clip] = []
    if _GOPRO.exists():
        clips.append(_make_clip(folder / "gopro", _GOPRO, "GoPro 848x480 (BT.709: through RGB)"))
    generated = folder / "drawn.mp4"
    _generate_video(generated, frames=240, size=(720, 1280))
    clips.append(_make_clip(folder / "drawn", generated, "drawn 1280x720 (BT.601: planes)"))
    return clips


def _load_images() -> tuple[dict[str, list[bytes]], str]:
    if _NUSCENES.is_dir():
        images = {
            camera: [path.read_bytes() for path in sorted((_NUSCENES / camera.upper()).glob("*.jpg"))]
            for camera in CAMERAS
        }
        return images, "nuScenes keyframes, repeated"
    rng = np.random.default_rng(0)
    generated = [simplejpeg.encode_jpeg(_texture(rng, (900, 1600)), quality=80) for _ in range(9)]
    return dict.fromkeys(CAMERAS, generated), "generated, because MMPACK_REAL_DATA has no nuScenes images"


def _texture(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Generates uint8 (height, width, 3) with structure at several scales, as expensive for a codec as a photograph."""
    height, width = size
    image = np.zeros((height, width, 3))
    for scale, weight in ((64, 50.0), (16, 25.0), (4, 8.0)):
        coarse = rng.normal(0, weight, (height // scale + 1, width // scale + 1, 3))
        image += coarse.repeat(scale, axis=0).repeat(scale, axis=1)[:height, :width]
    return np.clip(image + 128, 0, 255).astype(np.uint8)


def _generate_video(path: Path, *, frames: int, size: tuple[int, int]) -> None:
    """Writes an H.264 video that pans over a texture, with untagged colours, which decoders treat as BT.601."""
    height, width = size
    wall = _texture(np.random.default_rng(0), (height, width + 4 * frames))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(30))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        stream.options = {"preset": "veryfast", "crf": "23", "x264-params": "threads=1"}
        for index in range(frames):
            view = np.ascontiguousarray(wall[:, 4 * index : 4 * index + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
        container.mux(stream.encode(None))


def _make_clip(folder: Path, source: Path, description: str) -> Clip:
    folder.mkdir(parents=True)
    path = folder / "camera.mp4"
    shutil.copyfile(source, path)
    (folder / "recording.toml").write_text('[streams.camera]\nkind = "camera"\npath = "camera.mp4"\n')
    return Clip(folder, path, description)
