"""Sample kinds: the metadata of a sample, measured on its members."""

from __future__ import annotations

from collections.abc import Mapping

from mmpack.errors import IntegrityError
from mmpack.layout import ImageTextMetadata, SampleMetadata, SpeechMetadata, TextMetadata
from mmpack.samples.audio import read_audio_info
from mmpack.samples.description import JSON_MEMBER
from mmpack.samples.images import image_size


def measure_stand_alone(kind: str, members: Mapping[str, bytes]) -> SampleMetadata:
    """Measures the metadata of a stand-alone sample, from which the layout counts its tokens.

    Args:
        kind: "text", "image_text" or "speech".
        members: bytes of each member, by extension.

    Raises:
        IntegrityError: the text is not UTF-8, the number of media members is wrong, or the audio cannot be opened.
        DataError: the image is damaged.
    """
    try:
        text = members.get("txt", b"").decode("utf-8")
    except UnicodeDecodeError as error:
        raise IntegrityError(f"the text is not UTF-8 ({error})") from None
    media = [(name, data) for name, data in members.items() if name not in ("txt", JSON_MEMBER)]
    if len(media) != (kind != "text"):
        raise IntegrityError(f"{len(media)} media members, but a '{kind}' sample has {int(kind != 'text')}")
    if kind == "text":
        return TextMetadata(text)
    extension, data = media[0]
    if kind == "image_text":
        return ImageTextMetadata(*image_size(data, extension, where="the image"), text)
    info = read_audio_info(data)
    return SpeechMetadata(info.frames, info.samplerate, text)
