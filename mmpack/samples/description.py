"""Format version 1 of the `json` member of a sample, as types.

`mmpack.ingest` writes this member. Every reader of shards decodes it with these types, because the bytes are untrusted.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from mmpack.serialisation import Count, Int64, Record, decode_untrusted

DESCRIPTION_VERSION = 1
JSON_MEMBER = "json"
NUMERIC_MEMBER = "numeric.npz"
T = TypeVar("T", bound="SampleDescription")


class StreamDescription(Record, frozen=True, kw_only=True):
    """The fields that the descriptions of all streams of a slice share, except those of text streams.

    Fields:
        policy: policy that chose the items of the stream for the tick.
        t_ns: timestamp of the (first) item on the clock of the recording; tick + offset for a computed value.
        offset_ns: nominal offset from the tick.
        residual_ns: `t_ns` - tick - offset; for audio, `t_ns` - start of the time window; 0 for a computed value.
        tolerance_ns: largest allowed |residual|.
        member: extension of the member that holds the content of the stream.
    """

    policy: str
    t_ns: Int64
    offset_ns: Int64
    residual_ns: Int64
    tolerance_ns: Int64
    member: str


class ImageDescription(StreamDescription, frozen=True, kw_only=True):
    """The description of the image or tubelet of a camera.

    Fields:
        item: index of the (first) frame in the files of the camera.
        height, width: size in pixels.
        stamps_ns: timestamps of all frames of a tubelet; None for an image.
    """

    item: Count
    height: Count
    width: Count
    stamps_ns: list[Int64] | None = None


class AudioDescription(StreamDescription, frozen=True, kw_only=True):
    """The description of the audio of one stream in a slice.

    Fields:
        first_sample: index of the first audio sample in the recording.
        samples: number of audio samples per channel.
        rate_hz: audio samples per second.
        channels: number of channels.
    """

    first_sample: Count
    samples: Count
    rate_hz: Count
    channels: Count


class NumericDescription(StreamDescription, frozen=True, kw_only=True):
    """The description of the rows of a numeric stream in a slice.

    Fields:
        array: name of the array in numeric.npz, float64, shape (rows, columns); `ARRAY.t_ns` holds its timestamps, int64.
        rows: number of rows.
        columns: names of the columns.
    """

    array: str
    rows: Count
    columns: list[str]


class TextEntry(Record, frozen=True, kw_only=True):
    """One text with its start and end time, in ns on the clock of the recording."""

    t_ns: Int64
    end_ns: Int64
    text: str


class TextDescription(Record, frozen=True, kw_only=True):
    """The description of all texts of a stream in one slice."""

    policy: str
    texts: list[TextEntry]


class SampleDescription(Record, frozen=True, kw_only=True):
    """The fields that the descriptions of all samples share.

    Fields:
        version: version of this format.
        kind: sample kind.
        recording: name of the recording or source.
        ordinal: index of the sample in its recording or source.
    """

    version: Int64
    kind: str
    recording: str
    ordinal: Int64


class SliceDescription(SampleDescription, frozen=True, kw_only=True):
    """The description of a slice.

    Fields:
        run: index of the run; the slices of one run are consecutive.
        t_ns: the tick.
        clock: clock of all timestamps.
        residual_ns: largest |residual| of the items that were chosen by the policies "exact" and "nearest".
        streams: undecoded description of each stream, by name; :func:`decode_stream_description` decodes one.
        absent: reason of each optional stream that failed its rule, by name.
    """

    run: Int64
    t_ns: Int64
    clock: str
    residual_ns: Int64
    streams: dict[str, msgspec.Raw]
    absent: dict[str, str]


class StandAloneDescription(SampleDescription, frozen=True, kw_only=True):
    """The description of a stand-alone sample.

    Fields:
        source: the other plain columns of its row in the source.
    """

    source: dict[str, Any]


def read_description(data: bytes, type_: type[T], *, where: str) -> T:
    """Decodes the `json` member of a sample as `type_`. Raises IntegrityError."""
    return decode_untrusted(data, type_, noun="the json member", where=where)


def decode_stream_description(
    kind: str, value: msgspec.Raw, *, where: str
) -> ImageDescription | AudioDescription | NumericDescription | TextDescription:
    """Decodes the description of one stream of a slice.

    Args:
        kind: kind of the stream, as in the manifest.
        value: undecoded description.
        where: file or stream that error messages name.

    Raises:
        IntegrityError: the fields are not those of a stream of this kind.
    """
    types: dict[str, type[ImageDescription | AudioDescription | TextDescription]] = {
        "camera": ImageDescription,
        "audio": AudioDescription,
        "text": TextDescription,
    }
    return decode_untrusted(value, types.get(kind, NumericDescription), noun="the description", where=where)
