"""The sample kind `slice`: measures the members of a slice and compares them with its description."""

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

_IMAGE_EXTENSIONS = ("jpg", "png")
_AUDIO_EXTENSIONS = ("flac", "wav")
#: Timestamps in an mp4 are whole microseconds.
_TUBELET_STEP_NS = 1000


@dataclass(kw_only=True)
class SliceContent:
    """The measured content of a slice.

    Attributes:
        cameras: (name, height, width, frames) of each camera stream.
        audio: (name, audio samples, rate in Hz) of each audio stream.
        numeric: (name, rows) of each numeric stream.
        texts: all texts of all text streams.
        arrays: rows of each numeric stream, float64, shape (rows, columns).
        timestamps_ns: timestamps of the rows of each numeric stream and of the frames of each tubelet.
    """

    cameras: list[tuple[str, int, int, int]] = field(default_factory=list)
    audio: list[tuple[str, int, int]] = field(default_factory=list)
    numeric: list[tuple[str, int]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    arrays: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    timestamps_ns: dict[str, list[int]] = field(default_factory=dict)

    @property
    def metadata(self) -> SliceMetadata:
        """The metadata from which the layout counts the tokens of the slice."""
        return SliceMetadata(tuple(self.cameras), tuple(self.audio), tuple(self.numeric), tuple(self.texts))


def measure_slice(
    streams: Mapping[str, ImageDescription | AudioDescription | NumericDescription | TextDescription],
    members: Mapping[str, bytes],
) -> SliceContent:
    """Measures the members of a slice.

    Args:
        streams: description of each stream, by name.
        members: bytes of each member, by extension.

    Raises:
        IntegrityError: a member is damaged, is missing, is not described, or differs from its description.
        DataError: an image, a tubelet or audio is damaged.
    """
    described = {stream.member for stream in streams.values() if not isinstance(stream, TextDescription)} | {
        JSON_MEMBER
    }
    if described != members.keys():
        raise IntegrityError(
            f"the members are {sorted(members)}, but the description names {sorted(described)}"
        )
    content = SliceContent()
    arrays = decode_npz(members[NUMERIC_MEMBER], where="") if NUMERIC_MEMBER in members else {}
    for name, stream in streams.items():
        if isinstance(stream, ImageDescription):
            frames = _measure_image(name, stream, members)
            content.cameras.append((name, stream.height, stream.width, frames))
            content.timestamps_ns[name] = stream.timestamps_ns or []
        elif isinstance(stream, AudioDescription):
            _measure_audio(name, stream, members)
            content.audio.append((name, stream.samples, stream.rate_hz))
        elif isinstance(stream, NumericDescription):
            content.arrays[name], content.timestamps_ns[name] = _read_numeric(name, stream, arrays)
            content.numeric.append((name, stream.rows))
        else:
            content.texts += [text.text for text in stream.texts]
    if arrays:
        raise IntegrityError(f"no stream describes the arrays {sorted(arrays)}")
    return content


def _measure_image(name: str, stream: ImageDescription, members: Mapping[str, bytes]) -> int:
    """Checks the image or tubelet of a camera against its description and returns its number of frames."""
    extension = _member_extension(name, stream.member, (*_IMAGE_EXTENSIONS, "mp4"))
    data, where = members[stream.member], f"'{name}'"
    if extension != "mp4":
        size, frames = image_size(data, extension, where=where), 1
    else:
        height, width, times_ns = tubelet_info(data, where=where)
        size, frames = (height, width), len(times_ns)
        timestamps_ns = stream.timestamps_ns or []
        expected_ns = [timestamp_ns - timestamps_ns[0] for timestamp_ns in timestamps_ns]
        if len(expected_ns) != frames or any(
            abs(expected - actual) > _TUBELET_STEP_NS
            for expected, actual in zip(expected_ns, times_ns, strict=True)
        ):
            raise IntegrityError(f"the frames of '{name}' do not have the timestamps of the description")
    if size != (stream.height, stream.width):
        raise IntegrityError(
            f"the image of '{name}' is {size}, not {(stream.height, stream.width)} as described"
        )
    return frames


def _measure_audio(name: str, stream: AudioDescription, members: Mapping[str, bytes]) -> None:
    _member_extension(name, stream.member, _AUDIO_EXTENSIONS)
    info = read_audio_info(members[stream.member], where=f"'{name}'")
    actual = (info.frames, info.samplerate, info.channels)
    expected = (stream.samples, stream.rate_hz, stream.channels)
    if actual != expected:
        raise IntegrityError(
            f"the (samples, rate, channels) of the audio of '{name}' are {actual}, not {expected} as described"
        )


def _read_numeric(
    name: str, stream: NumericDescription, arrays: dict[str, NDArray[Any]]
) -> tuple[NDArray[np.float64], list[int]]:
    """Removes the rows and timestamps of one stream from `arrays` and returns them."""
    rows, timestamps_ns = arrays.pop(name, None), arrays.pop(f"{name}.t_ns", None)
    shape = (stream.rows, len(stream.columns))
    if (
        (stream.array, stream.member) != (name, NUMERIC_MEMBER)
        or (rows is None or rows.dtype != np.float64 or rows.shape != shape)
        or (timestamps_ns is None or timestamps_ns.dtype != np.int64 or timestamps_ns.shape != shape[:1])
    ):
        raise IntegrityError(f"the rows of '{name}' differ from the description")
    return rows, timestamps_ns.tolist()


def _member_extension(name: str, member: str, allowed: tuple[str, ...]) -> str:
    """Returns the extension of the member of a stream. Raises IntegrityError if it is not allowed."""
    extension = member.removeprefix(f"{name}.")
    if extension not in allowed:
        raise IntegrityError(f"the member of '{name}' cannot be named '{member}'")
    return extension
