"""Resizes an image directly into patches: a triangle filter in integers, bitwise identical on every machine.

The filter is Pillow's antialiased bilinear filter: its width grows with the reduction, so that every pixel of the
image contributes. Weights are integers that sum to 2**13. The horizontal pass therefore processes the three channels
of a pixel in one 64-bit number with 21 bits per channel, which hold 255 * 2**13 and the half for rounding.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mmpack.layout import PatchGrid

_WEIGHT_BITS = 13
_CHANNEL_BITS = 21


class _FilterTaps(NamedTuple):
    """The source pixels and weights of each target pixel along one axis."""

    first: NDArray[np.uint32]
    """(n,): index of the first source pixel."""
    weights: NDArray[np.uint32]
    """(n, taps): weights of the source pixels from `first` on; each row sums to 2**13."""


def resize_to_patches(image: NDArray[np.uint8], grid: PatchGrid, out: NDArray[np.uint8]) -> None:
    """Resizes `image` to the size of the grid and writes its patches.

    Args:
        image: uint8 (height, width, 3).
        grid: patch grid of the image.
        out: uint8 (grid.tokens, side, side, 3), output array: patches from left to right, then from top to bottom.
    """
    height, width = image.shape[:2]
    lines = np.ascontiguousarray(image).reshape(height, width * 3)
    down, across = _filter_taps(height, grid.height), _filter_taps(width, grid.width)
    _resize(lines, down.first, down.weights, across.first, across.weights, grid.width // grid.cols, out)


@lru_cache(maxsize=256)
def _filter_taps(source: int, target: int) -> _FilterTaps:
    """Computes the filter from `source` to `target` pixels along one axis."""
    scale = source / target
    reach = max(scale, 1.0)
    centre = (np.arange(target) + 0.5) * scale
    # The number of pixels that the filter can touch; the range is shifted inside at the edges.
    count = min(source, ceil(2 * reach) + 1)
    first = np.clip(np.ceil(centre - reach - 0.5), 0, source - count).astype(np.int64)
    distance = np.abs(first[:, None] + np.arange(count) + 0.5 - centre[:, None])
    weights = np.maximum(0.0, 1.0 - distance / reach)
    weights /= weights.sum(axis=1, keepdims=True)
    integers = np.rint(weights * (1 << _WEIGHT_BITS)).astype(np.int64)
    # The largest weight takes the rounding remainder, so that a uniform area keeps its value.
    integers[np.arange(target), integers.argmax(axis=1)] += (1 << _WEIGHT_BITS) - integers.sum(axis=1)
    return _FilterTaps(first.astype(np.uint32), integers.astype(np.uint32))


@njit(cache=True, nogil=True)
def _resize(
    lines: NDArray[np.uint8],
    down_first: NDArray[np.uint32],
    down_weights: NDArray[np.uint32],
    across_first: NDArray[np.uint32],
    across_weights: NDArray[np.uint32],
    side: int,
    out: NDArray[np.uint8],
) -> None:
    # Unsigned indices: numba then omits the code that lets negative indices count from the end.
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    bits, green, blue, byte = (
        np.uint64(_WEIGHT_BITS),
        np.uint64(_CHANNEL_BITS),
        np.uint64(2 * _CHANNEL_BITS),
        np.uint64(255),
    )
    half = one << np.uint64(_WEIGHT_BITS - 1)
    halves = half | half << green | half << blue
    width = lines.shape[1] // 3
    sums = np.empty(lines.shape[1], np.uint32)
    packed = np.empty(width, np.uint64)
    columns = len(across_first) // side
    for y in range(len(down_first)):
        sums[:] = 1 << (_WEIGHT_BITS - 1)
        for tap in range(down_weights.shape[1]):
            weight = down_weights[y, tap]
            if weight:
                line = lines[down_first[y] + tap]
                for x in range(len(sums)):
                    sums[x] += weight * np.uint32(line[x])
        for pixel in range(width):
            x = np.uint64(pixel) * three
            packed[pixel] = (
                np.uint64(sums[x]) >> bits
                | np.uint64(sums[x + one]) >> bits << green
                | np.uint64(sums[x + two]) >> bits << blue
            )
        top, i = y // side, y % side
        for column in range(columns):
            patch = out[top * columns + column, i]
            for j in range(side):
                target = column * side + j
                source = np.uint64(across_first[target])
                total = halves
                for tap in range(across_weights.shape[1]):
                    total += np.uint64(across_weights[target, tap]) * packed[source + np.uint64(tap)]
                patch[j, 0] = total >> bits & byte
                patch[j, 1] = total >> green + bits & byte
                patch[j, 2] = total >> blue + bits & byte
