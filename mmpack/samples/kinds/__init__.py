"""Sample kinds: what the members of a sample are, measured on the members themselves."""

from __future__ import annotations

from collections.abc import Mapping

from mmpack.errors import IntegrityError
from mmpack.layout import Facts, ImageTextFacts, SpeechFacts, TextFacts
from mmpack.samples.audio import _sound_info
from mmpack.samples.description import JSON_MEMBER
from mmpack.samples.images import picture_size


def stand_alone_facts(kind: str, members: Mapping[str, bytes]) -> Facts:
    """What the layout counts of a stand-alone sample. Raises IntegrityError, DataError."""
    try:
        text = members.get("txt", b"").decode("utf-8")
    except UnicodeDecodeError as error:
        raise IntegrityError(f"its text is not UTF-8 ({error})") from None
    media = [(name, data) for name, data in members.items() if name not in ("txt", JSON_MEMBER)]
    if len(media) != (kind != "text"):
        raise IntegrityError(f"{len(media)} media members, and '{kind}' has {int(kind != 'text')}")
    if kind == "text":
        return TextFacts(text)
    extension, data = media[0]
    if kind == "image_text":
        return ImageTextFacts(*picture_size(data, extension, where="its picture"), text)
    info = _sound_info(data)
    return SpeechFacts(info.frames, info.samplerate, text)
