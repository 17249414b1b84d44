"""Sizes of encoded images and tubelets, read without decoding."""

from __future__ import annotations

import io
import struct

import av
import simplejpeg
from av.error import FFmpegError

from mmpack.errors import DataError

#: The limit of JPEG. An image of another format that claims a longer side is considered damaged.
MAX_IMAGE_SIDE = 65_535
_JPEG_SCAN, _JPEG_END = 0xDA, b"\xff\xd9"
_PNG_END = b"IEND\xae\x42\x60\x82"


def image_size(data: bytes, extension: str, *, where: str) -> tuple[int, int]:
    """Returns (height, width) of an encoded image from its header, and checks that the file is complete.

    Args:
        data: bytes of the file.
        extension: "png"; every other extension is read as JPEG.
        where: file or stream that error messages name.

    Raises:
        DataError: the header is invalid, no image data follows it, the file is truncated, or a side is longer than
            MAX_IMAGE_SIDE pixels.
    """
    try:
        height, width = _png_size(data) if extension == "png" else _jpeg_size(data)
    except (ValueError, KeyError, struct.error) as error:
        raise DataError(f"is not a {extension.upper()} image ({error})", where=where) from None
    if not (0 < height <= MAX_IMAGE_SIDE and 0 < width <= MAX_IMAGE_SIDE):
        raise DataError(
            f"claims {width} x {height} pixels, but each side must have 1 to {MAX_IMAGE_SIDE}", where=where
        )
    # Cameras append their own bytes after the end marker, so the search for the marker starts at the end of the file.
    start, end = (data.find(b"IDAT"), _PNG_END) if extension == "png" else (_jpeg_scan(data), _JPEG_END)
    if start < 0 or data.rfind(end, start) < 0:
        raise DataError("is truncated", where=where, hint="Copy the image again, or remove it.")
    return height, width


def _png_size(data: bytes) -> tuple[int, int]:
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        raise ValueError("no PNG header")
    width, height = struct.unpack(">II", data[16:24])
    return height, width


def _jpeg_size(data: bytes) -> tuple[int, int]:
    height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    return int(height), int(width)


def _jpeg_scan(data: bytes) -> int:
    """Returns the offset of the first scan, or -1 without one.

    End markers before the first scan may belong to an embedded preview image.
    """
    offset = 2
    while offset + 4 <= len(data) and data[offset] == 0xFF:
        if data[offset + 1] == 0xFF:  # a fill byte
            offset += 1
        elif data[offset + 1] == _JPEG_SCAN:
            return offset
        else:
            offset += 2 + int.from_bytes(data[offset + 2 : offset + 4], "big")
    return -1


def tubelet_info(data: bytes, *, where: str) -> tuple[int, int, list[int]]:
    """Returns (height, width, times_ns) of an mp4 without decoding it. Raises DataError.

    `times_ns` are the times of all frames relative to the first one, in ns, exact to the microsecond.
    """
    try:
        with av.open(io.BytesIO(data), "r", format="mp4") as container:
            stream = container.streams.video[0]
            packets = [packet for packet in container.demux(stream) if packet.size]
            times_ns = sorted(round((packet.pts or 0) * packet.time_base * 10**9) for packet in packets)
            return stream.height, stream.width, [time_ns - times_ns[0] for time_ns in times_ns]
    except (FFmpegError, IndexError, ValueError) as error:
        raise DataError(f"is not an mp4 with a video stream ({error})", where=where) from None
