"""Attention masks of packed rows, built from document spans.

`block_mask` gives FlexAttention's BlockMask, `block_index` the same blocks in numpy without torch,
`dense_mask` the L x L reference. `draw_row` and `render_row` show a row and its mask, on paper and in the
terminal; `check_row` looks at the places where a leak would be.

torch is imported when the first BlockMask is made, matplotlib when the first picture is drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmpack.masks.blocks import BlockIndex, block_index
from mmpack.masks.flex import block_mask
from mmpack.masks.row import Check, Piece, RowView, check_row, row_view
from mmpack.masks.spans import Spans, check_spans, cu_seqlens, dense_mask, document_ids, position_ids

if TYPE_CHECKING:
    from mmpack.masks.picture import draw_row
    from mmpack.masks.terminal import render_row

__all__ = [
    "BlockIndex",
    "Check",
    "Piece",
    "RowView",
    "Spans",
    "block_index",
    "block_mask",
    "check_row",
    "check_spans",
    "cu_seqlens",
    "dense_mask",
    "document_ids",
    "draw_row",
    "position_ids",
    "render_row",
    "row_view",
]


def __getattr__(name: str) -> Any:
    if name == "draw_row":
        from mmpack.masks.picture import draw_row

        return draw_row
    if name == "render_row":
        from mmpack.masks.terminal import render_row

        return render_row
    raise AttributeError(f"module 'mmpack.masks' has no attribute '{name}'")
