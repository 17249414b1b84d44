"""Sample kinds: the metadata of a sample, measured on its members. Add a kind of stand-alone sample here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mmpack.errors import IntegrityError
from mmpack.layout import StandAloneMetadata
from mmpack.samples.description import JSON_MEMBER
from mmpack.samples.kinds.image_text import IMAGE_TEXT
from mmpack.samples.kinds.kind import StandAloneKind
from mmpack.samples.kinds.speech import SPEECH
from mmpack.samples.kinds.text import TEXT

TEXT_MEMBER = "txt"
KINDS: dict[str, StandAloneKind] = {kind.name: kind for kind in (TEXT, IMAGE_TEXT, SPEECH)}
"""Every kind of stand-alone sample, by name."""


def media_members(members: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
    """Returns (extension, bytes) of the media members of a stand-alone sample."""
    return [(name, data) for name, data in members.items() if name not in (TEXT_MEMBER, JSON_MEMBER)]


def find_kind(extension: str) -> tuple[StandAloneKind, str] | None:
    """Returns the kind whose media files have this extension, and the extension in shards; None if there is none."""
    return next(
        ((kind, kind.extensions[extension]) for kind in KINDS.values() if extension in kind.extensions), None
    )


def measure_stand_alone(kind: str, members: Mapping[str, bytes]) -> StandAloneMetadata:
    """Measures the metadata of a stand-alone sample, from which the layout counts its tokens.

    Args:
        kind: name of a kind in :data:`KINDS`.
        members: bytes of each member, by extension.

    Raises:
        IntegrityError: the kind is unknown, the text is not UTF-8, or the number of media members is wrong.
        DataError: the media member is damaged.
    """
    if kind not in KINDS:
        raise IntegrityError(f"samples of kind '{kind}' are not part of this format")
    try:
        text = members.get(TEXT_MEMBER, b"").decode("utf-8")
    except UnicodeDecodeError as error:
        raise IntegrityError(f"the text is not UTF-8 ({error})") from None
    media, measure = media_members(members), KINDS[kind].measure
    if len(media) != (measure is not None):
        raise IntegrityError(
            f"{len(media)} media members, but a '{kind}' sample has {int(measure is not None)}"
        )
    if measure is None:
        return StandAloneMetadata(text)
    [(extension, data)] = media
    return replace(measure(extension, data, KINDS[kind].noun), text=text)
