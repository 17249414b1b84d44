"""Samples for benchmarks/stream.py: three sets, written once as WebDataset tars with an index of byte ranges.

- bytes: about 74 kB each, pieces of real JPEG files; handed over as they are.
- six: six JPEG pictures of 1600x900, one per camera, decoded to RGB at half size by the decoder's own scaling.
- clip: two seconds of H.264 with 30 frames a second, decoded to RGB.

Every sample is distinct: a number is written into its bytes where decoders pass over it. All loaders are given
the same samples and call the same :func:`decode`.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import simplejpeg
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from benchmarks.support.build_inputs import CAMERAS, clips, jpeg_files, jpeg_recording

KINDS = ("bytes", "six", "clip")
SHARDS = 8
_KEYFRAMES = 9
_PIECE_BYTES = 74_000
_CLIP_FRAMES, _CLIP_STARTS, _CLIP_RATE_HZ = 60, 12, 30
_SIX_SIZE, _CLIP_SIZE = (450, 800), (240, 424)
Members = Mapping[str, bytes]


@dataclass(frozen=True)
class BenchmarkSamples:
    """One set on disk.

    Attributes:
        folder: of the tars and of whatever loaders make from them.
        kind: one of KINDS.
        ranges: of each sample, by id: (number of the tar, ((extension, offset_bytes, size_bytes), ...)).
        origin: where they are from, in words.
    """

    folder: Path
    kind: str
    ranges: tuple[tuple[int, tuple[tuple[str, int, int], ...]], ...]
    origin: str

    @property
    def tars(self) -> list[Path]:
        """In the order of their numbers."""
        return [self.folder / "tars" / f"{number:06d}.tar" for number in range(SHARDS)]

    def number(self, key: str) -> int:
        """Id of the sample whose key, or path that ends in it, is `key`."""
        return int(key.rpartition("-")[2])

    def open_files(self) -> list[int]:
        """File descriptors of the tars."""
        return [os.open(path, os.O_RDONLY) for path in self.tars]

    def read(self, files: list[int], number: int) -> Members:
        """Members of one sample: one `pread` each."""
        tar, members = self.ranges[number]
        return {extension: os.pread(files[tar], size, offset) for extension, offset, size in members}

    def all(self) -> Iterator[tuple[int, Members]]:
        """(id, members) of every sample."""
        files = self.open_files()
        for number in range(len(self.ranges)):
            yield number, self.read(files, number)


def decode(kind: str, members: Members) -> bytes | NDArray[np.uint8]:
    """What a loader hands over: bytes, or uint8 RGB of shape (cameras or frames, height, width, 3)."""
    if kind == "bytes":
        return members["jpg"]
    if kind == "six":
        height, width = _SIX_SIZE
        found = np.empty((len(CAMERAS), height, width, 3), np.uint8)
        for place, camera in enumerate(CAMERAS):
            data = members[f"{camera}.jpg"]
            simplejpeg.decode_jpeg(
                data, colorspace="RGB", min_height=height, min_width=width, buffer=found[place].reshape(-1)
            )
        return found
    return np.stack(_rgb_frames(members["mp4"]))


def write_samples(folder: Path, counts: Mapping[str, int]) -> dict[str, BenchmarkSamples]:
    """The sets in folders of their own, as many samples of each kind as `counts` says."""
    origin = jpeg_recording(folder / "pictures", _KEYFRAMES)
    keyframes = [[path.read_bytes() for path in row] for row in jpeg_files(folder / "pictures")]
    film = clips(folder / "films")[0]
    found = {
        "bytes": (_pieces(keyframes), f"first {_PIECE_BYTES:,} bytes each of {origin}"),
        "six": (_six(keyframes), origin),
        "clip": (_clips(_scenes(film.path)), f"{film.what}, {_CLIP_STARTS} places of it, scaled, repeated"),
    }
    return {
        kind: _write(folder / kind, kind, list(islice(samples, counts[kind])), origin)
        for kind, (samples, origin) in found.items()
    }


def read_samples(folder: Path) -> BenchmarkSamples:
    """A set that was written before."""
    stored: dict[str, Any] = json.loads((folder / "samples.json").read_bytes())
    ranges = tuple(
        (tar, tuple((str(name), int(offset), int(size)) for name, offset, size in members))
        for tar, members in stored["ranges"]
    )
    return BenchmarkSamples(folder, stored["kind"], ranges, stored["origin"])


def _rgb_frames(mp4: bytes) -> list[NDArray[np.uint8]]:
    reformatter = VideoReformatter()
    with av.open(io.BytesIO(mp4), "r") as container:
        video = container.streams.video[0]
        video.thread_type = "NONE"
        shown = (reformatter.reformat(frame, format="rgb24") for frame in container.decode(video))
        return [frame.to_ndarray().astype(np.uint8, copy=False) for frame in shown]


def _write(folder: Path, kind: str, samples: list[Members], origin: str) -> BenchmarkSamples:
    (folder / "tars").mkdir(parents=True)
    ranges: list[Any] = []
    for tar in range(SHARDS):
        path = folder / "tars" / f"{tar:06d}.tar"
        with path.open("wb") as file, tarfile.open(fileobj=file, mode="w") as out:
            for number in range(tar * len(samples) // SHARDS, (tar + 1) * len(samples) // SHARDS):
                places: list[tuple[str, int, int]] = []
                for extension, data in samples[number].items():
                    info = tarfile.TarInfo(f"{kind}-{number:08d}.{extension}")
                    info.size = len(data)
                    places.append((extension, file.tell() + tarfile.BLOCKSIZE, len(data)))
                    out.addfile(info, io.BytesIO(data))
                ranges.append((tar, places))
    (folder / "samples.json").write_text(json.dumps({"kind": kind, "origin": origin, "ranges": ranges}))
    return read_samples(folder)


def _pieces(keyframes: list[list[bytes]]) -> Iterator[Members]:
    long = [picture for row in keyframes for picture in row if len(picture) >= _PIECE_BYTES]
    for number, picture in enumerate(cycle(long)):
        yield {"jpg": _numbered(picture, number)[:_PIECE_BYTES]}


def _six(keyframes: list[list[bytes]]) -> Iterator[Members]:
    for number, row in enumerate(cycle(keyframes)):
        yield {
            f"{camera}.jpg": _numbered(picture, number) for camera, picture in zip(CAMERAS, row, strict=True)
        }


def _numbered(jpeg: bytes, number: int) -> bytes:
    """With a comment segment behind the start marker."""
    comment = f"{number:08d}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]


def _clips(scenes: list[bytes]) -> Iterator[Members]:
    for number, scene in enumerate(cycle(scenes)):
        # Players pass over a box of the type `free`.
        yield {"mp4": scene + (16).to_bytes(4, "big") + b"free" + f"{number:08d}".encode()}


def _scenes(film: Path) -> list[bytes]:
    """Clips that start at different frames of one film."""
    height, width = _CLIP_SIZE
    with av.open(str(film)) as container:
        frames = [frame.reformat(width, height, "yuv420p") for frame in container.decode(video=0)]
    starts = np.linspace(0, len(frames) - _CLIP_FRAMES, _CLIP_STARTS).astype(int)
    return [_encoded(frames[start : start + _CLIP_FRAMES]) for start in starts.tolist()]


def _encoded(frames: list[av.VideoFrame]) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(_CLIP_RATE_HZ))
        stream.height, stream.width, stream.pix_fmt = *_CLIP_SIZE, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "23", "g": "30"}
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, Fraction(1, _CLIP_RATE_HZ)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
