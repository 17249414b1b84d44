"""Sources of texts that are valid for an interval: srt and vtt files, subtitle tracks, csv files with times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

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
    """Texts that are already in memory, with their timestamps.

    Attributes:
        lines: texts, in file order.
        line_timestamps: starts and ends of the texts.
        path: path of the file that the texts were read from.
    """

    lines: tuple[str, ...]
    line_timestamps: Timestamps
    path: Path

    def timestamps(self) -> Timestamps:
        """Returns the starts and ends of all texts."""
        return self.line_timestamps

    def texts(self) -> list[str]:
        """Returns all texts, in file order."""
        return list(self.lines)

    def files(self) -> Iterable[tuple[str, int]]:
        """Yields the file's name and size in bytes."""
        yield file_identity(self.path)

    def identity(self) -> dict[str, Any]:
        """Returns the values that determine the content, as in :meth:`mmpack.recording.FrameSource.identity`."""
        return {
            "source": "timed texts",
            "path": self.path,
            "texts": self.lines,
            "times": self.line_timestamps.identity(),
        }


@dataclass(frozen=True)
class SubtitleFile:
    """An srt or vtt file, whose timestamps are integer milliseconds.

    Attributes:
        path: path of the file.
        stream: name of the stream, for messages.
        start_ns: timestamp of subtitle time zero on the stream's clock.
    """

    path: Path
    stream: str
    start_ns: int = 0

    @cached_property
    def _events(self) -> list[tuple[int, int, str]]:
        where = f"stream '{self.stream}', {self.path}"
        if self.path.stat().st_size > MAX_SUBTITLE_BYTES:
            raise DataError(
                f"the file is larger than {MAX_SUBTITLE_BYTES} bytes, so it is not a subtitle file",
                where=where,
            )
        try:
            loaded = pysubs2.load(str(self.path), encoding="utf-8")
        except (pysubs2.exceptions.Pysubs2Error, UnicodeDecodeError) as error:
            raise DataError(f"cannot be read as subtitles ({error})", where=where) from None
        events = [(event.start, event.end, event.plaintext) for event in loaded if not event.is_comment]
        if not events:
            raise DataError("the file has no subtitles", where=where)
        return events

    def timestamps(self) -> Timestamps:
        """Returns the starts and ends of all texts. Raises DataError."""
        starts = np.array([start for start, _, _ in self._events], np.int64) * 10**6
        ends = np.array([end for _, end, _ in self._events], np.int64) * 10**6
        return Timestamps(starts + self.start_ns, ends + self.start_ns, 10**6, self.path.suffix.lstrip("."))

    def texts(self) -> list[str]:
        """Returns all texts, in file order. Raises DataError."""
        return [text for _, _, text in self._events]

    def files(self) -> Iterable[tuple[str, int]]:
        """Yields the file's name and size in bytes."""
        yield file_identity(self.path)

    def identity(self) -> dict[str, Any]:
        """Returns the values that determine the content, as in :meth:`mmpack.recording.FrameSource.identity`."""
        return {"source": "subtitle file", "path": self.path, "start_ns": self.start_ns}


@dataclass(frozen=True)
class SubtitleTrack:
    """A subtitle track of a container (mov_text, SubRip, WebVTT, ASS).

    Attributes:
        path: path of the container.
        spec: track specification, as 's:0'.
        stream: name of the stream, for messages.
        start_ns: timestamp of media time zero on the stream's clock.
    """

    path: Path
    spec: str
    stream: str
    start_ns: int = 0

    @cached_property
    def _events(self) -> tuple[Timestamps, list[str]]:
        rows: list[tuple[int, int, str]] = []
        with open_container(self.path, stream=self.stream) as container:
            track = find_track(container, self.spec, stream=self.stream, path=self.path)
            codec, time_base = track.codec_context.name, track.time_base
            for packet in container.demux(track):
                if packet.pts is None or packet.size == 0:
                    continue
                text = _decode_packet(bytes(packet), codec)
                if text:
                    rows.append((packet.pts, packet.pts + (packet.duration or 0), text))
        if not rows or time_base is None:
            raise DataError("the track has no subtitles", where=f"stream '{self.stream}', {self.path}")
        starts = np.array([row[0] for row in rows], np.int64)
        ends = np.array([row[1] for row in rows], np.int64)
        tick_ns = time_base * 10**9
        timestamps = Timestamps(
            pts_to_ns(starts, time_base, self.start_ns),
            pts_to_ns(ends, time_base, self.start_ns),
            max(1, -(-tick_ns.numerator // tick_ns.denominator)),
            "pts",
        )
        return timestamps, [row[2] for row in rows]

    def timestamps(self) -> Timestamps:
        """Returns the starts and ends of all texts. Raises DataError."""
        return self._events[0]

    def texts(self) -> list[str]:
        """Returns all texts, in the order of the track. Raises DataError."""
        return self._events[1]

    def files(self) -> Iterable[tuple[str, int]]:
        """Yields the container's name and size in bytes."""
        yield file_identity(self.path)

    def identity(self) -> dict[str, Any]:
        """Returns the values that determine the content, as in :meth:`mmpack.recording.FrameSource.identity`."""
        return {"source": "subtitle track", "path": self.path, "track": self.spec, "start_ns": self.start_ns}


def _decode_packet(data: bytes, codec: str) -> str:
    """Returns the text of one subtitle packet, '' for a filler packet."""
    # A mov_text packet (ISO/IEC 14496-17) is a 16-bit length, the text, then style boxes.
    if codec == "mov_text":
        data = data[2 : 2 + int.from_bytes(data[:2], "big")]
    text = data.decode("utf-8", errors="replace")
    # In Matroska, the text follows ReadOrder, Layer, Style, Name, three margins and Effect.
    if codec in ("ass", "ssa"):
        text = text.split(",", 8)[-1]
    return pysubs2.SSAEvent(text=text.replace("\n", "\\N")).plaintext.strip()
