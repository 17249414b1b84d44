"""A row and its mask as a PNG: lanes of places, blocks, close-ups at the boundaries, spot checks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from mmpack.masks.blocks import BlockIndex, build_block_index
from mmpack.show.mask.mask_text import mask_summary
from mmpack.show.mask.row_view import MODALITIES, MaskCheck, ModalityName, RowView, check_mask

_EMPTY, _PARTIAL, _FULL, _PAD, _EDGE = "#ffffff", "#f4b860", "#3b7dd8", "#d9d9d9", "#d1495b"
_DOCUMENTS = ("#4c8f8b", "#a9cfc9")
_SLICES = ("#8a8a8a", "#c4c4c4")
_COLOURS: dict[ModalityName, str] = {
    "special": "#222222",
    "text": "#e8871e",
    "vision": "#3b7dd8",
    "audio": "#8e5bb5",
    "numeric": "#3a9d6e",
    "action": "#d1495b",
}
_LANE_NAMES: dict[ModalityName, str] = {"special": "special tokens"}
_MAX_CHECKS = 30
# Letters of a name that still tell it from another.
_MIN_LABEL = 6
# Places around a boundary in a close-up.
_AROUND = 10


def plot_mask(row: RowView, path: Path, *, block_size: int = 128) -> list[MaskCheck]:
    """Writes a PNG of a row and its mask; returns the spot checks it shows.

    Above, lanes of the row's places: documents, slices, modalities, special tokens. Below, every block of
    the mask. Right, close-ups where documents, images and pads meet, and the checked places as a table.

    Raises:
        DataError: block_size below 1.
    """
    index = build_block_index(row.cu_seqlens, row.seq_len, block_size=block_size, image_spans=row.images)
    checks = check_mask(row, index)
    lanes = _row_lanes(row)
    figure = Figure(figsize=(16, 10.4 + 0.3 * len(lanes)), layout="constrained")
    left, right = figure.add_gridspec(1, 2, width_ratios=(1.45, 1))
    upper, lower = left.subgridspec(2, 1, height_ratios=(0.5 * len(lanes), 10), hspace=0.02)
    blocks = figure.add_subplot(lower)
    _draw_lanes(figure.add_subplot(upper, sharex=blocks), row, lanes)
    _draw_blocks(blocks, row, index)
    top, bottom = right.subgridspec(2, 1, height_ratios=(1, 2.3))
    close_ups = top.subgridspec(1, 3)
    for column, (title, start) in enumerate(_detail_ranges(row)):
        _draw_detail(figure.add_subplot(close_ups[column]), row, index, checks, title, start)
    _draw_table(figure.add_subplot(bottom), checks)
    figure.suptitle(mask_summary(row, block_size, index.kinds()), fontsize=13, x=0.01, ha="left")
    figure.savefig(path, dpi=100)
    return checks


LaneSpans = list[tuple[int, int, str, str]]
"""(start, stop, colour, label) of each bar."""


def _row_lanes(row: RowView) -> dict[str, LaneSpans]:
    ends = row.cu_seqlens.tolist()
    found: dict[str, LaneSpans] = {
        "documents": [
            (start, stop, _DOCUMENTS[number % 2], row.name(number) if row.modality_names else str(number))
            for number, (start, stop) in enumerate(pairwise(ends))
        ]
    }
    if row.slices is not None and len(row.slices):
        found["slices"] = [
            (start, stop, _SLICES[number % 2], str(number))
            for number, (start, stop) in enumerate(row.slices.tolist())
        ]
    for name in MODALITIES:
        bars = [
            (piece.start, piece.stop, _COLOURS[name], "") for piece in row.spans if piece.modality == name
        ]
        if bars:
            found[_LANE_NAMES.get(name, name)] = bars
    if ends[-1] < row.seq_len:
        found["documents"].append((ends[-1], row.seq_len, _PAD, "pads"))
    return found


def _draw_lanes(axes: Axes, row: RowView, lanes: dict[str, LaneSpans]) -> None:
    for number, bars in enumerate(lanes.values()):
        axes.broken_barh(
            [(start, stop - start) for start, stop, _, _ in bars],
            (number - 0.4, 0.8),
            facecolors=[colour for *_, colour, _ in bars],
            # One token of 8,192 is narrower than a pixel; its edge keeps it in sight.
            edgecolors=[colour for *_, colour, _ in bars],
            linewidth=0.4,
        )
        for start, stop, _, label in bars:
            room = int((stop - start) / row.seq_len * 120)
            if len(label) <= room or room >= _MIN_LABEL:
                shown = label if len(label) <= room else label[: room - 1] + "…"
                axes.text((start + stop) / 2, number, shown, ha="center", va="center", fontsize=7)
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.set_yticks(range(len(lanes)), list(lanes), fontsize=9)
    axes.tick_params(axis="x", labelbottom=False, length=0)
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)


def _draw_blocks(axes: Axes, row: RowView, index: BlockIndex) -> None:
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
        pads = row.seq_len - ends[-1]
        style = {"facecolor": _PAD, "edgecolor": "#9a9a9a", "hatch": "///", "linewidth": 0, "alpha": 0.6}
        axes.add_patch(Rectangle((0, ends[-1]), row.seq_len, pads, **style))
        axes.add_patch(Rectangle((ends[-1], 0), pads, ends[-1], **style))
    axes.set_xlim(0, row.seq_len)
    axes.set_ylim(row.seq_len, 0)
    axes.set_xlabel("key: the place that is looked at")
    axes.set_ylabel("query: the place that looks")
    names = (
        (_FULL, "full block: every query attends to every key"),
        (_PARTIAL, "partial: decided place by place"),
        (_EMPTY, "empty: skipped"),
    )
    handles = [Patch(facecolor=colour, edgecolor="#9a9a9a", label=name) for colour, name in names]
    handles.append(Patch(fill=False, edgecolor=_EDGE, label="a document"))
    if ends[-1] < row.seq_len:
        handles.append(Patch(facecolor=_PAD, edgecolor="#9a9a9a", hatch="///", label="pads"))
    axes.legend(handles=handles, loc="upper right", fontsize=9, framealpha=0.95)


def _detail_ranges(row: RowView) -> list[tuple[str, int]]:
    """Up to three close-ups: the first boundary of documents, the first image, the first pad."""
    ends = np.unique(row.cu_seqlens).tolist()
    places = []
    if len(ends) > 2:
        places.append(("two documents", ends[1]))
    if len(row.images):
        places.append(("an image", int(row.images[0, 0])))
    if 0 < ends[-1] < row.seq_len:
        places.append(("the first pad", ends[-1]))
    return [(title, max(0, min(place - _AROUND, row.seq_len - 2 * _AROUND))) for title, place in places]


def _draw_detail(
    axes: Axes, row: RowView, index: BlockIndex, checks: Sequence[MaskCheck], title: str, start: int
) -> None:
    places = range(start, min(start + 2 * _AROUND, row.seq_len))
    attends = np.array([[index.attends(query, key) for key in places] for query in places])
    edge = places[-1] + 1
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
    seen = [check for check in checks if check.query in places and check.key in places]
    axes.scatter(
        [check.key + 0.5 for check in seen],
        [check.query + 0.5 for check in seen],
        s=14,
        facecolor=["white" if check.value else "none" for check in seen],
        edgecolor=["black" if check.passed else _EDGE for check in seen],
        linewidth=0.9,
        zorder=3,
    )
    axes.set_xticks([start, edge - 1], [f"{start:,}", f"{edge - 1:,}"], fontsize=7)
    axes.set_yticks([start, edge - 1], [f"{start:,}", f"{edge - 1:,}"], fontsize=7, rotation=90, va="center")
    axes.set_title(f"{title}, place by place", fontsize=9)


def _draw_table(axes: Axes, checks: Sequence[MaskCheck]) -> None:
    wrong = sum(not check.passed for check in checks)
    axes.axis("off")
    axes.set_xlim(0, 1)
    axes.set_ylim(_MAX_CHECKS + 3, 0)
    verdict = f"{wrong} wrong" if wrong else "all right"
    axes.text(
        0,
        0.4,
        f"{len(checks)} places checked: {verdict} (those in the close-ups are circles)",
        fontsize=11,
        color=_EDGE if wrong else "#2a7d4f",
        weight="bold",
    )
    columns = ((0.1, "query", "right"), (0.24, "key", "right"), (0.4, "expected", "right"))
    columns += ((0.57, "in the mask", "right"), (0.61, "reason", "left"))
    for place, name, side in columns:
        axes.text(place, 1.6, name, ha=side, fontsize=9, weight="bold")
    shown = sorted(sorted(checks, key=lambda check: check.passed)[:_MAX_CHECKS])
    for line, check in enumerate(shown):
        values = (f"{check.query:,}", f"{check.key:,}", str(int(check.expected)), str(int(check.value)))
        for (place, _, side), text in zip(columns, (*values, check.reason), strict=True):
            axes.text(place, line + 2.6, text, ha=side, fontsize=9, color="black" if check.passed else _EDGE)
    if len(checks) > len(shown):
        axes.text(0, len(shown) + 2.6, f"and {len(checks) - len(shown)} more, all right", fontsize=9)
