"""Attention masks of packed rows, built from document spans.

`build_block_mask` returns the BlockMask of FlexAttention, `build_block_index` returns the same blocks as numpy arrays without
torch, and `dense_mask` returns the L x L reference. torch is imported by the first call of `build_block_mask`.
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
