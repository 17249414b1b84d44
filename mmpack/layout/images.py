"""How many tokens a picture becomes: the patch grid, from its size alone."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import isqrt

from mmpack.errors import ConfigError, DataError
from mmpack.settings import Settings

_WHERE = "layout.vision"
_MAX_TOKENS_LIMIT = (
    65_536  # one picture beyond this fills any row, and the search of `_least_distorted` stays short
)


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """The size a picture is resized to, and its tokens in rows and columns (row-major)."""

    height: int
    """Pixels after the resize."""
    width: int
    """Pixels after the resize."""
    rows: int
    """Tokens from top to bottom."""
    cols: int
    """Tokens from left to right."""

    @property
    def tokens(self) -> int:
        """Places the picture takes: rows x cols."""
        return self.rows * self.cols


class VisionLayout(Settings, frozen=True, kw_only=True):
    """The `[layout.vision]` table: the resize rule and the patches.

    One token stands for `merge` x `merge` patches of `patch_size` x `patch_size` pixels.

    Raises:
        ConfigError: a setting is out of range or contradicts another.
    """

    patch_size: int = 16
    """Side of a patch, in pixels."""
    merge: int = 2
    """Patches per token along each side."""
    min_tokens: int = 4
    """Smaller pictures are enlarged to at least this many tokens."""
    max_tokens: int = 256
    """Larger pictures are reduced to at most this many tokens."""
    size: tuple[int, int] | None = None
    """One (height, width) in pixels for every picture. `min_tokens` and `max_tokens` then have no say."""

    def __post_init__(self) -> None:
        if self.patch_size < 1 or self.merge < 1:
            raise ConfigError(
                f"patch_size {self.patch_size} and merge {self.merge} must be 1 or more", where=_WHERE
            )
        if not 1 <= self.min_tokens <= self.max_tokens <= _MAX_TOKENS_LIMIT:
            raise ConfigError(
                f"min_tokens {self.min_tokens} and max_tokens {self.max_tokens} do not make a range",
                where=_WHERE,
                hint=f"Choose 1 <= min_tokens <= max_tokens <= {_MAX_TOKENS_LIMIT}.",
            )
        if self.size is not None and any(side < 1 or side % self.token_side for side in self.size):
            raise ConfigError(
                f"size {list(self.size)} is not made of multiples of patch_size * merge = {self.token_side}",
                where=f"{_WHERE}.size",
                hint=f"Choose sides that {self.token_side} divides.",
            )

    @property
    def token_side(self) -> int:
        """Side of the square one token covers after the resize, in pixels."""
        return self.patch_size * self.merge

    def patch_grid(self, height: int, width: int) -> PatchGrid:
        """The grid of a picture of `height` x `width` pixels.

        The rule is `smart_resize` of Qwen2-VL (arXiv:2409.12191, section 2.1) in exact integers: each side
        goes to the nearest multiple of `token_side`; a picture with too many tokens is reduced at its own
        aspect, both sides rounded down; one with too few is enlarged, both rounded up. Where that still
        misses the bounds (very long pictures, or bounds that nearly touch), the grid within the bounds that
        distorts the aspect least is taken.

        Raises:
            DataError: a side is less than one pixel.
        """
        if height < 1 or width < 1:
            raise DataError(f"a picture of {height} x {width} pixels has no content", where="height x width")
        if self.size is not None:
            return _make_grid(
                self.size[0] // self.token_side, self.size[1] // self.token_side, self.token_side
            )
        return _resize_grid(height, width, self.token_side, self.min_tokens, self.max_tokens)

    def to_canonical(self) -> dict[str, object]:
        """What changes tokens, for the fingerprint."""
        bounds = {"size": list(self.size)} if self.size else {"tokens": [self.min_tokens, self.max_tokens]}
        return {"patch_size": self.patch_size, "merge": self.merge, **bounds}


@lru_cache(maxsize=4096)
def _resize_grid(height: int, width: int, side: int, min_patches: int, max_patches: int) -> PatchGrid:
    rows = max(1, (2 * height + side) // (2 * side))
    cols = max(1, (2 * width + side) // (2 * side))
    if rows * cols > max_patches:
        rows = max(1, _floor_sqrt(max_patches * height, width))
        cols = max(1, _floor_sqrt(max_patches * width, height))
    elif rows * cols < min_patches:
        rows = _ceil_sqrt(min_patches * height, width)
        cols = _ceil_sqrt(min_patches * width, height)
    if not min_patches <= rows * cols <= max_patches:
        rows, cols = _least_distorted(height, width, min_patches, max_patches)
    return _make_grid(rows, cols, side)


def _make_grid(rows: int, cols: int, side: int) -> PatchGrid:
    return PatchGrid(height=rows * side, width=cols * side, rows=rows, cols=cols)


def _floor_sqrt(numerator: int, denominator: int) -> int:
    """floor(sqrt(numerator / denominator)): n <= sqrt(q) holds just when n * n <= floor(q)."""
    return isqrt(numerator // denominator)


def _ceil_sqrt(numerator: int, denominator: int) -> int:
    """ceil(sqrt(numerator / denominator)), for a positive quotient."""
    return isqrt(-(-numerator // denominator) - 1) + 1


def _least_distorted(height: int, width: int, min_patches: int, max_patches: int) -> tuple[int, int]:
    """(rows, cols) with least <= rows * cols <= most, nearest to the picture's aspect; ties to the larger,
    then to the squarer, so that a turned picture has the turned grid.
    """
    best: tuple[Fraction, int, int, int] | None = None
    chosen = (1, min_patches)
    for rows in range(1, max_patches + 1):
        lowest, highest = -(-min_patches // rows), max_patches // rows
        if lowest > highest:
            continue
        ideal = rows * width // height
        for cols in {min(max(ideal, lowest), highest), min(max(ideal + 1, lowest), highest)}:
            across, down = cols * height, rows * width
            rank = (Fraction(max(across, down), min(across, down)), -rows * cols, max(rows, cols), rows)
            if best is None or rank < best:
                best, chosen = rank, (rows, cols)
    return chosen
