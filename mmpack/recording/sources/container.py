"""Tracks of media containers (mp4, mkv, ...): finds a track and reads its packet timestamps without decoding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from numpy.typing import NDArray

from mmpack.errors import ConfigError, DataError

_TYPES = {"v": "video", "a": "audio", "s": "subtitle"}
# The duration in a Matroska header can differ by a last frame or subtitle, so a file that lost less than this is
# not detected as truncated.
_DURATION_SLACK_S = Fraction(1)
# Top-level boxes of an mp4 or mov file (ISO/IEC 14496-12 and QuickTime). Other boxes can be a trailer that a camera
# vendor appended.
_TOP_BOXES = frozenset(
    (
        b"ftyp",
        b"styp",
        b"moov",
        b"mdat",
        b"moof",
        b"mfra",
        b"sidx",
        b"free",
        b"skip",
        b"wide",
        b"meta",
        b"udta",
        b"uuid",
    )
)


@contextmanager
def open_container(path: Path, *, stream: str) -> Iterator[InputContainer]:
    """Opens the container at `path` for the duration of a `with` block.

    Raises:
        DataError: the file is missing, truncated or not a media file.
    """
    where = f"stream '{stream}', {path}"
    try:
        container = av.open(str(path), mode="r", metadata_errors="ignore")
    except FileNotFoundError:
        raise DataError("no such file", where=where, hint="Correct its path in recording.toml.") from None
    except (FFmpegError, OSError) as error:
        raise DataError(
            f"cannot be opened as media ({_format_error(error)})",
            where=where,
            hint="The file is truncated or has another format: copy it again or remux it.",
        ) from None
    try:
        if "mov" in container.format.name.split(","):
            _check_box_sizes(path, where=where)
        yield container
    finally:
        container.close()


def _check_box_sizes(path: Path, *, where: str) -> None:
    """Raises DataError if a box of an mp4 extends beyond the end of the file.

    FFmpeg reads a truncated track as a shorter one, without an error. The number of frames in the header is no
    criterion, because an edit list can hide whole groups of frames.
    """
    total = path.stat().st_size
    with path.open("rb") as file:
        start = 0
        while start + 8 <= total:
            file.seek(start)
            header = file.read(16)
            size, box_type = int.from_bytes(header[:4], "big"), header[4:8]
            if size == 1:  # The size follows in 64 bits.
                size = int.from_bytes(header[8:16], "big")
            if size < 8 or box_type not in _TOP_BOXES:  # A size of 0 means up to the end of the file.
                return
            if start + size > total:
                raise DataError(
                    f"the {box_type.decode()} box ends at byte {start + size:,}, but the file at byte {total:,}: "
                    "the file is truncated",
                    where=where,
                    hint="Copy it again.",
                )
            start += size


def find_track(container: InputContainer, spec: str, *, stream: str, path: Path) -> av.stream.Stream:  # pyright: ignore
    """Returns the track with the specification `spec`.

    Args:
        container: open container.
        spec: 'v:0' for the first video, 'a:1' for the second audio, 's:0' for the first subtitle track.
        stream: name of the stream, for messages.
        path: path of the container, for messages.

    Raises:
        ConfigError: the specification is malformed.
        DataError: there is no such track; the error gives the number of tracks of this type.
    """
    letter, _, digits = spec.partition(":")
    # isdigit() alone accepts '²', for which int() raises.
    if letter not in _TYPES or not ((digits or "0").isascii() and (digits or "0").isdigit()):
        raise ConfigError(f"track '{spec}' is not of the form v:0, a:0 or s:0", where=f"stream '{stream}'")
    tracks = [candidate for candidate in container.streams if candidate.type == _TYPES[letter]]
    index = int(digits or "0")
    if index >= len(tracks):
        raise DataError(
            f"no {_TYPES[letter]} track number {index}: the file has {len(tracks)}",
            where=f"stream '{stream}', {path}",
        )
    return tracks[index]


@dataclass(frozen=True)
class TrackPackets:
    """The packets of one track, ordered by presentation time.

    Attributes:
        pts: int64, shape (n,), presentation timestamps in units of `time_base`.
        duration: int64, shape (n,), durations in units of `time_base`; 0 where unknown.
        time_base: seconds per unit.
        sizes: int64, shape (n,), packet sizes in bytes.
    """

    pts: NDArray[np.int64]
    duration: NDArray[np.int64]
    time_base: Fraction
    sizes: NDArray[np.int64]


def scan_packets(path: Path, spec: str, *, stream: str) -> TrackPackets:
    """Reads the timestamps of all packets of a track that a player presents.

    Raises:
        DataError: a packet has no pts or is damaged, the packets end before the container's declared end (a
            truncated file), or there are no packets.
    """
    where = f"stream '{stream}', {path}"
    rows: list[tuple[int, int, int]] = []
    with open_container(path, stream=stream) as container:
        track = find_track(container, spec, stream=stream, path=path)
        # The time base is read before the container closes: a track of a closed container is a dangling pointer.
        time_base = track.time_base
        # A Matroska header declares the end of the longest track, so the packets of all tracks are read.
        declared_end_s = _matroska_end_s(container)
        last_end_s = Fraction(0)
        try:
            for packet in container.demux() if declared_end_s else container.demux(track):
                if packet.size == 0 and packet.pts is None:
                    continue  # This is the flush packet at the end of a demux.
                if declared_end_s and packet.pts is not None and packet.time_base:
                    last_end_s = max(last_end_s, (packet.pts + (packet.duration or 0)) * packet.time_base)
                if packet.stream_index != track.index:
                    continue
                if packet.is_corrupt:
                    raise DataError(
                        f"packet {len(rows)} is cut short: the file is truncated or damaged",
                        where=where,
                        hint="Copy it again, or cut it after the last complete frame.",
                    )
                if packet.pts is None:
                    raise DataError(
                        f"packet {len(rows)} has no presentation timestamp",
                        where=where,
                        hint="Remux the file.",
                    )
                if packet.is_discard:
                    continue  # An edit list hides this packet; decoders drop it as well.
                rows.append((packet.pts, packet.duration or 0, packet.size))
        except (FFmpegError, OSError) as error:
            raise DataError(
                f"reading stopped ({_format_error(error)})", where=where, hint="Copy the file again."
            ) from None
    if last_end_s < declared_end_s - _DURATION_SLACK_S:
        raise DataError(
            f"the header declares {float(declared_end_s):.3f} s, but the packets end at {float(last_end_s):.3f} s: "
            "the file is truncated",
            where=where,
            hint="Copy it again.",
        )
    if not rows or time_base is None:
        raise DataError("the track has no packets", where=where)
    table = np.asarray(rows, np.int64)
    table = table[np.argsort(table[:, 0], kind="stable")]
    return TrackPackets(table[:, 0], table[:, 1], Fraction(time_base), table[:, 2])


def _matroska_end_s(container: InputContainer) -> Fraction:
    """Returns the end that a Matroska header declares, in seconds; 0 for a header without it and other formats."""
    if "matroska" not in container.format.name or container.duration is None:
        return Fraction(0)
    return Fraction(container.duration, av.time_base)


def list_tracks(path: Path) -> list[tuple[str, str]]:
    """Lists (track specification, codec name) of every video, audio and subtitle track except cover images.

    Raises:
        DataError: the file cannot be opened.
    """
    specs: list[tuple[str, str]] = []
    with open_container(path, stream=path.name) as container:
        for letter, type_ in _TYPES.items():
            tracks = [candidate for candidate in container.streams if candidate.type == type_]
            for index, track in enumerate(tracks):
                is_cover = bool(track.disposition & Disposition.attached_pic)
                if not is_cover:
                    specs.append((f"{letter}:{index}", track.codec_context.name))
    return specs


def _format_error(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
