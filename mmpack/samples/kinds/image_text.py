"""The sample kind `image_text`: an image with its caption."""

from __future__ import annotations

from mmpack.layout import StandAloneMetadata
from mmpack.samples.images import image_size
from mmpack.samples.kinds.kind import StandAloneKind


def _measure(extension: str, data: bytes, where: str) -> StandAloneMetadata:
    return StandAloneMetadata(images=(image_size(data, extension, where=where),))


IMAGE_TEXT = StandAloneKind(
    name="image_text",
    noun="the image",
    extensions={"jpg": "jpg", "jpeg": "jpg", "png": "png"},
    measure=_measure,
)
