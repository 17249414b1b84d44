"""Format version 2 of the `json` member of a sample, as types.

`mmpack.ingest` writes this member. Every reader of shards decodes it with these types, because the bytes are untrusted.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from mmpack.errors import IntegrityError
from mmpack.serialisation import JSON_ERRORS, Count, Int64, Record, decode_untrusted, from_json

#: Raised with every change of the fields; samples of another version are rejected.
DESCRIPTION_VERSION = 2
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


class ImageDescription(StreamDescription, frozen=True, kw_only=True, omit_defaults=True):
    """The description of the image or tubelet of a camera.

    Fields:
        item: index of the (first) frame in the files of the camera.
        height, width: size in pixels.
        timestamps_ns: timestamps of all frames of a tubelet; None for an image.
    """

    item: Count
    height: Count
    width: Count
    timestamps_ns: list[Int64] | None = None


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


AnyStreamDescription = ImageDescription | AudioDescription | NumericDescription | TextDescription


class _DescriptionVersion(msgspec.Struct):
    """The version of a description, whatever its other fields are."""

    version: Int64


def encode_description(description: SampleDescription | AnyStreamDescription) -> bytes:
    """Encodes the description of a sample, or of one stream of a slice, as JSON with sorted keys and no spaces."""
    return msgspec.json.encode(description, order="sorted")


def read_description(data: bytes, type_: type[T], *, where: str) -> T:
    """Decodes the `json` member of a sample as `type_`.

    Raises:
        IntegrityError: the member is damaged, has other fields, or has another version.
    """
    try:
        description = decode_untrusted(data, type_, noun="the json member", where=where)
    except IntegrityError:
        # Another version may have other fields, and then its version is the better message.
        _check_version(_read_version(data), where=where)
        raise
    _check_version(description.version, where=where)
    return description


def _read_version(data: bytes) -> int:
    """Returns the version of a description; the version of this code if the description has none."""
    try:
        return from_json(data, _DescriptionVersion).version
    except JSON_ERRORS:
        return DESCRIPTION_VERSION


def _check_version(version: int, *, where: str) -> None:
    """Raises IntegrityError if `version` is not the version that this code reads."""
    if version != DESCRIPTION_VERSION:
        raise IntegrityError(
            f"the json member has format version {version}, but this version of mmpack reads version "
            f"{DESCRIPTION_VERSION}",
            where=where,
            hint="Build the shard set again.",
        )


def decode_stream_description(kind: str, value: msgspec.Raw, *, where: str) -> AnyStreamDescription:
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


def read_stream_description(
    raw: msgspec.Raw,
) -> ImageDescription | AudioDescription | NumericDescription | TextDescription:
    """Reads the description of one stream of a slice, whose kind follows from its keys. Raises IntegrityError."""
    keys = decode_untrusted(raw, dict[str, msgspec.Raw], noun="the stream description", where="")
    kind_by_key = {"texts": "text", "samples": "audio", "height": "camera"}
    kind = next((kind for key, kind in kind_by_key.items() if key in keys), "numeric")
    return decode_stream_description(kind, raw, where="")
