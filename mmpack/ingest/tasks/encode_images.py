"""Frames to JPEG, frame windows to mp4 tubelets."""

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


# Pixel formats whose planes libjpeg-turbo takes as they are, by chroma subsampling.
_FULL_RANGE = {"yuvj420p", "yuvj422p", "yuvj444p"}
_LIMITED = {"yuv420p": "yuvj420p", "yuv422p": "yuvj422p", "yuv444p": "yuvj444p"}
# Matrices that JPEG's BT.601 planes agree with; 2 is unspecified, which decoders take for BT.601 as well.
_BT601 = {int(Colorspace.ITU601), int(Colorspace.SMPTE170M), 2, 6}
_TUBELET_TIME_BASE = Fraction(1, 1_000_000)


def encode_image(frame: Frame, quality: int) -> tuple[bytes, str, int, int]:
    """A frame as (bytes, extension, height, width); one that is encoded already is passed through untouched.

    Raises:
        DataError: the encoded picture is damaged in its header.
    """
    if frame.encoded is not None:
        height, width = image_size(frame.encoded, frame.extension, where=f"frame {frame.index}")
        return frame.encoded, frame.extension, height, width
    decoded = frame.decoded
    if decoded is None:
        raise DataError("a frame without content", where=f"frame {frame.index}")
    return _to_jpeg(decoded, quality), "jpg", decoded.height, decoded.width


def _to_jpeg(frame: av.VideoFrame, quality: int) -> bytes:
    """JPEG with libjpeg-turbo: planes go straight in where their matrix is JPEG's, through RGB where it is
    another (BT.709).
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
    """Consecutive frames as a short H.264 mp4, its time zero at the first, stamps to the microsecond.

    Returns (mp4, height, width). Chroma at half the resolution needs even sides: an odd one loses its last pixel to scaling.

    One thread and no macroblock-tree: with it x264's bytes depend on uninitialised memory, and a rebuilt
    shard would differ.
    """
    buffer = io.BytesIO()
    height, width = (max(2, side - side % 2) for side in (frames[0].height, frames[0].width))
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = _TUBELET_TIME_BASE
        # What the planes mean: without it a decoder takes full-range or BT.709 colours for others.
        stream.codec_context.color_range = frames[0].color_range
        stream.codec_context.colorspace = frames[0].colorspace
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        stream.options = {"preset": "veryfast", "crf": str(crf), "x264-params": "mbtree=0:threads=1"}
        for frame, stamp in zip(frames, t_ns, strict=True):
            picture = frame.reformat(
                width=width,
                height=height,
                format="yuv420p",
                src_color_range=frame.color_range,
                dst_color_range=frame.color_range,
                src_colorspace=frame.colorspace,
                dst_colorspace=frame.colorspace,
            )
            picture.pts = (stamp - t_ns[0]) // 1000
            picture.time_base = _TUBELET_TIME_BASE
            picture.pict_type = PictureType.NONE
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return buffer.getvalue(), height, width
