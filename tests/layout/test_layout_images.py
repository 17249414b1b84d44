"""The patch grid of images."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mmpack.errors import ConfigError, DataError
from mmpack.layout import VisionLayout

SIDES = st.integers(1, 5000)


@st.composite
def layouts(draw: st.DrawFn) -> VisionLayout:
    min_tokens = draw(st.integers(1, 300))
    return VisionLayout(
        patch_size=draw(st.sampled_from([8, 14, 16])),
        merge=draw(st.integers(1, 3)),
        min_tokens=min_tokens,
        max_tokens=min_tokens + draw(st.integers(0, 300)),
    )


@given(layouts(), SIDES, SIDES)
def test_every_image_gets_whole_tokens_within_the_limits(
    layout: VisionLayout, height: int, width: int
) -> None:
    grid = layout.patch_grid(height, width)
    assert layout.min_tokens <= grid.tokens <= layout.max_tokens
    assert (grid.height, grid.width) == (grid.rows * layout.token_side, grid.cols * layout.token_side)
    assert grid.tokens == grid.rows * grid.cols


@given(SIDES, SIDES)
def test_both_sides_are_within_one_token_of_a_common_scale(height: int, width: int) -> None:
    layout = VisionLayout(min_tokens=4, max_tokens=1024)
    assume(max(height, width) <= 8 * min(height, width))
    grid = layout.patch_grid(height, width)
    # rows = scale * height + error with |error| < 1, and likewise for cols: one scale must satisfy both.
    low = max(Fraction(grid.rows - 1, height), Fraction(grid.cols - 1, width))
    high = min(Fraction(grid.rows + 1, height), Fraction(grid.cols + 1, width))
    assert low < high


@given(SIDES, SIDES)
def test_without_limits_a_side_changes_by_at_most_half_a_token(height: int, width: int) -> None:
    layout = VisionLayout(min_tokens=1, max_tokens=65_536)
    grid = layout.patch_grid(height, width)
    for new_side, side in ((grid.height, height), (grid.width, width)):
        assert abs(new_side - side) <= layout.token_side // 2 or (side < layout.token_side == new_side)


@example(VisionLayout(patch_size=8, merge=1, min_tokens=81, max_tokens=81), 1, 3)
@given(layouts(), SIDES, SIDES)
def test_rotating_the_image_rotates_the_grid(layout: VisionLayout, height: int, width: int) -> None:
    upright, rotated = layout.patch_grid(height, width), layout.patch_grid(width, height)
    assert upright.tokens == rotated.tokens
    assert {upright.rows, upright.cols} == {rotated.rows, rotated.cols}


@given(layouts(), SIDES, SIDES)
def test_an_image_of_the_size_of_its_grid_keeps_the_grid(
    layout: VisionLayout, height: int, width: int
) -> None:
    grid = layout.patch_grid(height, width)
    assert layout.patch_grid(grid.height, grid.width) == grid


@pytest.mark.parametrize(
    ("height", "width", "rows", "cols"),
    [
        (900, 1600, 12, 21),  # reduced: sqrt(256 * 9/16) = 12, sqrt(256 * 16/9) = 21.3
        (192, 320, 6, 10),
        (208, 336, 7, 11),  # halves are rounded up
        (1, 1, 2, 2),  # enlarged to min_tokens
        (20, 30, 2, 3),  # enlarged: sqrt(4 * 2/3) = 1.6, sqrt(4 * 3/2) = 2.4
        (20, 100_000, 1, 256),  # as long as the limits allow
        (100_000, 20, 256, 1),
    ],
)
def test_known_images_have_known_grids(height: int, width: int, rows: int, cols: int) -> None:
    grid = VisionLayout().patch_grid(height, width)
    assert (grid.rows, grid.cols) == (rows, cols)


@given(st.integers(1, 60), SIDES, SIDES)
def test_equal_limits_give_the_least_distorted_grid(tokens: int, height: int, width: int) -> None:
    grid = VisionLayout(min_tokens=tokens, max_tokens=tokens).patch_grid(height, width)

    def distortion(rows: int, cols: int) -> Fraction:
        ratio = Fraction(rows * width, cols * height)
        return max(ratio, 1 / ratio)

    best = min(distortion(rows, tokens // rows) for rows in range(1, tokens + 1) if tokens % rows == 0)
    assert grid.tokens == tokens
    assert distortion(grid.rows, grid.cols) == best


def test_a_fixed_size_applies_to_every_image() -> None:
    layout = VisionLayout(size=(256, 512), max_tokens=4)
    assert {layout.patch_grid(h, w) for h, w in ((1, 9), (900, 1600), (256, 512))} == {
        layout.patch_grid(5, 5)
    }
    assert layout.patch_grid(5, 5).tokens == 8 * 16


@pytest.mark.parametrize(
    "settings",
    [
        {"patch_size": 0},
        {"merge": 0},
        {"min_tokens": 0},
        {"min_tokens": 9, "max_tokens": 8},
        {"max_tokens": 10**9},
        {"size": (100, 64)},
        {"size": (0, 64)},
    ],
)
def test_invalid_settings_are_errors(settings: dict) -> None:
    with pytest.raises(ConfigError) as caught:
        VisionLayout(**settings)
    assert "layout.vision" in str(caught.value)


@pytest.mark.parametrize(("height", "width"), [(0, 5), (5, 0), (-1, 5)])
def test_an_empty_image_is_an_error(height: int, width: int) -> None:
    with pytest.raises(DataError):
        VisionLayout().patch_grid(height, width)
