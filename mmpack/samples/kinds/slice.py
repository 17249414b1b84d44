"""A time slice of a recording: members measured and compared with the description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import IntegrityError
from mmpack.layout import SliceMetadata
from mmpack.samples.audio import read_audio_info
from mmpack.samples.description import (
    JSON_MEMBER,
    NUMERIC_MEMBER,
    AudioDescription,
    ImageDescription,
    NumericDescription,
    TextDescription,
)
from mmpack.samples.images import image_size, tubelet_info
from mmpack.samples.npz import decode_npz

_PICTURES = ("jpg", "png")
_SOUNDS = ("flac", "wav")
#: Stamps in an mp4 are whole microseconds.
_TUBELET_STEP_NS = 1000


@dataclass
class SliceContent:
    """The measured content of a slice.

    Attributes:
        cameras, audio, numeric, texts: what :class:`mmpack.layout.SliceMetadata` is made of.
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
    def metadata(self) -> SliceMetadata:
        """For the layout."""
        return SliceMetadata(tuple(self.cameras), tuple(self.audio), tuple(self.numeric), tuple(self.texts))


def measure_slice(
    streams: Mapping[str, ImageDescription | AudioDescription | NumericDescription | TextDescription],
    members: Mapping[str, bytes],
) -> SliceContent:
    """The content of a slice's members.

    Args:
        streams: what the slice says of its streams.
        members: bytes by extension.

    Raises:
        IntegrityError, DataError: a member is damaged, missing, not described, or not as described.
    """
    named = {stream.member for stream in streams.values() if not isinstance(stream, TextDescription)} | {
        JSON_MEMBER
    }
    if named != members.keys():
        raise IntegrityError(f"members {sorted(members)} where {sorted(named)} are described")
    content = SliceContent()
    arrays = decode_npz(members[NUMERIC_MEMBER], where="") if NUMERIC_MEMBER in members else {}
    for name, stream in streams.items():
        if isinstance(stream, ImageDescription):
            frames = _measure_image(name, stream, members)
            content.cameras.append((name, stream.height, stream.width, frames))
            content.stamps_ns[name] = stream.stamps_ns or []
        elif isinstance(stream, AudioDescription):
            _measure_audio(name, stream, members)
            content.audio.append((name, stream.samples, stream.rate_hz))
        elif isinstance(stream, NumericDescription):
            content.arrays[name], content.stamps_ns[name] = _read_numeric(name, stream, arrays)
            content.numeric.append((name, stream.rows))
        else:
            content.texts += [text.text for text in stream.texts]
    if arrays:
        raise IntegrityError(f"arrays {sorted(arrays)} that no stream describes")
    return content


def _measure_image(name: str, stream: ImageDescription, members: Mapping[str, bytes]) -> int:
    """The number of frames."""
    extension = _member_extension(name, stream.member, (*_PICTURES, "mp4"))
    data, where = members[stream.member], f"'{name}'"
    if extension != "mp4":
        size, frames = image_size(data, extension, where=where), 1
    else:
        height, width, times_ns = tubelet_info(data, where=where)
        size, frames = (height, width), len(times_ns)
        described = [stamp - (stream.stamps_ns or [0])[0] for stamp in stream.stamps_ns or []]
        if len(described) != frames or any(
            abs(one - other) > _TUBELET_STEP_NS for one, other in zip(described, times_ns, strict=True)
        ):
            raise IntegrityError(f"the frames of '{name}' are not at the stamps described")
    if size != (stream.height, stream.width):
        raise IntegrityError(f"the picture of '{name}' has another size than described")
    return frames


def _measure_audio(name: str, stream: AudioDescription, members: Mapping[str, bytes]) -> None:
    _member_extension(name, stream.member, _SOUNDS)
    info = read_audio_info(members[stream.member])
    found = (info.frames, info.samplerate, info.channels)
    if found != (stream.samples, stream.rate_hz, stream.channels):
        raise IntegrityError(f"the sound of '{name}' has {info.frames} samples, not as described")


def _read_numeric(
    name: str, stream: NumericDescription, arrays: dict[str, NDArray[Any]]
) -> tuple[NDArray[np.float64], list[int]]:
    rows, stamps = arrays.pop(name, None), arrays.pop(f"{name}.t_ns", None)
    shape = (stream.rows, len(stream.columns))
    if (
        (stream.array, stream.member) != (name, NUMERIC_MEMBER)
        or (rows is None or rows.dtype != np.float64 or rows.shape != shape)
        or (stamps is None or stamps.dtype != np.int64 or stamps.shape != shape[:1])
    ):
        raise IntegrityError(f"the rows of '{name}' are not as described")
    return rows, stamps.tolist()


def _member_extension(name: str, member: str, allowed: tuple[str, ...]) -> str:
    extension = member.removeprefix(f"{name}.")
    if extension not in allowed:
        raise IntegrityError(f"the member of '{name}' is '{member}'")
    return extension
