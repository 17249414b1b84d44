"""Texts that hold for an interval: srt and vtt files, subtitle tracks, csv with times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pysubs2

from mmpack.clock import pts_to_ns
from mmpack.errors import DataError
from mmpack.recording.files import file_identity
from mmpack.recording.model import Timestamps
from mmpack.recording.sources.container import find_track, open_container

# A day of dense subtitles is a few MiB.
MAX_SUBTITLE_BYTES = 64 << 20


@dataclass(frozen=True)
class TimedTexts:
    """Texts already at hand, with their stamps.

    Attributes:
        lines: the texts.
        line_timestamps: their stamps, with ends.
        path: the file they came from.
    """

    lines: tuple[str, ...]
    line_timestamps: Timestamps
    path: Path

    def timestamps(self) -> Timestamps:
        """Starts and ends."""
        return self.line_timestamps

    def texts(self) -> list[str]:
        """All texts, in file order."""
        return list(self.lines)

    def files(self) -> Iterable[tuple[str, int]]:
        """The file's name and size."""
        yield file_identity(self.path)


@dataclass(frozen=True)
class SubtitleFile:
    """An srt or vtt file. Their stamps are milliseconds, so integers all the way.

    Attributes:
        path: the file.
        stream: name for messages.
        start_ns: stamp of subtitle time zero on the stream's clock.
    """

    path: Path
    stream: str
    start_ns: int = 0

    @cached_property
    def _events(self) -> list[tuple[int, int, str]]:
        where = f"stream '{self.stream}', {self.path}"
        if self.path.stat().st_size > MAX_SUBTITLE_BYTES:
            raise DataError(f"larger than {MAX_SUBTITLE_BYTES} bytes, so not subtitles", where=where)
        try:
            loaded = pysubs2.load(str(self.path), encoding="utf-8")
        except (pysubs2.exceptions.Pysubs2Error, UnicodeDecodeError) as error:
            raise DataError(f"cannot be read as subtitles ({error})", where=where) from None
        events = [(event.start, event.end, event.plaintext) for event in loaded if not event.is_comment]
        if not events:
            raise DataError("no subtitle in the file", where=where)
        return events

    def timestamps(self) -> Timestamps:
        """Starts and ends. Raises DataError."""
        starts = np.array([start for start, _, _ in self._events], np.int64) * 10**6
        ends = np.array([end for _, end, _ in self._events], np.int64) * 10**6
        return Timestamps(starts + self.start_ns, ends + self.start_ns, 10**6, self.path.suffix.lstrip("."))

    def texts(self) -> list[str]:
        """All texts, in file order. Raises DataError."""
        return [text for _, _, text in self._events]

    def files(self) -> Iterable[tuple[str, int]]:
        """The file's name and size."""
        yield file_identity(self.path)


@dataclass(frozen=True)
class SubtitleTrack:
    """A subtitle track of a container (mov_text, SubRip, WebVTT, ASS).

    Attributes:
        path: the container.
        spec: which track, as in 's:0'.
        stream: name for messages.
        start_ns: stamp of media time zero on the stream's clock.
    """

    path: Path
    spec: str
    stream: str
    start_ns: int = 0

    @cached_property
    def _events(self) -> tuple[Timestamps, list[str]]:
        rows: list[tuple[int, int, str]] = []
        with open_container(self.path, stream=self.stream) as container:
            found = find_track(container, self.spec, stream=self.stream, path=self.path)
            codec, time_base = found.codec_context.name, found.time_base
            for packet in container.demux(found):
                if packet.pts is None or packet.size == 0:
                    continue
                text = _decode_packet(bytes(packet), codec)
                if text:
                    rows.append((packet.pts, packet.pts + (packet.duration or 0), text))
        if not rows or time_base is None:
            raise DataError("no subtitle in the track", where=f"stream '{self.stream}', {self.path}")
        starts = np.array([row[0] for row in rows], np.int64)
        ends = np.array([row[1] for row in rows], np.int64)
        tick_ns = time_base * 10**9
        when = Timestamps(
            pts_to_ns(starts, time_base, self.start_ns),
            pts_to_ns(ends, time_base, self.start_ns),
            max(1, -(-tick_ns.numerator // tick_ns.denominator)),
            "pts",
        )
        return when, [row[2] for row in rows]

    def timestamps(self) -> Timestamps:
        """Starts and ends. Raises DataError."""
        return self._events[0]

    def texts(self) -> list[str]:
        """All texts, in track order. Raises DataError."""
        return self._events[1]

    def files(self) -> Iterable[tuple[str, int]]:
        """The container's name and size."""
        yield file_identity(self.path)


def _decode_packet(data: bytes, codec: str) -> str:
    """The text of one subtitle packet; a filler packet gives ''."""
    if codec == "mov_text":  # ISO/IEC 14496-17: 16-bit length, text, then style boxes
        data = data[2 : 2 + int.from_bytes(data[:2], "big")]
    text = data.decode("utf-8", errors="replace")
    if codec in (
        "ass",
        "ssa",
    ):  # Matroska: ReadOrder, Layer, Style, Name, three margins, Effect, then the text
        text = text.split(",", 8)[-1]
    return pysubs2.SSAEvent(text=text.replace("\n", "\\N")).plaintext.strip()
