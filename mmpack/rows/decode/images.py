"""Decodes images and tubelets to RGB patches in the order of their positions."""

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

#: Largest number of pixels: 16,384 x 16,384 pixels take 800 MB decoded. A larger claim is damage or an attack.
MAX_PIXELS = 1 << 28
_COLOUR_SPACES = ("YCbCr", "Gray", "RGB")
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
    """Decodes one JPEG or PNG image into its patches.

    Pixels keep their stored order: the EXIF orientation is ignored, as in `size`. Gray becomes RGB, transparency is
    dropped, and 16-bit values lose their lower 8 bits.

    Args:
        data: encoded image.
        extension: `png` for PNG; any other value means JPEG.
        size: expected (height, width).
        grid: patch grid of that size.
        out: uint8 (grid.tokens, side, side, 3), output array.
        where: location for error messages.

    Raises:
        DataError: the image is damaged (as far as its decoder notices), has another size or more than MAX_PIXELS, or
            has the colours of print (CMYK), for which no single conversion to RGB is correct.
    """
    if image_size(data, extension, where=where) != size or size[0] * size[1] > MAX_PIXELS:
        raise DataError(
            f"the image is not {size[1]} x {size[0]} pixels, or has more than {MAX_PIXELS} pixels",
            where=where,
        )
    image = _decode_png(data, where) if extension == "png" else _decode_jpeg(data, grid, where)
    resize_to_patches(image, grid, out)


def decode_tubelet(
    data: bytes, size: tuple[int, int], grid: PatchGrid, out: NDArray[np.uint8], *, where: str
) -> None:
    """Decodes every frame of an mp4 into its patches.

    Args:
        data: encoded mp4.
        size: expected (height, width) of the frames.
        grid: patch grid of that size.
        out: uint8 (frames, grid.tokens, side, side, 3), output array.
        where: location for error messages.

    Raises:
        DataError: the tubelet is damaged, has another size, more than MAX_PIXELS, or another number of frames.
    """
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError(f"the frames have more than {MAX_PIXELS} pixels", where=where)
    count = 0
    try:
        with av.open(io.BytesIO(data), "r", format="mp4") as container:
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise DataError("FFmpeg does not know the video codec", where=where)
            stream.thread_type = "NONE"  # cheapest for a tubelet, because rows are decoded in parallel
            # Damaged data must raise an error instead of giving a distorted image.
            stream.codec_context.options = {"err_detect": "explode"}
            for frame in container.decode(stream):
                if count == len(out) or (frame.height, frame.width) != size:
                    raise DataError(
                        f"the tubelet has more than {len(out)} frames, or a frame of {frame.width} x {frame.height} pixels",
                        where=where,
                    )
                pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                resize_to_patches(pixels, grid, out[count])
                count += 1
    except (FFmpegError, IndexError, ValueError) as error:
        raise DataError(f"the tubelet cannot be decoded as mp4 ({error})", where=where) from None
    if count != len(out):
        raise DataError(f"the tubelet has {count} frames, but {len(out)} are described", where=where)


def _decode_jpeg(data: bytes, grid: PatchGrid, where: str) -> NDArray[np.uint8]:
    """Decodes a JPEG at the smallest of its built-in scales (1/8 to 8/8) that is not smaller than the grid."""
    try:
        colour_space = simplejpeg.decode_jpeg_header(data, strict=False)[2]
        if colour_space not in _COLOUR_SPACES:
            raise DataError(
                f"the JPEG has the colour space {colour_space}",
                where=where,
                hint="Convert the image to RGB before building shards.",
            )
        return simplejpeg.decode_jpeg(data, min_height=grid.height, min_width=grid.width)
    except (ValueError, MemoryError) as error:
        raise DataError(f"the image cannot be decoded as JPEG ({error})", where=where) from None


def _decode_png(data: bytes, where: str) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.mode.startswith("I"):
                gray = (np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)
                return np.repeat(gray[:, :, None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except _PNG_ERRORS as error:
        raise DataError(f"the image cannot be decoded as PNG ({error})", where=where) from None
