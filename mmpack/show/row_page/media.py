"""Pictures, sound and numbers of a row as small drawings."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from mmpack.layout import Layout
from mmpack.rows.row import Row
from mmpack.show.row_page.markup import Markup, svg, svg_bar, tag
from mmpack.show.row_page.row_content import TokenSpan

_QUALITY = 80
_SOUND_HEIGHT = 40


def image_element(row: Row, image: int, width: int) -> Markup:
    """A picture of the row put together from its patches, reduced to about `width` pixels, as an `img`."""
    start, stop = row.image_spans[image].tolist()
    rows, cols = row.image_grids[image].tolist()
    first, last = np.searchsorted(row.patch_index, (start, stop)).tolist()
    patches = row.patches[first:last]
    if len(patches) != rows * cols or not patches.size:
        return tag("span", "no pixels", class_="missing")
    side = patches.shape[1]
    pixels = patches.reshape(rows, cols, side, side, 3).transpose(0, 2, 1, 3, 4)
    pixels = _reduced(pixels.reshape(rows * side, cols * side, 3), width)
    data = base64.b64encode(simplejpeg.encode_jpeg(pixels, quality=_QUALITY, colorspace="RGB")).decode()
    title = f"{rows} × {cols} patches of {side} × {side} pixels, places {start:,} to {stop - 1:,}"
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


def _reduced(pixels: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Means of whole squares of pixels, as few times smaller as keeps it at least `width` wide."""
    step = max(1, pixels.shape[1] // width)
    rows, cols = pixels.shape[0] // step, pixels.shape[1] // step
    if step == 1 or not rows:
        return np.ascontiguousarray(pixels)
    squares = pixels[: rows * step, : cols * step].reshape(rows, step, cols, step, 3)
    return squares.mean(axis=(1, 3)).round().astype(np.uint8)


def audio_element(row: Row, layout: Layout, span: TokenSpan) -> Markup:
    """A stretch of sound: its samples where the row has them, and a strip of its codes."""
    codebooks, size = layout.config.audio.codebooks, layout.config.audio.codebook_size
    first = layout.vocabulary.range("audio").start
    codes = (row.input_ids[span.start : span.stop] - first).reshape(-1, codebooks) % size
    frames = len(codes)
    seconds = frames * layout.config.audio.hop / layout.config.audio.sample_rate_hz
    title = f"{frames:,} frames of {codebooks} code(s), {seconds:.2f} s, places {span.start:,} to {span.stop - 1:,}"
    height = _SOUND_HEIGHT / codebooks
    # Codes that are near each other look alike; the colours mean nothing else.
    strip = [
        tag(
            "rect",
            x=frame,
            y=codebook * height,
            width=1.02,
            height=height,
            fill=f"hsl({265 - 70 * int(code) / size:.0f} 55% {22 + 60 * int(code) / size:.0f}%)",
        )
        for frame, of_frame in enumerate(codes)
        for codebook, code in enumerate(of_frame)
    ]
    codes_drawn = svg(frames, _SOUND_HEIGHT, tag("title", title), *strip, class_="codes")
    own = slice(*np.searchsorted(row.audio_index, (span.start, span.stop)))
    samples = row.audio_frames[own]
    return tag("div", waveform(samples) if samples.size else Markup(""), codes_drawn, class_="sound")


def waveform(frames: NDArray[np.float32]) -> Markup:
    """The highest and lowest sample of each frame, as one closed line."""
    high, low = frames.max(axis=1), frames.min(axis=1)
    reach = max(float(np.abs(frames).max()), 1e-6)
    edge = [(frame + 0.5, 1 - float(value) / reach) for frame, value in enumerate(high)]
    edge += [(frame + 0.5, 1 - float(value) / reach) for frame, value in reversed(list(enumerate(low)))]
    points = " ".join(f"{x:.1f},{y:.3f}" for x, y in edge)
    return svg(len(frames), 2, tag("polygon", points=points), class_="wave")


def sparkline(
    columns: Sequence[NDArray[np.float64]], kind: str, *, title: str, height: float = 100.0
) -> Markup:
    """Numbers over the slices of a document: one thin line for each value of a row, drawn to a common scale.

    Args:
        columns: of each slice, its rows of numbers, float64 (rows, width); rows lie evenly within the slice.
        kind: class of the lines.
        title: shown where the pointer rests.
        height: user units.
    """
    x = np.concatenate(
        [column + (np.arange(len(rows)) + 0.5) / max(len(rows), 1) for column, rows in enumerate(columns)]
    )
    y = np.concatenate([rows for rows in columns if len(rows)] or [np.empty((0, 0))])
    low, high = _bounds(columns)
    scale = (high - low) or 1.0
    drawn = (1 - (y - low) / scale) * height * 0.88 + height * 0.06
    lines = [
        tag("path", d=path, class_=f"line {kind}", vector_effect="non-scaling-stroke")
        for path in (_path(x, values) for values in drawn.T)
        if path
    ]
    ticks = [svg_bar(edge, edge + 0.0, 0, height, "grid") for edge in range(len(columns) + 1)]
    return svg(len(columns), height, tag("title", title), *ticks, *lines, class_="spark")


def value_range(columns: Sequence[NDArray[np.float64]]) -> str:
    """The least and the largest number there is, as the bottom and the top of their :func:`sparkline`."""
    low, high = _bounds(columns)
    return f"{low:.3g} to {high:.3g}"


def _bounds(columns: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    values = np.concatenate([rows.ravel() for rows in columns])
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def _path(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """An SVG path that is broken where a number is missing; a lone point is a short dash."""
    parts: list[str] = []
    previous = False
    for at, value in zip(x.tolist(), y.tolist(), strict=True):
        is_there = value == value
        if is_there:
            parts.append(f"{'L' if previous else 'M'}{at:.2f} {value:.1f}")
            if not previous:
                parts.append(f"h0.08M{at:.2f} {value:.1f}")
        previous = is_there
    return "".join(parts)
