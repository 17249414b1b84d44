"""Tracks of media containers (mp4, mkv, ...): finding one, and reading its packets' stamps without decoding."""

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
# A Matroska header's duration may be off by a last frame or subtitle; a file cut by less is not told from a
# whole one.
_DURATION_SLACK_S = Fraction(1)
# Boxes that stand at the top of an mp4 or mov file (ISO/IEC 14496-12 and QuickTime). Others may be a camera
# maker's own trailer.
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
    """The container at `path`, closed on leaving. Raises DataError if it cannot be opened (truncated, no
    media).
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
            hint="The file is truncated or of another format: copy it again or remux it.",
        ) from None
    try:
        if "mov" in container.format.name.split(","):
            _check_box_sizes(path, where=where)
        yield container
    finally:
        container.close()


def _check_box_sizes(path: Path, *, where: str) -> None:
    """Raises DataError if a box of an mp4 ends behind the file: FFmpeg reads a truncated track as a shorter
    one, without an error.

    The number of frames that the header declares does not tell: an edit list may leave whole groups of
    pictures out.
    """
    total = path.stat().st_size
    with path.open("rb") as file:
        start = 0
        while start + 8 <= total:
            file.seek(start)
            header = file.read(16)
            size, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if size == 1:  # the size follows in 64 bits
                size = int.from_bytes(header[8:16], "big")
            if size < 8 or kind not in _TOP_BOXES:  # 0: to the end of the file
                return
            if start + size > total:
                raise DataError(
                    f"its {kind.decode()} box ends at byte {start + size:,}, the file at {total:,}: the file is truncated",
                    where=where,
                    hint="Copy it again.",
                )
            start += size


def find_track(container: InputContainer, spec: str, *, stream: str, path: Path) -> av.stream.Stream:  # pyright: ignore
    """The track `spec` names: 'v:0' first video, 'a:1' second audio, 's:0' first subtitle track.

    Raises:
        ConfigError: the spec is malformed.
        DataError: there is no such track; names those there are.
    """
    letter, _, number = spec.partition(":")
    # isdigit() alone takes '²', which int() refuses.
    if letter not in _TYPES or not ((number or "0").isascii() and (number or "0").isdigit()):
        raise ConfigError(f"track '{spec}' is not of the form v:0, a:0 or s:0", where=f"stream '{stream}'")
    tracks = [candidate for candidate in container.streams if candidate.type == _TYPES[letter]]
    wanted = int(number or "0")
    if wanted >= len(tracks):
        raise DataError(
            f"no {_TYPES[letter]} track number {wanted}: the file has {len(tracks)}",
            where=f"stream '{stream}', {path}",
        )
    return tracks[wanted]


@dataclass(frozen=True)
class TrackPackets:
    """Packet stamps of one track, ordered by presentation time.

    Attributes:
        pts: int64, shape (n,), in units of `time_base`.
        duration: int64, shape (n,), likewise; 0 where unknown.
        time_base: seconds per unit.
        sizes: int64, shape (n,), bytes.
    """

    pts: NDArray[np.int64]
    duration: NDArray[np.int64]
    time_base: Fraction
    sizes: NDArray[np.int64]


def scan_packets(path: Path, spec: str, *, stream: str) -> TrackPackets:
    """Stamps of all packets of a track that will be shown.

    Raises:
        DataError: a packet without pts, a damaged one, an earlier end than the container declares (a
            truncated file), or no packets at all.
    """
    where = f"stream '{stream}', {path}"
    rows: list[tuple[int, int, int]] = []
    with open_container(path, stream=stream) as container:
        found = find_track(container, spec, stream=stream, path=path)
        # Read before the container closes: a stream of a closed container is a dangling pointer.
        time_base = found.time_base
        # Matroska declares the end of its longest track: for that all tracks are looked at.
        declared_end_s = _matroska_end_s(container)
        last_end_s = Fraction(0)
        try:
            for packet in container.demux() if declared_end_s else container.demux(found):
                if packet.size == 0 and packet.pts is None:
                    continue  # the flush packet that ends a demux
                if declared_end_s and packet.pts is not None and packet.time_base:
                    last_end_s = max(last_end_s, (packet.pts + (packet.duration or 0)) * packet.time_base)
                if packet.stream_index != found.index:
                    continue
                if packet.is_corrupt:
                    raise DataError(
                        f"packet {len(rows)} is cut short: the file is truncated or damaged",
                        where=where,
                        hint="Copy it again, or cut it at the last whole frame.",
                    )
                if packet.pts is None:
                    raise DataError(
                        f"packet {len(rows)} has no presentation stamp", where=where, hint="Remux it."
                    )
                if packet.is_discard:
                    continue  # an edit list hides it: decoders drop it as well
                rows.append((packet.pts, packet.duration or 0, packet.size))
        except (FFmpegError, OSError) as error:
            raise DataError(
                f"reading stopped ({_format_error(error)})", where=where, hint="Copy the file again."
            ) from None
    if last_end_s < declared_end_s - _DURATION_SLACK_S:
        raise DataError(
            f"{float(declared_end_s):.3f} s declared, {float(last_end_s):.3f} s present: the file is truncated",
            where=where,
            hint="Copy it again.",
        )
    if not rows or time_base is None:
        raise DataError("the track holds no packets", where=where)
    table = np.asarray(rows, np.int64)
    table = table[np.argsort(table[:, 0], kind="stable")]
    return TrackPackets(table[:, 0], table[:, 1], Fraction(time_base), table[:, 2])


def _matroska_end_s(container: InputContainer) -> Fraction:
    """The end of a Matroska file as its header declares it; 0 where it does not, and for other formats."""
    if "matroska" not in container.format.name or container.duration is None:
        return Fraction(0)
    return Fraction(container.duration, av.time_base)


def list_tracks(path: Path) -> list[tuple[str, str]]:
    """(track spec, codec name) of every video, audio and subtitle track. Raises DataError."""
    found: list[tuple[str, str]] = []
    with open_container(path, stream=path.name) as container:
        for letter, kind in _TYPES.items():
            of_kind = [candidate for candidate in container.streams if candidate.type == kind]
            for number, candidate in enumerate(of_kind):
                is_cover = bool(candidate.disposition & Disposition.attached_pic)
                if not is_cover:
                    found.append((f"{letter}:{number}", candidate.codec_context.name))
    return found


def _format_error(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
