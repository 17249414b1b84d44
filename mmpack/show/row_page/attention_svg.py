"""The attention of a row as a picture: its squares block by block, its documents, and the places that were checked."""

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
_KINDS = {PARTIAL: "partial", FULL: "full"}


def render_attention(row: Row, *, images: bool) -> Markup:
    """The picture with its key, and the checks.

    Args:
        row: what is shown.
        images: whether the places of one picture see each other both ways.
    """
    spans = row.image_spans if images else None
    view = make_row_view(row.cu_seqlens, row.seq_len, image_spans=spans)
    index = build_block_index(row.cu_seqlens, row.seq_len, block_size=_BLOCK, image_spans=spans)
    checks = check_mask(view, index)
    return tag(
        "div",
        tag("figure", _mask_svg(view, index, checks), _legend(view, index), class_="mask"),
        _checks(checks),
        class_="attention",
    )


def _mask_svg(view: RowView, index: BlockIndex, checks: Sequence[MaskCheck]) -> Markup:
    side, end = view.seq_len, int(view.cu_seqlens[-1])
    shapes: list[Markup] = []
    for line, kinds in enumerate(index.kinds().tolist()):
        top = line * _BLOCK
        height = min(_BLOCK, side - top)
        shapes += [
            svg_bar(first * _BLOCK, min(last * _BLOCK, side), top, height, _KINDS[kind])
            for first, last, kind in equal_ranges(kinds)
            if kind != EMPTY
        ]
    if end < side:
        shapes += [svg_bar(0, side, end, side - end, "pad"), svg_bar(end, side, 0, end, "pad")]
    shapes += [
        tag(
            "rect",
            tag("title", f"document {number}: places {start:,} to {stop - 1:,}"),
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
        verdict = "right" if check.passed else "wrong"
        sees = "sees" if check.value else "does not see"
        title = f"{check.query:,} {sees} {check.key:,}: {check.reason} ({verdict})"
        dot = {"cx": check.key + 0.5, "cy": check.query + 0.5, "r": radius}
        filled = "sees" if check.value else "blind"
        shapes.append(
            tag(
                "circle",
                tag("title", title),
                **dot,
                class_=f"check {verdict} {filled}",
                vector_effect="non-scaling-stroke",
            )
        )
    return svg(side, side, *shapes, class_="blocks", shape_rendering="crispEdges")


def _legend(view: RowView, index: BlockIndex) -> Markup:
    kinds = index.kinds()
    partial, full = int((kinds == PARTIAL).sum()), int((kinds == FULL).sum())
    entries = [
        (
            "full",
            f"full: {full:,} of {kinds.size:,} blocks of {_BLOCK} × {_BLOCK}, every place sees every place",
        ),
        ("partial", f"partial: {partial:,}, decided place by place"),
        ("empty", f"empty: {kinds.size - full - partial:,}, skipped"),
        ("document", "a document: nothing outside its square is seen"),
    ]
    if int(view.cu_seqlens[-1]) < view.seq_len:
        entries.append(("pad", "pads"))
    lines = [tag("li", tag("i", class_=f"swatch {kind}"), words) for kind, words in entries]
    axes = tag("p", "Down: the place that looks. Across: the place that is looked at.")
    return tag("figcaption", axes, tag("ul", *lines))


def _checks(checks: Sequence[MaskCheck]) -> Markup:
    wrong = [check for check in checks if not check.passed]
    verdict = f"{len(wrong)} wrong" if wrong else "all right"
    head = tag(
        "p", f"{format_count(len(checks), 'place')} checked: {verdict}", class_="wrong" if wrong else "right"
    )
    # The wrong ones, and of the others some of every reason.
    by_reason: dict[str, list[MaskCheck]] = {}
    for check in checks:
        if check.passed:
            by_reason.setdefault(check.reason, []).append(check)
    share = max(1, _MAX_CHECKS // max(1, len(by_reason)))
    shown = [*wrong[:_MAX_CHECKS], *(check for group in by_reason.values() for check in group[:share])]
    titles = ("query", "key", "must see", "sees", "why")
    rows = [tag("tr", *(tag("th", title) for title in titles))]
    for check in shown:
        cells = (
            f"{check.query:,}",
            f"{check.key:,}",
            _yes_no(check.expected),
            _yes_no(check.value),
            check.reason,
        )
        rows.append(tag("tr", *(tag("td", cell) for cell in cells), class_=None if check.passed else "wrong"))
    rest = len(checks) - len(shown)
    more = [tag("p", f"and {rest:,} more, drawn as circles")] if rest > 0 else []
    return tag("div", head, tag("table", *rows), *more, class_="checks")


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"
