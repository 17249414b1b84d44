"""Pictures to bytes: what is encoded passes through, video frames become JPEG, runs of them short mp4
tubelets.
"""

from __future__ import annotations

import io
import struct

import av
import simplejpeg
from av.error import FFmpegError

from mmpack.errors import DataError

#: JPEG's own limit; larger pictures of other kinds are damage, not pictures.
MAX_IMAGE_SIDE = 65_535
_JPEG_SCAN, _JPEG_END = 0xDA, b"\xff\xd9"
_PNG_END = b"IEND\xae\x42\x60\x82"


def image_size(data: bytes, extension: str, *, where: str) -> tuple[int, int]:
    """(height, width) of an encoded picture, from its header; that it ends as pictures do is looked at too.

    Raises:
        DataError: no such header, no picture behind it, cut short, or sides beyond MAX_SIDE pixels.
    """
    try:
        height, width = _png_size(data) if extension == "png" else _jpeg_size(data)
    except (ValueError, KeyError, struct.error) as error:
        raise DataError(f"is not a {extension.upper()} picture ({error})", where=where) from None
    if not (0 < height <= MAX_IMAGE_SIDE and 0 < width <= MAX_IMAGE_SIDE):
        raise DataError(
            f"claims {width} x {height} pixels, and {MAX_IMAGE_SIDE} a side are the most", where=where
        )
    # Cameras append bytes of their own behind the end, so the end is searched for from behind.
    start, end = (data.find(b"IDAT"), _PNG_END) if extension == "png" else (_jpeg_scan(data), _JPEG_END)
    if start < 0 or data.rfind(end, start) < 0:
        raise DataError("is cut short", where=where, hint="Copy the picture again, or remove it.")
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
    """Where the first scan begins, -1 if none does. Up to there an end may be that of a preview within."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        if data[place + 1] == 0xFF:  # a fill byte
            place += 1
        elif data[place + 1] == _JPEG_SCAN:
            return place
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return -1


def tubelet_info(data: bytes, *, where: str) -> tuple[int, int, list[int]]:
    """(height, width, time of each frame after the first in ns, exact to the microsecond) of an mp4, without
    decoding it. Raises DataError.
    """
    try:
        with av.open(io.BytesIO(data), "r", format="mp4") as container:
            stream = container.streams.video[0]
            packets = [packet for packet in container.demux(stream) if packet.size]
            stamps = sorted(round((packet.pts or 0) * packet.time_base * 10**9) for packet in packets)
            return stream.height, stream.width, [stamp - stamps[0] for stamp in stamps]
    except (FFmpegError, IndexError, ValueError) as error:
        raise DataError(f"is not an mp4 with a picture ({error})", where=where) from None
