"""Sample kinds: what the members of a sample are, measured on the members themselves."""

from __future__ import annotations

from collections.abc import Mapping

from mmpack.errors import IntegrityError
from mmpack.layout import ImageTextMetadata, SampleMetadata, SpeechMetadata, TextMetadata
from mmpack.samples.audio import read_audio_info
from mmpack.samples.description import JSON_MEMBER
from mmpack.samples.images import image_size


def measure_stand_alone(kind: str, members: Mapping[str, bytes]) -> SampleMetadata:
    """What the layout counts of a stand-alone sample. Raises IntegrityError, DataError."""
    try:
        text = members.get("txt", b"").decode("utf-8")
    except UnicodeDecodeError as error:
        raise IntegrityError(f"its text is not UTF-8 ({error})") from None
    media = [(name, data) for name, data in members.items() if name not in ("txt", JSON_MEMBER)]
    if len(media) != (kind != "text"):
        raise IntegrityError(f"{len(media)} media members, and '{kind}' has {int(kind != 'text')}")
    if kind == "text":
        return TextMetadata(text)
    extension, data = media[0]
    if kind == "image_text":
        return ImageTextMetadata(*image_size(data, extension, where="its picture"), text)
    info = read_audio_info(data)
    return SpeechMetadata(info.frames, info.samplerate, text)
