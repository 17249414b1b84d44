"""Encoded pictures and tubelets to patches: RGB pixels, patch by patch in the order of the places they
take.
"""

from __future__ import annotations

import io
import struct
import zlib

import av
import numpy as np
import simplejpeg
from av.error import FFmpegError
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mmpack.errors import DataError
from mmpack.layout import PatchGrid
from mmpack.rows.decode.resize import resize_to_patches
from mmpack.samples.images import image_size

#: A picture of 16,384 x 16,384 takes 800 MB decoded; what claims more is damage or an attack.
MAX_PIXELS = 1 << 28
_COLOURS = ("YCbCr", "Gray", "RGB")
_PNG_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
    UnidentifiedImageError,
    Image.DecompressionBombError,
)


def decode_image(
    data: bytes, extension: str, size: tuple[int, int], grid: PatchGrid, out: NDArray[np.uint8], *, where: str
) -> None:
    """Decodes one JPEG or PNG into its patches. Pixels lie as they are stored: EXIF's turns are left aside,
    as in `size`.

    Gray becomes RGB, transparency is dropped, 16 bits lose their lower eight.

    Args:
        data: the encoded picture.
        extension: `png`; anything else is JPEG.
        size: (height, width) that it has to have.
        grid: of that size.
        out: uint8, (grid.tokens, side, side, 3), is written.
        where: for messages.

    Raises:
        DataError: damaged in any way its decoder notices, of another size, of more than MAX_PIXELS, or in the
            colours of print (CMYK), which no one translation to RGB fits.
    """
    if image_size(data, extension, where=where) != size or size[0] * size[1] > MAX_PIXELS:
        raise DataError(f"is not {size[1]} x {size[0]} pixels, or more than {MAX_PIXELS}", where=where)
    image = _decode_png(data, where) if extension == "png" else _decode_jpeg(data, grid, where)
    resize_to_patches(image, grid, out)


def decode_tubelet(
    data: bytes, size: tuple[int, int], grid: PatchGrid, out: NDArray[np.uint8], *, where: str
) -> None:
    """Decodes every frame of an mp4 into its patches.

    Args:
        data: the mp4.
        size: (height, width) that its frames have to have.
        grid: of that size.
        out: uint8, (frames, grid.tokens, side, side, 3), is written.
        where: for messages.

    Raises:
        DataError: damaged, of another size, of more than MAX_PIXELS, or with another number of frames.
    """
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError(f"claims more than {MAX_PIXELS} pixels", where=where)
    count = 0
    try:
        with av.open(io.BytesIO(data), "r", format="mp4") as container:
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise DataError("is of a codec that FFmpeg does not know", where=where)
            stream.thread_type = "NONE"  # one thread a tubelet costs the least; rows are made side by side
            # Damage is an error, not a smeared picture.
            stream.codec_context.options = {"err_detect": "explode"}
            for frame in container.decode(stream):
                if count == len(out) or (frame.height, frame.width) != size:
                    raise DataError(
                        f"has more than {len(out)} frames, or one of {frame.width} x {frame.height} pixels",
                        where=where,
                    )
                pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                resize_to_patches(pixels, grid, out[count])
                count += 1
    except (FFmpegError, IndexError, ValueError) as error:
        raise DataError(f"cannot be decoded as mp4 ({error})", where=where) from None
    if count != len(out):
        raise DataError(f"has {count} frames where {len(out)} are described", where=where)


def _decode_jpeg(data: bytes, grid: PatchGrid, where: str) -> NDArray[np.uint8]:
    """At the smallest of JPEG's own scales (1/8 to 8/8) that is no smaller than the grid."""
    try:
        colours = simplejpeg.decode_jpeg_header(data, strict=False)[2]
        if colours not in _COLOURS:
            raise DataError(
                f"is a JPEG in {colours}", where=where, hint="Convert it to RGB before building shards."
            )
        return simplejpeg.decode_jpeg(data, min_height=grid.height, min_width=grid.width)
    except (ValueError, MemoryError) as error:
        raise DataError(f"cannot be decoded as JPEG ({error})", where=where) from None


def _decode_png(data: bytes, where: str) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            if picture.mode.startswith("I"):
                gray = (np.asarray(picture).astype(np.int64) >> 8).astype(np.uint8)
                return np.repeat(gray[:, :, None], 3, axis=2)
            return np.asarray(picture.convert("RGB"))
    except _PNG_ERRORS as error:
        raise DataError(f"cannot be decoded as PNG ({error})", where=where) from None
