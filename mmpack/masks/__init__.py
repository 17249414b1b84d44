"""Attention masks of packed rows, built from document spans.

`build_block_mask` gives FlexAttention's BlockMask, `build_block_index` the same blocks in numpy without torch,
`dense_mask` the L x L reference. torch is imported when the first BlockMask is made.
"""

from __future__ import annotations

from mmpack.lazy import make_dir
from mmpack.masks.blocks import BlockIndex, build_block_index
from mmpack.masks.flex import build_block_mask
from mmpack.masks.spans import RowSpans, check_spans, cu_seqlens, dense_mask, document_ids, position_ids

__all__ = [
    "BlockIndex",
    "RowSpans",
    "build_block_index",
    "build_block_mask",
    "check_spans",
    "cu_seqlens",
    "dense_mask",
    "document_ids",
    "position_ids",
]

__dir__ = make_dir(__all__)
