"""Spot checks, text and plots of correct and of wrong masks."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from PIL import Image
from rich.console import Console

from mmpack.errors import DataError
from mmpack.layout import Modality
from mmpack.masks import build_block_index, dense_mask
from mmpack.show.mask.mask_text import render_mask
from mmpack.show.mask.row_view import MaskCheck, RowView, TokenSpan, check_mask, make_row_view
from mmpack.show.plots import write_plot
from tests.masks.random_rows import RandomRow, random_rows

SPANS = (
    TokenSpan(0, 1, Modality.SPECIAL, "<|bos|>"),
    TokenSpan(1, 61, Modality.VISION, "cam_front", image=0),
    TokenSpan(61, 100, Modality.TEXT),
    TokenSpan(100, 101, Modality.SPECIAL, "<|bos|>"),
    TokenSpan(101, 250, Modality.AUDIO),
)


@pytest.fixture
def row() -> RowView:
    return make_row_view(
        [0, 100, 250],
        300,
        image_spans=[(1, 61)],
        spans=SPANS,
        slices=[(1, 100)],
        document_names=["drive", "speech"],
    )


def render_text(row: RowView, **options: int) -> str:
    out = StringIO()
    Console(file=out, width=120).print(render_mask(row, **options))
    return out.getvalue()


@given(random_rows(max_seq_len=400))
def test_correct_masks_pass_every_check(random_row: RandomRow) -> None:
    row = make_row_view(random_row.ends, random_row.seq_len, image_spans=random_row.images)
    checks = check_mask(
        row,
        build_block_index(random_row.ends, random_row.seq_len, block_size=32, image_spans=random_row.images),
    )
    mask = dense_mask(random_row.ends, random_row.seq_len, image_spans=random_row.images)
    assert checks
    for check in checks:
        assert check.passed
        assert check.value == mask[check.query, check.key]


def test_checks_have_the_correct_reasons(row: RowView) -> None:
    checks = check_mask(row, build_block_index([0, 100, 250], 300, image_spans=[(1, 61)]))
    reasons = {(check.query, check.key): (check.expected, check.reason) for check in checks}
    assert reasons[100, 99] == (False, "another document")
    assert reasons[249, 99] == (False, "another document")
    assert reasons[99, 0] == (True, "earlier in the same document")
    assert reasons[1, 60] == (True, "later, inside one image")
    assert reasons[1, 61] == (False, "later in the same document")
    assert reasons[249, 250] == (False, "the key is padding")
    assert reasons[250, 249] == (False, "the query is padding")


@pytest.mark.parametrize(
    ("ends", "images", "failing"),
    [
        ([0, 250], [(1, 61)], (100, 99)),
        ([0, 99, 250], [(1, 61)], (99, 0)),
        ([0, 100, 250], None, (1, 60)),
        ([0, 100, 250], [(1, 62)], (1, 61)),
        ([0, 100, 251], [(1, 61)], (250, 250)),
        ([0, 100, 249], [(1, 61)], (249, 100)),
    ],
)
def test_the_mask_of_another_row_fails(
    row: RowView, ends: list[int], images: list[tuple[int, int]] | None, failing: tuple[int, int]
) -> None:
    wrong = [
        check
        for check in check_mask(row, build_block_index(ends, 300, image_spans=images))
        if not check.passed
    ]
    assert failing in [(check.query, check.key) for check in wrong]


def test_a_block_wrongly_marked_as_full_fails() -> None:
    """Checks the block index itself: the mask function is correct, but a full block skips it at the boundary."""
    row = make_row_view([0, 40, 128], 128)
    index = build_block_index([0, 40, 128], 128, block_size=64)
    counts, full = index.kv_num_blocks.copy(), index.full_kv_num_blocks.copy()
    counts[0, 0, 0], full[0, 0, 0] = 0, 1
    broken = replace(index, kv_num_blocks=counts, full_kv_num_blocks=full)
    assert all(check.passed for check in check_mask(row, index))
    assert (40, 39) in [(check.query, check.key) for check in check_mask(row, broken) if not check.passed]


def test_the_text_shows_documents_modalities_blocks_and_checks(row: RowView) -> None:
    text = render_text(row, block_size=64)
    assert (
        "300 positions · 2 documents · fill 83.33% · blocks of 64: 0 full, 8 partial, 17 of 25 empty" in text
    )
    for lane in ("documents", "slices", "special", "text", "vision", "audio"):
        assert lane in text
    assert "numeric" not in text
    assert "all correct" in text
    assert "shown in squares of 16" in render_text(row, block_size=8)


def write_mask_plot(row: RowView, path: Path, block_size: int = 128) -> list[MaskCheck]:
    index = build_block_index(row.cu_seqlens, row.seq_len, block_size=block_size, image_spans=row.image_spans)
    checks = check_mask(row, index)
    write_plot("mask", path, row, index, checks)
    return checks


def test_the_plot_has_the_expected_colours(row: RowView, tmp_path: Path) -> None:
    checks = write_mask_plot(row, tmp_path / "row.png", block_size=64)
    assert checks == check_mask(
        row, build_block_index([0, 100, 250], 300, block_size=64, image_spans=[(1, 61)])
    )
    with Image.open(tmp_path / "row.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24) or ()}
    # The colours of full blocks, partial blocks and the audio lane.
    assert {(0x3B, 0x7D, 0xD8), (0xF4, 0xB8, 0x60), (0x8E, 0x5B, 0xB5)} <= colours


@pytest.mark.parametrize(("ends", "seq_len"), [([0], 5), ([0, 1], 1), ([0, 0, 0], 3), ([0, 5], 5)])
def test_the_smallest_rows_can_be_plotted(ends: list[int], seq_len: int, tmp_path: Path) -> None:
    row = make_row_view(ends, seq_len)
    assert all(check.passed for check in write_mask_plot(row, tmp_path / "row.png"))
    assert "all correct" in render_text(row)


def test_spans_outside_the_row_are_an_error() -> None:
    with pytest.raises(DataError, match="spans: positions outside the row"):
        make_row_view([0, 5], 5, spans=[TokenSpan(3, 6, Modality.TEXT)])
    with pytest.raises(DataError, match="slices: positions outside the row"):
        make_row_view([0, 5], 5, slices=np.array([[-1, 3]]))
    with pytest.raises(DataError, match="1 names for 2 documents"):
        make_row_view([0, 2, 5], 5, document_names=["one"])
