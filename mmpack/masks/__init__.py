"""Attention masks of packed rows, built from document spans.

`block_mask` gives FlexAttention's BlockMask, `block_index` the same blocks in numpy without torch,
`dense_mask` the L x L reference. torch is imported when the first BlockMask is made.
"""

from __future__ import annotations

from mmpack.masks.blocks import BlockIndex, block_index
from mmpack.masks.flex import block_mask
from mmpack.masks.spans import Spans, check_spans, cu_seqlens, dense_mask, document_ids, position_ids

__all__ = [
    "BlockIndex",
    "Spans",
    "block_index",
    "block_mask",
    "check_spans",
    "cu_seqlens",
    "dense_mask",
    "document_ids",
    "position_ids",
]
