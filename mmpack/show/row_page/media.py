"""Images, audio and numeric values of a row as HTML and SVG."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from mmpack.layout import Layout
from mmpack.rows.row import Row
from mmpack.show.mask.row_view import TokenSpan
from mmpack.show.row_page.markup import Markup, svg, svg_bar, tag

_JPEG_QUALITY = 80
_AUDIO_HEIGHT = 40


def image_element(row: Row, image: int, width: int) -> Markup:
    """Assembles an image of the row from its patches and returns it as an `img`.

    Args:
        row: row that contains the image.
        image: index of the image in the row.
        width: smallest width in pixels; a larger image is downscaled by the largest whole factor that keeps this width.
    """
    start, stop = row.image_spans[image].tolist()
    rows, cols = row.image_grids[image].tolist()
    first, last = np.searchsorted(row.patch_index, (start, stop)).tolist()
    patches = row.patches[first:last]
    if len(patches) != rows * cols or not patches.size:
        return tag("span", "no pixels", class_="missing")
    side = patches.shape[1]
    pixels = patches.reshape(rows, cols, side, side, 3).transpose(0, 2, 1, 3, 4)
    pixels = downscale(pixels.reshape(rows * side, cols * side, 3), width)
    data = base64.b64encode(simplejpeg.encode_jpeg(pixels, quality=_JPEG_QUALITY, colorspace="RGB")).decode()
    title = f"{rows} × {cols} patches of {side} × {side} pixels, positions {start:,} to {stop - 1:,}"
    # An img has no end tag.
    return Markup(
        tag(
            "img",
            src=f"data:image/jpeg;base64,{data}",
            alt=title,
            title=title,
            width=pixels.shape[1],
            height=pixels.shape[0],
        ).removesuffix("</img>")
    )


def downscale(pixels: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Downscales pixels, uint8 (height, width, 3), by the largest whole factor that keeps them at least `width` wide.

    Each new pixel is the mean of a square; incomplete squares at the right and the bottom are dropped.
    """
    step = max(1, pixels.shape[1] // width)
    rows, cols = pixels.shape[0] // step, pixels.shape[1] // step
    if step == 1 or not rows:
        return np.ascontiguousarray(pixels)
    squares = pixels[: rows * step, : cols * step].reshape(rows, step, cols, step, 3)
    return squares.mean(axis=(1, 3)).round().astype(np.uint8)


def audio_element(row: Row, layout: Layout, span: TokenSpan) -> Markup:
    """Returns the audio of a span: its waveform if the row has audio samples, and a strip of its codec codes."""
    codebooks, size = layout.config.audio.codebooks, layout.config.audio.codebook_size
    first = layout.vocabulary.range("audio").start
    codes = (row.input_ids[span.start : span.stop] - first).reshape(-1, codebooks) % size
    frames = len(codes)
    seconds = frames * layout.config.audio.hop / layout.config.audio.sample_rate_hz
    title = f"{frames:,} frames of {codebooks} code(s), {seconds:.2f} s, positions {span.start:,} to {span.stop - 1:,}"
    height = _AUDIO_HEIGHT / codebooks
    # Similar code numbers have similar colours; the colours have no other meaning.
    strip = [
        tag(
            "rect",
            x=frame,
            y=codebook * height,
            width=1.02,
            height=height,
            fill=f"hsl({265 - 70 * int(code) / size:.0f} 55% {22 + 60 * int(code) / size:.0f}%)",
        )
        for frame, frame_codes in enumerate(codes)
        for codebook, code in enumerate(frame_codes)
    ]
    codes_svg = svg(frames, _AUDIO_HEIGHT, tag("title", title), *strip, class_="codes")
    selection = slice(*np.searchsorted(row.audio_index, (span.start, span.stop)))
    samples = row.audio_frames[selection]
    return tag("div", waveform(samples) if samples.size else Markup(""), codes_svg, class_="audio")


def waveform(frames: NDArray[np.float32]) -> Markup:
    """Returns an SVG polygon between the highest and the lowest audio sample of each codec frame.

    `frames`: float32 (frames, samples per frame).
    """
    high, low = frames.max(axis=1), frames.min(axis=1)
    amplitude = max(float(np.abs(frames).max()), 1e-6)
    outline = [(frame + 0.5, 1 - float(value) / amplitude) for frame, value in enumerate(high)]
    outline += [
        (frame + 0.5, 1 - float(value) / amplitude) for frame, value in reversed(list(enumerate(low)))
    ]
    points = " ".join(f"{x:.1f},{y:.3f}" for x, y in outline)
    return svg(len(frames), 2, tag("polygon", points=points), class_="wave")


def sparkline(
    columns: Sequence[NDArray[np.float64]], kind: str, *, title: str, height: float = 100.0
) -> Markup:
    """Returns an SVG of values over the slices of a document: one thin line per value of a row, on a common scale.

    Args:
        columns: rows of values of each slice, float64 (rows, width); rows are spread evenly over their slice.
        kind: CSS class of the lines.
        title: tooltip.
        height: height in user units.
    """
    x = np.concatenate(
        [column + (np.arange(len(rows)) + 0.5) / max(len(rows), 1) for column, rows in enumerate(columns)]
    )
    y = np.concatenate([rows for rows in columns if len(rows)] or [np.empty((0, 0))])
    low, high = _find_bounds(columns)
    scale = (high - low) or 1.0
    heights = (1 - (y - low) / scale) * height * 0.88 + height * 0.06
    lines = [
        tag("path", d=path, class_=f"line {kind}", vector_effect="non-scaling-stroke")
        for path in (_format_path(x, values) for values in heights.T)
        if path
    ]
    ticks = [svg_bar(edge, edge + 0.0, 0, height, "grid") for edge in range(len(columns) + 1)]
    return svg(len(columns), height, tag("title", title), *ticks, *lines, class_="spark")


def format_value_range(columns: Sequence[NDArray[np.float64]]) -> str:
    """Formats the smallest and the largest finite value, the bottom and the top of :func:`sparkline`."""
    low, high = _find_bounds(columns)
    return f"{low:.3g} to {high:.3g}"


def _find_bounds(columns: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    values = np.concatenate([rows.ravel() for rows in columns])
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def _format_path(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """Returns an SVG path with a gap where a value is missing (NaN); each part of the path starts with a short dash."""
    parts: list[str] = []
    has_previous = False
    for position, value in zip(x.tolist(), y.tolist(), strict=True):
        is_present = value == value
        if is_present:
            parts.append(f"{'L' if has_previous else 'M'}{position:.2f} {value:.1f}")
            if not has_previous:
                parts.append(f"h0.08M{position:.2f} {value:.1f}")
        has_previous = is_present
    return "".join(parts)
