"""Plot of a row and its mask: lanes of positions, blocks, close-ups at the boundaries, spot checks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from mmpack.layout import Modality
from mmpack.masks.blocks import BlockIndex
from mmpack.show.figure_style import BLUE, ORANGE, RED, hide_spines, make_figure, set_heading
from mmpack.show.mask.mask_text import format_mask_summary
from mmpack.show.mask.row_view import MaskCheck, RowView

_EMPTY, _PARTIAL, _FULL, _PAD, _EDGE = "#ffffff", "#f4b860", BLUE, "#d9d9d9", RED
_DOCUMENTS = ("#4c8f8b", "#a9cfc9")
_SLICES = ("#8a8a8a", "#c4c4c4")
_COLOURS: dict[Modality, str] = {
    Modality.SPECIAL: "#222222",
    Modality.TEXT: ORANGE,
    Modality.VISION: BLUE,
    Modality.AUDIO: "#8e5bb5",
    Modality.NUMERIC: "#3a9d6e",
    Modality.ACTION: RED,
}
_LANE_NAMES: dict[Modality, str] = {Modality.SPECIAL: "special tokens"}
_MAX_CHECKS = 30
# A shortened name needs this many letters to be recognisable.
_MIN_LABEL = 6
# Number of positions before and after a boundary in a close-up.
_AROUND = 10


def plot_mask(row: RowView, index: BlockIndex, checks: Sequence[MaskCheck]) -> Figure:
    """Plots a row and its mask.

    Above, lanes of the positions of the row: documents, slices, modalities, special tokens. Below, every block of the
    mask. Right, close-ups of the boundaries of documents, images and padding, and a table of the checked mask entries.

    Args:
        row: view of the row.
        index: blocks of the row, see :func:`mmpack.masks.build_block_index`.
        checks: spot checks of the mask, see :func:`mmpack.show.mask.row_view.check_mask`.
    """
    lanes = _row_lanes(row)
    figure = make_figure(16, 10.4 + 0.3 * len(lanes), dpi=100)
    left, right = figure.add_gridspec(1, 2, width_ratios=(1.45, 1))
    upper, lower = left.subgridspec(2, 1, height_ratios=(0.5 * len(lanes), 10), hspace=0.02)
    blocks = figure.add_subplot(lower)
    _plot_lanes(figure.add_subplot(upper, sharex=blocks), row, lanes)
    _plot_blocks(blocks, row, index)
    top, bottom = right.subgridspec(2, 1, height_ratios=(1, 2.3))
    close_ups = top.subgridspec(1, 3)
    for column, (title, start) in enumerate(_detail_ranges(row)):
        _plot_detail(figure.add_subplot(close_ups[column]), row, index, checks, title, start)
    _plot_table(figure.add_subplot(bottom), checks)
    set_heading(figure, format_mask_summary(row, index.block_size, index.kinds()), size=13)
    return figure


LaneSpans = list[tuple[int, int, str, str]]
"""The (start, stop, colour, label) of each bar."""


def _row_lanes(row: RowView) -> dict[str, LaneSpans]:
    ends = row.cu_seqlens.tolist()
    lanes: dict[str, LaneSpans] = {
        "documents": [
            (
                start,
                stop,
                _DOCUMENTS[index % 2],
                row.document_name(index) if row.document_names else str(index),
            )
            for index, (start, stop) in enumerate(pairwise(ends))
        ]
    }
    if row.slices is not None and len(row.slices):
        lanes["slices"] = [
            (start, stop, _SLICES[index % 2], str(index))
            for index, (start, stop) in enumerate(row.slices.tolist())
        ]
    for modality in Modality:
        colour = _COLOURS[modality]
        bars = [(span.start, span.stop, colour, "") for span in row.spans if span.modality == modality]
        if bars:
            lanes[_LANE_NAMES.get(modality, modality.name.lower())] = bars
    if ends[-1] < row.seq_len:
        lanes["documents"].append((ends[-1], row.seq_len, _PAD, "padding"))
    return lanes


def _plot_lanes(axes: Axes, row: RowView, lanes: dict[str, LaneSpans]) -> None:
    for lane, bars in enumerate(lanes.values()):
        axes.broken_barh(
            [(start, stop - start) for start, stop, _, _ in bars],
            (lane - 0.4, 0.8),
            facecolors=[colour for *_, colour, _ in bars],
            # One token of 8,192 is narrower than a pixel; its edge makes it visible.
            edgecolors=[colour for *_, colour, _ in bars],
            linewidth=0.4,
        )
        for start, stop, _, label in bars:
            max_letters = int((stop - start) / row.seq_len * 120)
            if len(label) <= max_letters or max_letters >= _MIN_LABEL:
                text = label if len(label) <= max_letters else label[: max_letters - 1] + "…"
                axes.text((start + stop) / 2, lane, text, ha="center", va="center", fontsize=7)
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.set_yticks(range(len(lanes)), list(lanes), fontsize=9)
    axes.tick_params(axis="x", labelbottom=False, length=0)
    hide_spines(axes, "top", "right", "bottom", "left")


def _plot_blocks(axes: Axes, row: RowView, index: BlockIndex) -> None:
    kinds = index.kinds()
    side = len(kinds) * index.block_size
    axes.imshow(
        kinds,
        cmap=ListedColormap([_EMPTY, _PARTIAL, _FULL]),
        vmin=0,
        vmax=2,
        extent=(0, side, side, 0),
        interpolation="nearest",
        aspect="auto",
    )
    if len(kinds) <= 64:
        lines = np.arange(0, side + 1, index.block_size)
        axes.hlines(lines, 0, side, color="#e4e4e4", linewidth=0.4)
        axes.vlines(lines, 0, side, color="#e4e4e4", linewidth=0.4)
    ends = row.cu_seqlens.tolist()
    for start, stop in pairwise(ends):
        axes.add_patch(
            Rectangle((start, start), stop - start, stop - start, fill=False, edgecolor=_EDGE, linewidth=1)
        )
    if ends[-1] < row.seq_len:
        padding = row.seq_len - ends[-1]
        style = {"facecolor": _PAD, "edgecolor": "#9a9a9a", "hatch": "///", "linewidth": 0, "alpha": 0.6}
        axes.add_patch(Rectangle((0, ends[-1]), row.seq_len, padding, **style))
        axes.add_patch(Rectangle((ends[-1], 0), padding, ends[-1], **style))
    axes.set_xlim(0, row.seq_len)
    axes.set_ylim(row.seq_len, 0)
    axes.set_xlabel("key: the position that is attended to")
    axes.set_ylabel("query: the position that attends")
    names = (
        (_FULL, "full block: every query attends to every key"),
        (_PARTIAL, "partial: decided for each query and key"),
        (_EMPTY, "empty: skipped"),
    )
    handles = [Patch(facecolor=colour, edgecolor="#9a9a9a", label=name) for colour, name in names]
    handles.append(Patch(fill=False, edgecolor=_EDGE, label="a document"))
    if ends[-1] < row.seq_len:
        handles.append(Patch(facecolor=_PAD, edgecolor="#9a9a9a", hatch="///", label="padding"))
    axes.legend(handles=handles, loc="upper right", fontsize=9, framealpha=0.95)


def _detail_ranges(row: RowView) -> list[tuple[str, int]]:
    """Returns (title, start) of up to three close-ups: the first document boundary, image and padding."""
    ends = np.unique(row.cu_seqlens).tolist()
    centres = []
    if len(ends) > 2:
        centres.append(("two documents", ends[1]))
    if len(row.image_spans):
        centres.append(("an image", int(row.image_spans[0, 0])))
    if 0 < ends[-1] < row.seq_len:
        centres.append(("the first padding", ends[-1]))
    return [(title, max(0, min(centre - _AROUND, row.seq_len - 2 * _AROUND))) for title, centre in centres]


def _plot_detail(
    axes: Axes, row: RowView, index: BlockIndex, checks: Sequence[MaskCheck], title: str, start: int
) -> None:
    positions = range(start, min(start + 2 * _AROUND, row.seq_len))
    attends = np.array([[index.attends(query, key) for key in positions] for query in positions])
    edge = positions[-1] + 1
    axes.imshow(
        attends, cmap=ListedColormap([_EMPTY, _FULL]), vmin=0, vmax=1, extent=(start, edge, edge, start)
    )
    grid = np.arange(start, edge + 1)
    axes.hlines(grid, start, edge, color="#e4e4e4", linewidth=0.5)
    axes.vlines(grid, start, edge, color="#e4e4e4", linewidth=0.5)
    for end in row.cu_seqlens.tolist():
        if start < end < edge:
            axes.axhline(end, color=_EDGE, linewidth=1.2)
            axes.axvline(end, color=_EDGE, linewidth=1.2)
    visible = [check for check in checks if check.query in positions and check.key in positions]
    axes.scatter(
        [check.key + 0.5 for check in visible],
        [check.query + 0.5 for check in visible],
        s=14,
        facecolor=["white" if check.value else "none" for check in visible],
        edgecolor=["black" if check.passed else _EDGE for check in visible],
        linewidth=0.9,
        zorder=3,
    )
    axes.set_xticks([start, edge - 1], [f"{start:,}", f"{edge - 1:,}"], fontsize=7)
    axes.set_yticks([start, edge - 1], [f"{start:,}", f"{edge - 1:,}"], fontsize=7, rotation=90, va="center")
    axes.set_title(f"{title}, position by position", fontsize=9)


def _plot_table(axes: Axes, checks: Sequence[MaskCheck]) -> None:
    wrong = sum(not check.passed for check in checks)
    axes.axis("off")
    axes.set_xlim(0, 1)
    axes.set_ylim(_MAX_CHECKS + 3, 0)
    verdict = f"{wrong} wrong" if wrong else "all correct"
    axes.text(
        0,
        0.4,
        f"{len(checks)} mask entries checked: {verdict} (circles in the close-ups)",
        fontsize=11,
        color=_EDGE if wrong else "#2a7d4f",
        weight="bold",
    )
    columns = ((0.1, "query", "right"), (0.24, "key", "right"), (0.4, "expected", "right"))
    columns += ((0.57, "in the mask", "right"), (0.61, "reason", "left"))
    for x, name, side in columns:
        axes.text(x, 1.6, name, ha=side, fontsize=9, weight="bold")
    listed = sorted(sorted(checks, key=lambda check: check.passed)[:_MAX_CHECKS])
    for line, check in enumerate(listed):
        values = (f"{check.query:,}", f"{check.key:,}", str(int(check.expected)), str(int(check.value)))
        for (x, _, side), text in zip(columns, (*values, check.reason), strict=True):
            axes.text(x, line + 2.6, text, ha=side, fontsize=9, color="black" if check.passed else _EDGE)
    if len(checks) > len(listed):
        axes.text(0, len(listed) + 2.6, f"and {len(checks) - len(listed)} more, all correct", fontsize=9)
