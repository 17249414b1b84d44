"""A time slice of a recording: members measured and compared with the description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import IntegrityError
from mmpack.layout import SliceFacts
from mmpack.samples.audio import _sound_info
from mmpack.samples.description import JSON_MEMBER, NUMERIC_MEMBER, Picture, Rows, Sound, Texts
from mmpack.samples.images import picture_size, tubelet_facts
from mmpack.samples.npz import decode_npz

_PICTURES = ("jpg", "png")
_SOUNDS = ("flac", "wav")
#: Stamps in an mp4 are whole microseconds.
_TUBELET_STEP_NS = 1000


@dataclass
class Content:
    """The measured content of a slice.

    Attributes:
        cameras, audio, numeric, texts: what :class:`mmpack.layout.SliceFacts` is made of.
        arrays: rows of each numeric stream, float64, shape (rows, columns).
        stamps_ns: of those rows, and of the frames of tubelets.
    """

    cameras: list[tuple[str, int, int, int]] = field(default_factory=list)
    audio: list[tuple[str, int, int]] = field(default_factory=list)
    numeric: list[tuple[str, int]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    arrays: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    stamps_ns: dict[str, list[int]] = field(default_factory=dict)

    @property
    def facts(self) -> SliceFacts:
        """For the layout."""
        return SliceFacts(tuple(self.cameras), tuple(self.audio), tuple(self.numeric), tuple(self.texts))


def slice_content(
    streams: Mapping[str, Picture | Sound | Rows | Texts], members: Mapping[str, bytes]
) -> Content:
    """The content of a slice's members.

    Args:
        streams: what the slice says of its streams.
        members: bytes by extension.

    Raises:
        IntegrityError, DataError: a member is damaged, missing, not described, or not as described.
    """
    named = {stream.member for stream in streams.values() if not isinstance(stream, Texts)} | {JSON_MEMBER}
    if named != members.keys():
        raise IntegrityError(f"members {sorted(members)} where {sorted(named)} are described")
    content = Content()
    arrays = decode_npz(members[NUMERIC_MEMBER], where="") if NUMERIC_MEMBER in members else {}
    for name, stream in streams.items():
        if isinstance(stream, Picture):
            frames = _picture(name, stream, members)
            content.cameras.append((name, stream.height, stream.width, frames))
            content.stamps_ns[name] = stream.stamps_ns or []
        elif isinstance(stream, Sound):
            _sound(name, stream, members)
            content.audio.append((name, stream.samples, stream.rate_hz))
        elif isinstance(stream, Rows):
            content.arrays[name], content.stamps_ns[name] = _rows(name, stream, arrays)
            content.numeric.append((name, stream.rows))
        else:
            content.texts += [text.text for text in stream.texts]
    if arrays:
        raise IntegrityError(f"arrays {sorted(arrays)} that no stream describes")
    return content


def _picture(name: str, stream: Picture, members: Mapping[str, bytes]) -> int:
    """The number of frames."""
    extension = _extension(name, stream.member, (*_PICTURES, "mp4"))
    data, where = members[stream.member], f"'{name}'"
    if extension != "mp4":
        size, frames = picture_size(data, extension, where=where), 1
    else:
        height, width, times_ns = tubelet_facts(data, where=where)
        size, frames = (height, width), len(times_ns)
        described = [stamp - (stream.stamps_ns or [0])[0] for stamp in stream.stamps_ns or []]
        if len(described) != frames or any(
            abs(one - other) > _TUBELET_STEP_NS for one, other in zip(described, times_ns, strict=True)
        ):
            raise IntegrityError(f"the frames of '{name}' are not at the stamps described")
    if size != (stream.height, stream.width):
        raise IntegrityError(f"the picture of '{name}' has another size than described")
    return frames


def _sound(name: str, stream: Sound, members: Mapping[str, bytes]) -> None:
    _extension(name, stream.member, _SOUNDS)
    info = _sound_info(members[stream.member])
    found = (info.frames, info.samplerate, info.channels)
    if found != (stream.samples, stream.rate_hz, stream.channels):
        raise IntegrityError(f"the sound of '{name}' has {info.frames} samples, not as described")


def _rows(name: str, stream: Rows, arrays: dict[str, NDArray[Any]]) -> tuple[NDArray[np.float64], list[int]]:
    rows, stamps = arrays.pop(name, None), arrays.pop(f"{name}.t_ns", None)
    shape = (stream.rows, len(stream.columns))
    if (
        (stream.array, stream.member) != (name, NUMERIC_MEMBER)
        or (rows is None or rows.dtype != np.float64 or rows.shape != shape)
        or (stamps is None or stamps.dtype != np.int64 or stamps.shape != shape[:1])
    ):
        raise IntegrityError(f"the rows of '{name}' are not as described")
    return rows, stamps.tolist()


def _extension(name: str, member: str, known: tuple[str, ...]) -> str:
    extension = member.removeprefix(f"{name}.")
    if extension not in known:
        raise IntegrityError(f"the member of '{name}' is '{member}'")
    return extension
