"""Pictures into an mp4 file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import av
from av.video.reformatter import ColorRange, Colorspace

from tools.drive.camera import Image

_KEYFRAME_EVERY = 10
# x264's macroblock tree reads memory that it has not set: even on one thread its bytes differ between runs.
_OPTIONS = {"preset": "veryfast", "crf": "20", "x264-params": "mbtree=0"}
_BT709 = 1  # primaries, transfer and matrix all have this number in ITU-T H.273


def write_video(path: Path, pictures: Iterable[Image], size: tuple[int, int], rate_hz: int) -> None:
    """H.264 (yuv420p, BT.709, limited range) at a constant rate; the same pictures give the same bytes.

    Args:
        path: the mp4 file.
        pictures: RGB, uint8, shape (height, width, 3).
        size: height and width in pixels, both even.
        rate_hz: frames per second.
    """
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as file:
        stream = file.add_stream("libx264", rate=rate_hz, options=_OPTIONS)
        context = stream.codec_context
        context.height, context.width = size
        context.pix_fmt = "yuv420p"
        context.thread_count = 1  # with several, x264's bytes depend on how many
        context.gop_size = _KEYFRAME_EVERY
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = ColorRange.MPEG
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            file.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)))
        file.mux(stream.encode())
