"""Tars as other programs write them, of small samples, and streams of their rows."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import soundfile
from PIL import Image

from mmpack.layout import LayoutConfig
from mmpack.plan.plan_config import ReaderConfig
from mmpack.quarantine import read_quarantine
from mmpack.settings import parse_settings
from mmpack.stream import Row, RowStream
from mmpack.stream.tars import TarStream

CAPACITY = 128
LAYOUT = parse_settings(
    {
        "vision": {"patch_size": 8, "merge": 2, "max_tokens": 6},
        "audio": {"codebooks": 2, "codebook_size": 64},
        # A run's layout has streams that no tar here holds.
        "numeric": [{"name": "imu", "width": 6}],
    },
    LayoutConfig,
    where="layout",
)
_WORD = "left "

Members = list[tuple[str, bytes]]


def text(tokens: int) -> bytes:
    """A text of about so many tokens."""
    return (_WORD * tokens).encode()


def jpeg(seed: int = 0, size: tuple[int, int] = (24, 40)) -> bytes:
    """A JPEG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    return simplejpeg.encode_jpeg(pixels, quality=90)


def png(seed: int = 0, size: tuple[int, int] = (24, 40)) -> bytes:
    """A PNG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def audio_clip(seed: int = 0, kind: str = "WAV", samples: int = 3000) -> bytes:
    """A clip of noise at 16 kHz."""
    noise = (np.random.default_rng(seed).standard_normal(samples) * 3000).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, noise, 16_000, format=kind)
    return buffer.getvalue()


def broken_jpeg(seed: int = 0) -> bytes:
    """One whose header and end are whole, and what lies between is not."""
    data = jpeg(seed)
    scan = data.rfind(b"\xff\xda")
    return data[: scan + 100] + data[-2:]


def tar_bytes(members: Iterable[tuple[str, bytes]], form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar that Python writes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1_700_000_000.25  # a pax header of its own for each member
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], form: int = tarfile.GNU_FORMAT) -> Path:
    """A tar in a file, gzipped if its name says so."""
    data = tar_bytes(members, form)
    path.write_bytes(gzip.compress(data) if path.suffix in (".gz", ".tgz") else data)
    return path


def texts(prefix: str, lengths: Iterable[int]) -> Members:
    """A sample of each length."""
    return [(f"{prefix}{number:04d}.txt", text(length)) for number, length in enumerate(lengths)]


@dataclass(frozen=True)
class RecordedReason:
    """What a quarantine file says of a sample, but when and by which rank."""

    row: int
    key: str
    shard: str
    reason: str


def read_recorded_reasons(path: Path) -> list[RecordedReason]:
    """The lines of a quarantine file; none where there is no file."""
    if not path.exists():
        return []
    return [
        RecordedReason(each.row, each.key, Path(each.shard).name, each.reason)
        for each in read_quarantine(path)
    ]


def open_tar_stream(urls: Any, quarantine: Path, *, max_corrupt: int = 1000, **settings: Any) -> TarStream:
    """A stream of small rows."""
    reader = ReaderConfig(quarantine=str(quarantine), max_corrupt=max_corrupt, prefetch=3)
    urls = urls if isinstance(urls, str) else [str(url) for url in urls]
    return RowStream.from_webdataset(urls, LAYOUT, **({"max_seq_len": CAPACITY, "reader": reader} | settings))


def read_tar_rows(urls: Any, quarantine: Path, **settings: Any) -> list[Row]:
    """All rows of a stream."""
    with open_tar_stream(urls, quarantine, **settings) as stream:
        return list(stream)


def sample_keys(rows: Iterable[Row]) -> Iterator[str]:
    """The keys of all samples that were read, row after row."""
    for row in rows:
        for valid, keys in zip(row.document_valid, row.keys, strict=True):
            if valid:
                yield from keys


def assert_same_rows(found: Iterable[Row], expected: Iterable[Row]) -> None:
    """The same rows to the bit."""
    for one, other in zip(found, expected, strict=True):
        assert (one.number, one.keys) == (other.number, other.keys)
        for name, array in one.arrays().items():
            assert array.tobytes() == other.arrays()[name].tobytes(), name
