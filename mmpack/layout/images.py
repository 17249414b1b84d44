"""`[layout.vision]`: the patch grid of an image, computed from the size of the image."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import isqrt
from typing import Annotated

from msgspec import Meta

from mmpack.errors import ConfigError, DataError
from mmpack.settings import PositiveInt, Settings

# One larger image would fill any row. The limit also bounds the search of `_choose_least_distorted`.
_ImageTokens = Annotated[int, Meta(ge=1, le=65_536)]


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """The size of an image after the resize, and its tokens in rows and columns (row-major)."""

    height: int
    """Height after the resize, in pixels."""
    width: int
    """Width after the resize, in pixels."""
    rows: int
    """Number of tokens from top to bottom."""
    cols: int
    """Number of tokens from left to right."""

    @property
    def tokens(self) -> int:
        """The number of tokens of the image: rows x cols."""
        return self.rows * self.cols


class VisionLayout(Settings, frozen=True, kw_only=True):
    """The `[layout.vision]` table: the resize rule and the patches.

    One token represents `merge` x `merge` patches of `patch_size` x `patch_size` pixels.

    Raises:
        ConfigError: a setting is out of range or contradicts another.
    """

    patch_size: PositiveInt = 16
    """Side length of a patch, in pixels."""
    merge: PositiveInt = 2
    """Number of patches per token along each side."""
    min_tokens: _ImageTokens = 4
    """Smallest number of tokens per image; smaller images are enlarged."""
    max_tokens: _ImageTokens = 256
    """Largest number of tokens per image; larger images are reduced."""
    size: tuple[PositiveInt, PositiveInt] | None = None
    """Fixed (height, width) of every image, in pixels; `min_tokens` and `max_tokens` are then ignored."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_tokens > self.max_tokens:
            raise ConfigError(
                f"{self.min_tokens} is larger than max_tokens = {self.max_tokens}",
                where=self._key("min_tokens"),
                hint="Lower min_tokens, or raise max_tokens.",
            )
        if self.size is not None and any(side % self.token_side for side in self.size):
            raise ConfigError(
                f"size {list(self.size)} is not a multiple of patch_size * merge = {self.token_side} in both sides",
                where=self._key("size"),
                hint=f"Choose sides that are divisible by {self.token_side}.",
            )

    @property
    def _where(self) -> str:
        return "layout.vision"

    @property
    def token_side(self) -> int:
        """The side length of the square that one token covers after the resize, in pixels."""
        return self.patch_size * self.merge

    def patch_grid(self, height: int, width: int) -> PatchGrid:
        """Returns the patch grid of an image of `height` x `width` pixels.

        The rule is `smart_resize` of Qwen2-VL (arXiv:2409.12191, section 2.1) in exact integers: each side is rounded
        to the nearest multiple of `token_side`. An image with too many tokens is reduced with its aspect ratio, both
        sides rounded down; an image with too few is enlarged, both sides rounded up. If the grid is still outside the
        limits (very long images, or limits that are nearly equal), the grid within the limits that distorts the aspect
        ratio least is used.

        Raises:
            DataError: a side is less than one pixel.
        """
        if height < 1 or width < 1:
            raise DataError(f"an image of {height} x {width} pixels is empty", where="height x width")
        if self.size is not None:
            return _make_grid(
                self.size[0] // self.token_side, self.size[1] // self.token_side, self.token_side
            )
        return _resize_grid(height, width, self.token_side, self.min_tokens, self.max_tokens)

    def to_canonical(self) -> dict[str, object]:
        """Returns the settings that change tokens, for the fingerprint."""
        bounds = {"size": list(self.size)} if self.size else {"tokens": [self.min_tokens, self.max_tokens]}
        return {"patch_size": self.patch_size, "merge": self.merge, **bounds}


@lru_cache(maxsize=4096)
def _resize_grid(height: int, width: int, side: int, min_tokens: int, max_tokens: int) -> PatchGrid:
    """Returns the grid of an image without a fixed size; `side` is the side length of a token in pixels."""
    rows = max(1, (2 * height + side) // (2 * side))
    cols = max(1, (2 * width + side) // (2 * side))
    if rows * cols > max_tokens:
        rows = max(1, _floor_sqrt(max_tokens * height, width))
        cols = max(1, _floor_sqrt(max_tokens * width, height))
    elif rows * cols < min_tokens:
        rows = _ceil_sqrt(min_tokens * height, width)
        cols = _ceil_sqrt(min_tokens * width, height)
    if not min_tokens <= rows * cols <= max_tokens:
        rows, cols = _choose_least_distorted(height, width, min_tokens, max_tokens)
    return _make_grid(rows, cols, side)


def _make_grid(rows: int, cols: int, side: int) -> PatchGrid:
    return PatchGrid(height=rows * side, width=cols * side, rows=rows, cols=cols)


def _floor_sqrt(numerator: int, denominator: int) -> int:
    """Returns floor(sqrt(numerator / denominator)): n <= sqrt(q) is equivalent to n * n <= floor(q)."""
    return isqrt(numerator // denominator)


def _ceil_sqrt(numerator: int, denominator: int) -> int:
    """Returns ceil(sqrt(numerator / denominator)), for a positive quotient."""
    return isqrt(-(-numerator // denominator) - 1) + 1


def _choose_least_distorted(height: int, width: int, min_tokens: int, max_tokens: int) -> tuple[int, int]:
    """Returns (rows, cols) with min_tokens <= rows * cols <= max_tokens, closest to the aspect ratio of the image.

    Of equally close grids, the larger is chosen, then the squarer, so that a rotated image has the rotated grid.
    """
    best: tuple[Fraction, int, int, int] | None = None
    best_grid = (1, min_tokens)
    for rows in range(1, max_tokens + 1):
        lowest, highest = -(-min_tokens // rows), max_tokens // rows
        if lowest > highest:
            continue
        ideal = rows * width // height
        for cols in {min(max(ideal, lowest), highest), min(max(ideal + 1, lowest), highest)}:
            a, b = cols * height, rows * width  # equal without distortion
            rank = (Fraction(max(a, b), min(a, b)), -rows * cols, max(rows, cols), rows)
            if best is None or rank < best:
                best, best_grid = rank, (rows, cols)
    return best_grid
