"""Encoding of frames as JPEG, and of consecutive frames as mp4 tubelets."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
import simplejpeg
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace

from mmpack.errors import DataError
from mmpack.samples.images import image_size

if TYPE_CHECKING:
    from mmpack.recording import Frame


# Pixel formats whose planes libjpeg-turbo accepts: full-range ones directly, limited-range ones after a conversion
# of the range.
_FULL_RANGE = {"yuvj420p", "yuvj422p", "yuvj444p"}
_LIMITED = {"yuv420p": "yuvj420p", "yuv422p": "yuvj422p", "yuv444p": "yuvj444p"}
# Colour matrices that equal the BT.601 of JPEG. 2 means unspecified, which decoders treat as BT.601; 6 is SMPTE 170M.
_BT601 = {int(Colorspace.ITU601), int(Colorspace.SMPTE170M), 2, 6}
_TUBELET_TIME_BASE = Fraction(1, 1_000_000)


def encode_image(frame: Frame, quality: int) -> tuple[bytes, str, int, int]:
    """Returns a frame as (bytes, extension, height, width); the bytes of an encoded frame are returned unchanged.

    Args:
        frame: encoded or decoded frame.
        quality: JPEG quality of a decoded frame, 1 to 100.

    Raises:
        DataError: the header of an encoded image is damaged.
    """
    if frame.encoded is not None:
        height, width = image_size(frame.encoded, frame.extension, where=f"frame {frame.index}")
        return frame.encoded, frame.extension, height, width
    decoded = frame.decoded
    if decoded is None:
        raise DataError("the frame has no content", where=f"frame {frame.index}")
    return _to_jpeg(decoded, quality), "jpg", decoded.height, decoded.width


def _to_jpeg(frame: av.VideoFrame, quality: int) -> bytes:
    """Encodes a decoded frame as JPEG with libjpeg-turbo.

    Planes with JPEG's colour matrix are encoded directly; frames with another matrix (BT.709) are converted to RGB.
    """
    name = frame.format.name
    is_full = name in _FULL_RANGE or (name in _LIMITED and int(frame.color_range) == int(ColorRange.JPEG))
    if int(frame.colorspace) in _BT601 and (is_full or name in _LIMITED):
        if not is_full:
            frame = frame.reformat(
                format=_LIMITED[name], src_color_range=ColorRange.MPEG, dst_color_range=ColorRange.JPEG
            )
        planes = [
            np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[
                : plane.height, : plane.width
            ]
            for plane in frame.planes
        ]
        return simplejpeg.encode_jpeg_yuv_planes(
            *(np.ascontiguousarray(plane) for plane in planes), quality=quality
        )
    if name in ("gray", "gray8"):
        gray = frame.to_ndarray(format="gray")[..., None]
        return simplejpeg.encode_jpeg(gray, quality=quality, colorspace="GRAY", colorsubsampling="Gray")
    rgb = frame.to_ndarray(format="rgb24")
    return simplejpeg.encode_jpeg(rgb, quality=quality, colorspace="RGB", colorsubsampling="420")


def encode_tubelet(
    frames: Sequence[av.VideoFrame], t_ns: Sequence[int], *, crf: int
) -> tuple[bytes, int, int]:
    """Encodes consecutive frames as a short H.264 mp4 with time zero at the first frame.

    Chroma has half the resolution, so the sides must be even: a frame with an odd side is scaled down by one pixel.

    Args:
        frames: decoded frames.
        t_ns: timestamp of each frame; stored with a resolution of one microsecond.
        crf: x264 quality, 0 (best) to 51.

    Returns:
        (mp4 bytes, height, width).
    """
    buffer = io.BytesIO()
    height, width = (max(2, side - side % 2) for side in (frames[0].height, frames[0].width))
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = _TUBELET_TIME_BASE
        # Without these fields a decoder misinterprets full-range or BT.709 colours.
        stream.codec_context.color_range = frames[0].color_range
        stream.codec_context.colorspace = frames[0].colorspace
        # x264 uses one thread and no macroblock tree. With the tree, its output depends on uninitialised memory, and a
        # rebuilt shard would differ.
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        stream.options = {"preset": "veryfast", "crf": str(crf), "x264-params": "mbtree=0:threads=1"}
        for frame, frame_ns in zip(frames, t_ns, strict=True):
            image = frame.reformat(
                width=width,
                height=height,
                format="yuv420p",
                src_color_range=frame.color_range,
                dst_color_range=frame.color_range,
                src_colorspace=frame.colorspace,
                dst_colorspace=frame.colorspace,
            )
            image.pts = (frame_ns - t_ns[0]) // 1000
            image.time_base = _TUBELET_TIME_BASE
            image.pict_type = PictureType.NONE
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return buffer.getvalue(), height, width
