"""The attention mask of a row as an SVG: its blocks, its documents, and the checked mask entries."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from mmpack.masks import BlockIndex, build_block_index
from mmpack.masks.blocks import EMPTY, FULL, PARTIAL
from mmpack.rows.row import Row
from mmpack.show.mask.row_view import MaskCheck, RowView, check_mask, make_row_view
from mmpack.show.row_page.markup import Markup, format_count, svg, svg_bar, tag
from mmpack.show.row_page.position_strip import equal_ranges

_BLOCK = 128
_MAX_CHECKS = 16
_BLOCK_CLASSES = {PARTIAL: "partial", FULL: "full"}


def render_attention(row: Row, *, bidirectional_images: bool) -> Markup:
    """Renders the mask with its legend and the table of spot checks.

    Args:
        row: row whose mask is rendered.
        bidirectional_images: True if the positions of one image attend to each other in both directions.
    """
    spans = row.image_spans if bidirectional_images else None
    view = make_row_view(row.cu_seqlens, row.seq_len, image_spans=spans)
    index = build_block_index(row.cu_seqlens, row.seq_len, block_size=_BLOCK, image_spans=spans)
    checks = check_mask(view, index)
    return tag(
        "div",
        tag("figure", _render_mask(view, index, checks), _render_legend(view, index), class_="mask"),
        _render_checks(checks),
        class_="attention",
    )


def _render_mask(view: RowView, index: BlockIndex, checks: Sequence[MaskCheck]) -> Markup:
    side, end = view.seq_len, int(view.cu_seqlens[-1])
    shapes: list[Markup] = []
    for line, kinds in enumerate(index.kinds().tolist()):
        top = line * _BLOCK
        height = min(_BLOCK, side - top)
        shapes += [
            svg_bar(first * _BLOCK, min(last * _BLOCK, side), top, height, _BLOCK_CLASSES[kind])
            for first, last, kind in equal_ranges(kinds)
            if kind != EMPTY
        ]
    if end < side:
        shapes += [svg_bar(0, side, end, side - end, "pad"), svg_bar(end, side, 0, end, "pad")]
    shapes += [
        tag(
            "rect",
            tag("title", f"document {number}: positions {start:,} to {stop - 1:,}"),
            x=start,
            y=start,
            width=stop - start,
            height=stop - start,
            class_="document",
            vector_effect="non-scaling-stroke",
        )
        for number, (start, stop) in enumerate(pairwise(view.cu_seqlens.tolist()))
    ]
    radius = side / 170
    for check in sorted(checks, key=lambda check: not check.passed, reverse=True):
        result_class = "right" if check.passed else "wrong"
        attends = "attends to" if check.value else "does not attend to"
        result = "correct" if check.passed else "wrong"
        title = f"{check.query:,} {attends} {check.key:,}: {check.reason} ({result})"
        dot = {"cx": check.key + 0.5, "cy": check.query + 0.5, "r": radius}
        value_class = "sees" if check.value else "blind"
        shapes.append(
            tag(
                "circle",
                tag("title", title),
                **dot,
                class_=f"check {result_class} {value_class}",
                vector_effect="non-scaling-stroke",
            )
        )
    return svg(side, side, *shapes, class_="blocks", shape_rendering="crispEdges")


def _render_legend(view: RowView, index: BlockIndex) -> Markup:
    kinds = index.kinds()
    partial, full = int((kinds == PARTIAL).sum()), int((kinds == FULL).sum())
    entries = [
        (
            "full",
            f"full: {full:,} of {kinds.size:,} blocks of {_BLOCK} × {_BLOCK}, every position attends to every position",
        ),
        ("partial", f"partial: {partial:,}, decided for each query and key"),
        ("empty", f"empty: {kinds.size - full - partial:,}, skipped"),
        ("document", "a document: its positions attend only to positions inside its square"),
    ]
    if int(view.cu_seqlens[-1]) < view.seq_len:
        entries.append(("pad", "padding"))
    lines = [tag("li", tag("i", class_=f"swatch {class_}"), text) for class_, text in entries]
    axes = tag(
        "p", "Down: the query, the position that attends. Across: the key, the position that is attended to."
    )
    return tag("figcaption", axes, tag("ul", *lines))


def _render_checks(checks: Sequence[MaskCheck]) -> Markup:
    wrong = [check for check in checks if not check.passed]
    verdict = f"{len(wrong)} wrong" if wrong else "all correct"
    head = tag(
        "p",
        f"{format_count(len(checks), 'mask entry', 'mask entries')} checked: {verdict}",
        class_="wrong" if wrong else "right",
    )
    # The table has the wrong checks and, of the correct ones, some for every reason.
    by_reason: dict[str, list[MaskCheck]] = {}
    for check in checks:
        if check.passed:
            by_reason.setdefault(check.reason, []).append(check)
    share = max(1, _MAX_CHECKS // max(1, len(by_reason)))
    listed = [*wrong[:_MAX_CHECKS], *(check for group in by_reason.values() for check in group[:share])]
    titles = ("query", "key", "expected", "in the mask", "reason")
    rows = [tag("tr", *(tag("th", title) for title in titles))]
    for check in listed:
        cells = (
            f"{check.query:,}",
            f"{check.key:,}",
            _yes_no(check.expected),
            _yes_no(check.value),
            check.reason,
        )
        rows.append(tag("tr", *(tag("td", cell) for cell in cells), class_=None if check.passed else "wrong"))
    rest = len(checks) - len(listed)
    more = [tag("p", f"and {rest:,} more, shown as circles")] if rest > 0 else []
    return tag("div", head, tag("table", *rows), *more, class_="checks")


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"
