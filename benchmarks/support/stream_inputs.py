"""Samples for benchmarks/stream.py: three sets, written once as WebDataset tars with an index of byte ranges.

- bytes: 74 kB each, the start of real JPEG files; not decoded.
- six: six JPEG images of 1600x900, one per camera, decoded to RGB at half size by the scaling of the decoder.
- clip: two seconds of H.264 video with 30 frames per second, decoded to RGB.

All samples are distinct: the sample id is written into the bytes where decoders ignore it. All loaders get the same
samples and call the same :func:`decode`.
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

from benchmarks.support.build_inputs import CAMERAS, list_jpeg_files, make_clips, make_jpeg_recording

KINDS = ("bytes", "six", "clip")
SHARDS = 8
_KEYFRAMES = 9
_SAMPLE_BYTES = 74_000
_CLIP_FRAMES, _CLIP_STARTS, _CLIP_RATE_HZ = 60, 12, 30
_SIX_SIZE, _CLIP_SIZE = (450, 800), (240, 424)
Members = Mapping[str, bytes]


@dataclass(frozen=True)
class BenchmarkSamples:
    """A set of samples on disk.

    Attributes:
        folder: folder of the tars and of the formats that loaders write.
        kind: one of KINDS.
        ranges: location of each sample, by id: (index of the tar, ((extension, offset_bytes, size_bytes), ...)).
        origin: description of the source data.
    """

    folder: Path
    kind: str
    ranges: tuple[tuple[int, tuple[tuple[str, int, int], ...]], ...]
    origin: str

    @property
    def tars(self) -> list[Path]:
        """Paths of the tars, by index."""
        return [self.folder / "tars" / f"{index:06d}.tar" for index in range(SHARDS)]

    def parse_id(self, key: str) -> int:
        """Returns the id of a sample from its key, or from a path that ends in the key."""
        return int(key.rpartition("-")[2])

    def open_files(self) -> list[int]:
        """Opens the tars and returns their file descriptors."""
        return [os.open(path, os.O_RDONLY) for path in self.tars]

    def read(self, files: list[int], id_: int) -> Members:
        """Reads the members of a sample, with one `pread` each."""
        tar, members = self.ranges[id_]
        return {extension: os.pread(files[tar], size, offset) for extension, offset, size in members}

    def all(self) -> Iterator[tuple[int, Members]]:
        """Yields the id and members of every sample."""
        files = self.open_files()
        for id_ in range(len(self.ranges)):
            yield id_, self.read(files, id_)


def decode(kind: str, members: Members) -> bytes | NDArray[np.uint8]:
    """Decodes a sample to the payload that loaders deliver: bytes, or uint8 RGB (cameras or frames, height, width, 3)."""
    if kind == "bytes":
        return members["jpg"]
    if kind == "six":
        height, width = _SIX_SIZE
        images = np.empty((len(CAMERAS), height, width, 3), np.uint8)
        for index, camera in enumerate(CAMERAS):
            data = members[f"{camera}.jpg"]
            simplejpeg.decode_jpeg(
                data, colorspace="RGB", min_height=height, min_width=width, buffer=images[index].reshape(-1)
            )
        return images
    return np.stack(_rgb_frames(members["mp4"]))


def write_samples(folder: Path, counts: Mapping[str, int]) -> dict[str, BenchmarkSamples]:
    """Writes the sets to folders of their own, with the number of samples that `counts` gives for each kind."""
    origin = make_jpeg_recording(folder / "images", _KEYFRAMES)
    keyframes = [[path.read_bytes() for path in row] for row in list_jpeg_files(folder / "images")]
    video = make_clips(folder / "videos")[0]
    sets = {
        "bytes": (_byte_samples(keyframes), f"first {_SAMPLE_BYTES:,} bytes each of {origin}"),
        "six": (_six_samples(keyframes), origin),
        "clip": (
            _clip_samples(_cut_clips(video.path)),
            f"{video.description}, clips from {_CLIP_STARTS} start frames, scaled, repeated",
        ),
    }
    return {
        kind: _write(folder / kind, kind, list(islice(samples, counts[kind])), origin)
        for kind, (samples, origin) in sets.items()
    }


def read_samples(folder: Path) -> BenchmarkSamples:
    """Reads the index of a set that :func:`write_samples` wrote."""
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
        frames = (reformatter.reformat(frame, format="rgb24") for frame in container.decode(video))
        return [frame.to_ndarray().astype(np.uint8, copy=False) for frame in frames]


def _write(folder: Path, kind: str, samples: list[Members], origin: str) -> BenchmarkSamples:
    (folder / "tars").mkdir(parents=True)
    ranges: list[Any] = []
    for tar in range(SHARDS):
        path = folder / "tars" / f"{tar:06d}.tar"
        with path.open("wb") as file, tarfile.open(fileobj=file, mode="w") as out:
            for id_ in range(tar * len(samples) // SHARDS, (tar + 1) * len(samples) // SHARDS):
                members: list[tuple[str, int, int]] = []
                for extension, data in samples[id_].items():
                    info = tarfile.TarInfo(f"{kind}-{id_:08d}.{extension}")
                    info.size = len(data)
                    members.append((extension, file.tell() + tarfile.BLOCKSIZE, len(data)))
                    out.addfile(info, io.BytesIO(data))
                ranges.append((tar, members))
    (folder / "samples.json").write_text(json.dumps({"kind": kind, "origin": origin, "ranges": ranges}))
    return read_samples(folder)


def _byte_samples(keyframes: list[list[bytes]]) -> Iterator[Members]:
    large = [image for row in keyframes for image in row if len(image) >= _SAMPLE_BYTES]
    for id_, image in enumerate(cycle(large)):
        yield {"jpg": _insert_id(image, id_)[:_SAMPLE_BYTES]}


def _six_samples(keyframes: list[list[bytes]]) -> Iterator[Members]:
    for id_, row in enumerate(cycle(keyframes)):
        yield {f"{camera}.jpg": _insert_id(image, id_) for camera, image in zip(CAMERAS, row, strict=True)}


def _insert_id(jpeg: bytes, id_: int) -> bytes:
    """Inserts a JPEG comment segment with the sample id after the start marker."""
    comment = f"{id_:08d}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]


def _clip_samples(clips: list[bytes]) -> Iterator[Members]:
    for id_, clip in enumerate(cycle(clips)):
        # Decoders ignore an MP4 box of the type `free`.
        yield {"mp4": clip + (16).to_bytes(4, "big") + b"free" + f"{id_:08d}".encode()}


def _cut_clips(video: Path) -> list[bytes]:
    """Encodes clips that start at different frames of a video."""
    height, width = _CLIP_SIZE
    with av.open(str(video)) as container:
        frames = [frame.reformat(width, height, "yuv420p") for frame in container.decode(video=0)]
    starts = np.linspace(0, len(frames) - _CLIP_FRAMES, _CLIP_STARTS).astype(int)
    return [_encode(frames[start : start + _CLIP_FRAMES]) for start in starts.tolist()]


def _encode(frames: list[av.VideoFrame]) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(_CLIP_RATE_HZ))
        stream.height, stream.width, stream.pix_fmt = *_CLIP_SIZE, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "23", "g": "30"}
        for index, frame in enumerate(frames):
            frame.pts, frame.time_base = index, Fraction(1, _CLIP_RATE_HZ)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
