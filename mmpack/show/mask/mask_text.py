"""A row and its mask as text: lanes of positions, squares of blocks, spot checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mmpack.layout import Modality
from mmpack.masks.blocks import EMPTY, FULL, PARTIAL, build_block_index
from mmpack.show.mask.row_view import MaskCheck, RowView, check_mask

_WIDTH = 96
_MAX_SQUARES = 32
_MAX_CHECKS = 40
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DOCUMENT_STYLES = ("black on cyan", "black on yellow")
_MODALITY_SIGNS: dict[Modality, tuple[str, str]] = {
    Modality.SPECIAL: ("s", "white on grey35"),
    Modality.TEXT: ("t", "black on dark_orange"),
    Modality.VISION: ("v", "white on dodger_blue2"),
    Modality.AUDIO: ("a", "white on medium_purple3"),
    Modality.NUMERIC: ("n", "black on sea_green3"),
    Modality.ACTION: ("c", "white on indian_red"),
}
_SQUARES = {EMPTY: ("· ", "grey50"), PARTIAL: ("▒▒", "dark_orange"), FULL: ("██", "dodger_blue2")}


def render_mask(row: RowView, *, block_size: int = 128) -> RenderableType:
    """Renders a row and its mask for `rich.print`, with the content of :func:`mmpack.show.mask.mask_plot.plot_mask`.

    A mask with more than 32 blocks per side is shown in larger squares, and a note gives their size.

    Raises:
        DataError: `block_size` is less than 1.
    """
    index = build_block_index(row.cu_seqlens, row.seq_len, block_size=block_size, image_spans=row.image_spans)
    return Group(
        Text(format_mask_summary(row, block_size, index.kinds()), style="bold"),
        Text(),
        _render_lanes(row),
        Text(),
        _render_squares(row, block_size),
        Text(),
        _render_checks(check_mask(row, index)),
    )


def format_mask_summary(row: RowView, block_size: int, kinds: np.ndarray) -> str:
    """Formats one line with the numbers of positions and documents, the fill, and the numbers of blocks by kind."""
    full, partial = int((kinds == FULL).sum()), int((kinds == PARTIAL).sum())
    return (
        f"{row.seq_len:,} positions · {row.num_documents} document{'s' if row.num_documents != 1 else ''} · "
        f"fill {row.fill:.2%} · blocks of {block_size}: {full:,} full, {partial:,} partial, "
        f"{kinds.size - full - partial:,} of {kinds.size:,} empty"
    )


def _render_lanes(row: RowView) -> RenderableType:
    cells = min(_WIDTH, row.seq_len)
    edges = np.linspace(0, row.seq_len, cells + 1).round().astype(int)
    middles = (edges[:-1] + edges[1:] - 1) // 2
    documents = [row.find_document(int(position)) for position in middles]
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_row("positions", f"0 {f'{row.seq_len:,}'.rjust(cells - 2)}")
    table.add_row("documents", _lane(documents, _document_sign))
    if row.slices is not None and len(row.slices):
        slice_indices = np.full(row.seq_len, -1)
        for index, (start, stop) in enumerate(row.slices):
            slice_indices[start:stop] = index
        table.add_row("slices", _lane(slice_indices[middles].tolist(), _slice_sign))
    for modality, (sign, style) in _MODALITY_SIGNS.items():
        has_modality = np.zeros(row.seq_len, bool)
        for span in row.spans:
            has_modality[span.start : span.stop] |= span.modality == modality
        if has_modality.any():
            cells_with_modality = [
                bool(has_modality[start:stop].any()) for start, stop in pairwise(edges.tolist())
            ]
            table.add_row(
                modality.name.lower(),
                _lane(cells_with_modality, lambda is_set, mark=(sign, style): mark if is_set else (" ", "")),
            )
    return table


def _document_sign(document: int) -> tuple[str, str]:
    if document < 0:
        return "·", "grey50"
    return _LETTERS[document % len(_LETTERS)], _DOCUMENT_STYLES[document % 2]


def _slice_sign(index: int) -> tuple[str, str]:
    return (" ", "") if index < 0 else (str(index % 10), ("black on grey70", "black on grey89")[index % 2])


def _lane(values: Sequence, sign: Callable[..., tuple[str, str]]) -> Text:
    lane = Text()
    for value in values:
        lane.append(*sign(value))
    return lane


def _render_squares(row: RowView, block_size: int) -> RenderableType:
    square = block_size
    while -(-row.seq_len // square) > _MAX_SQUARES:
        square *= 2
    kinds = build_block_index(
        row.cu_seqlens, row.seq_len, block_size=square, image_spans=row.image_spans
    ).kinds()
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    note = f", shown in squares of {square}" if square != block_size else ""
    table.add_row("query ↓", f"key →   ██ all attend  ▒▒ some  · none{note}")
    for index, line in enumerate(kinds.tolist()):
        table.add_row(f"{index * square:,}", _lane(line, _SQUARES.__getitem__))
    return table


def _render_checks(checks: Sequence[MaskCheck]) -> RenderableType:
    wrong = [check for check in checks if not check.passed]
    title = (
        f"{len(checks)} mask entries checked, {len(wrong)} wrong"
        if wrong
        else f"{len(checks)} mask entries checked, all correct"
    )
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for name, justify in (
        ("query", "right"),
        ("key", "right"),
        ("expected", "right"),
        ("in the mask", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("reason")
    shown = (wrong + [check for check in checks if check.passed])[:_MAX_CHECKS]
    for check in sorted(shown):
        table.add_row(
            f"{check.query:,}",
            f"{check.key:,}",
            str(int(check.expected)),
            str(int(check.value)),
            check.reason if check.passed else f"{check.reason}: WRONG",
            style="" if check.passed else "bold red",
        )
    if len(checks) > len(shown):
        table.caption = f"and {len(checks) - len(shown)} more, all correct"
        table.caption_justify = "left"
    return table
