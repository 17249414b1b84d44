"""The `json` member of a sample, as types: this is its format, version 1.

`mmpack.ingest` writes it; whatever reads shards that it did not write itself reads it through these.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from mmpack.serialisation import Count, Int64, decode_untrusted
from mmpack.settings import Settings

DESCRIPTION_VERSION = 1
JSON_MEMBER = "json"
NUMERIC_MEMBER = "numeric.npz"
T = TypeVar("T", bound="SampleDescription")


class StreamDescription(Settings, frozen=True, kw_only=True):
    """What every stream of a slice but texts says of itself.

    Fields:
        policy: how it was matched.
        t_ns: stamp of the (first) item, on the recording's clock; of tick + offset for a computed value.
        offset_ns: nominal offset to the tick.
        residual_ns: t_ns less tick and offset; for sound, less the window's start; 0 for a computed value.
        tolerance_ns: largest |residual|.
        member: the extension that holds it.
    """

    policy: str
    t_ns: Int64
    offset_ns: Int64
    residual_ns: Int64
    tolerance_ns: Int64
    member: str


class ImageDescription(StreamDescription, frozen=True, kw_only=True):
    """A camera's picture or tubelet.

    Fields:
        item: number of the (first) frame in the camera's files.
        height, width: pixels.
        stamps_ns: of every frame of a tubelet; none for a picture.
    """

    item: Count
    height: Count
    width: Count
    stamps_ns: list[Int64] | None = None


class AudioDescription(StreamDescription, frozen=True, kw_only=True):
    """A stretch of sound.

    Fields:
        first_sample: number of its first sample in the recording.
        samples: per channel.
        rate_hz: samples a second.
        channels: of them.
    """

    first_sample: Count
    samples: Count
    rate_hz: Count
    channels: Count


class NumericDescription(StreamDescription, frozen=True, kw_only=True):
    """Rows of a numeric stream.

    Fields:
        array: its name in numeric.npz, float64, shape (rows, columns); `ARRAY.t_ns` holds the stamps, int64.
        rows: of them.
        columns: their names.
    """

    array: str
    rows: Count
    columns: list[str]


class TextEntry(Settings, frozen=True, kw_only=True):
    """One text and when it was."""

    t_ns: Int64
    end_ns: Int64
    text: str


class TextDescription(Settings, frozen=True, kw_only=True):
    """All texts of a stream in one slice."""

    policy: str
    texts: list[TextEntry]


class SampleDescription(Settings, frozen=True, kw_only=True):
    """What every sample says: version of this format, kind, recording or source, and number in it."""

    version: Int64
    kind: str
    recording: str
    ordinal: Int64


class SliceDescription(SampleDescription, frozen=True, kw_only=True):
    """A slice.

    Fields:
        run: slices of one run are consecutive.
        t_ns: the tick.
        clock: that all stamps are on.
        residual_ns: largest |residual| of its exact and nearest items.
        streams: by name; which of the classes above a stream is follows from its kind, see :func:`stream_of`.
        absent: optional streams that failed their rule, and why.
    """

    run: Int64
    t_ns: Int64
    clock: str
    residual_ns: Int64
    streams: dict[str, msgspec.Raw]
    absent: dict[str, str]


class StandAloneDescription(SampleDescription, frozen=True, kw_only=True):
    """A stand-alone sample; `source` has the other plain columns of its row."""

    source: dict[str, Any]


def read_description(data: bytes, kind: type[T], *, where: str) -> T:
    """The `json` member of a sample. Raises IntegrityError."""
    return decode_untrusted(data, kind, noun="its json member", where=where)


def decode_stream_description(
    kind: str, value: msgspec.Raw, *, where: str
) -> ImageDescription | AudioDescription | NumericDescription | TextDescription:
    """One of a slice's streams.

    Args:
        kind: of the stream, as in the manifest.
        facts: what the description says of it.
        where: for messages.

    Raises:
        IntegrityError: it does not say what a stream of that kind says.
    """
    known: dict[str, type[ImageDescription | AudioDescription | TextDescription]] = {
        "camera": ImageDescription,
        "audio": AudioDescription,
        "text": TextDescription,
    }
    return decode_untrusted(value, known.get(kind, NumericDescription), noun="its description", where=where)
