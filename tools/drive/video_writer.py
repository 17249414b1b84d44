"""Writes images to an mp4 file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import av
from av.video.reformatter import ColorRange, Colorspace

from tools.drive.camera import Image

_KEYFRAME_EVERY = 10
# The macroblock tree of x264 reads uninitialised memory: with it the bytes differ between runs, even with one thread.
_OPTIONS = {"preset": "veryfast", "crf": "20", "x264-params": "mbtree=0"}
_BT709 = 1  # code of primaries, transfer characteristics and matrix in ITU-T H.273


def write_video(path: Path, images: Iterable[Image], size: tuple[int, int], rate_hz: int) -> None:
    """Writes H.264 video (yuv420p, BT.709, limited range) with a constant rate; the same images give the same bytes.

    Args:
        path: path of the mp4 file.
        images: RGB, uint8, shape (height, width, 3).
        size: height and width in pixels, both even.
        rate_hz: frames per second.
    """
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as file:
        stream = file.add_stream("libx264", rate=rate_hz, options=_OPTIONS)
        context = stream.codec_context
        context.height, context.width = size
        context.pix_fmt = "yuv420p"
        context.thread_count = 1  # the bytes of x264 depend on the number of threads
        context.gop_size = _KEYFRAME_EVERY
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = ColorRange.MPEG
        for image in images:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            file.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)))
        file.mux(stream.encode())
