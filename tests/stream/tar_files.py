"""Tars of small samples, as other programs write them, and streams of rows over them."""

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
from mmpack.stream.tars import TarStream, TarStreamConfig

CAPACITY = 128
LAYOUT = parse_settings(
    {
        "vision": {"patch_size": 8, "merge": 2, "max_tokens": 6},
        "audio": {"codebooks": 2, "codebook_size": 64},
        # The layout may have numeric streams that no tar contains.
        "numeric": [{"name": "imu", "width": 6}],
    },
    LayoutConfig,
    where="layout",
)
_WORD = "left "

Members = list[tuple[str, bytes]]


def text(tokens: int) -> bytes:
    """Makes a text of about `tokens` tokens."""
    return (_WORD * tokens).encode()


def jpeg(seed: int = 0, size: tuple[int, int] = (24, 40)) -> bytes:
    """Makes a JPEG of noise of the size (height, width)."""
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    return simplejpeg.encode_jpeg(pixels, quality=90)


def png(seed: int = 0, size: tuple[int, int] = (24, 40)) -> bytes:
    """Makes a PNG of noise of the size (height, width)."""
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def audio_clip(seed: int = 0, format_: str = "WAV", samples: int = 3000) -> bytes:
    """Makes an audio file of noise at 16 kHz, of the soundfile format `format_`."""
    noise = (np.random.default_rng(seed).standard_normal(samples) * 3000).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, noise, 16_000, format=format_)
    return buffer.getvalue()


def broken_jpeg(seed: int = 0) -> bytes:
    """Makes a JPEG with an intact header and end marker, whose pixel data is cut short."""
    data = jpeg(seed)
    scan = data.rfind(b"\xff\xda")
    return data[: scan + 100] + data[-2:]


def tar_bytes(members: Iterable[tuple[str, bytes]], format_: int = tarfile.GNU_FORMAT) -> bytes:
    """Makes a tar with Python's tarfile."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            # In pax format a fractional time gives each member an extended header.
            info.mtime = 1_700_000_000.25
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], format_: int = tarfile.GNU_FORMAT) -> Path:
    """Writes a tar to `path`, gzipped if its suffix is .gz or .tgz."""
    data = tar_bytes(members, format_)
    path.write_bytes(gzip.compress(data) if path.suffix in (".gz", ".tgz") else data)
    return path


def texts(prefix: str, lengths: Iterable[int]) -> Members:
    """Makes one text sample per length, in tokens, with the keys PREFIX0000, PREFIX0001 and so on."""
    return [(f"{prefix}{index:04d}.txt", text(length)) for index, length in enumerate(lengths)]


@dataclass(frozen=True)
class RecordedReason:
    """A line of a quarantine file without its date and rank."""

    row: int
    key: str
    shard: str
    reason: str


def read_recorded_reasons(path: Path) -> list[RecordedReason]:
    """Reads the lines of a quarantine file; returns an empty list if the file does not exist."""
    if not path.exists():
        return []
    return [
        RecordedReason(record.row, record.key, Path(record.shard).name, record.reason)
        for record in read_quarantine(path)
    ]


def open_tar_stream(urls: Any, quarantine: Path, *, max_corrupt: int = 1000, **settings: Any) -> TarStream:
    """Opens a stream of small rows over tars. `settings` are fields of TarStreamConfig and arguments of `from_webdataset`."""
    names = TarStreamConfig.__struct_fields__
    config: dict[str, Any] = {"max_seq_len": CAPACITY} | {
        name: settings.pop(name) for name in names if name in settings
    }
    reader = ReaderConfig(quarantine=str(quarantine), max_corrupt=max_corrupt, prefetch=3)
    urls = urls if isinstance(urls, str) else [str(url) for url in urls]
    return RowStream.from_webdataset(
        urls, TarStreamConfig(**config), **({"layout": LAYOUT, "reader": reader} | settings)
    )


def read_tar_rows(urls: Any, quarantine: Path, **settings: Any) -> list[Row]:
    """Reads all rows of a stream over tars."""
    with open_tar_stream(urls, quarantine, **settings) as stream:
        return list(stream)


def sample_keys(rows: Iterable[Row]) -> Iterator[str]:
    """Yields the keys of all readable samples, row after row."""
    for row in rows:
        for valid, keys in zip(row.document_valid, row.keys, strict=True):
            if valid:
                yield from keys


def assert_same_rows(rows: Iterable[Row], expected: Iterable[Row]) -> None:
    """Checks that the rows are equal to the bit."""
    for row, other in zip(rows, expected, strict=True):
        assert (row.number, row.keys) == (other.number, other.keys)
        for name, array in row.arrays().items():
            assert array.tobytes() == other.arrays()[name].tobytes(), name
