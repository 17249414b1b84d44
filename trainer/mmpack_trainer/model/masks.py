"""Who attends to whom, as each attention backend wants it told, from the same document spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from mmpack.masks import build_block_mask, check_spans, dense_mask

Backend = Literal["flex", "sdpa", "dense"]


@dataclass(frozen=True, slots=True, eq=False)
class DocumentSpan:
    """Places [start, stop) of a row; `mask`, bool (stop - start, stop - start), where causal is not all there is."""

    start: int
    stop: int
    mask: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class DocumentSpans:
    """The documents of each row, in order and without gaps; pads lie behind them."""

    rows: tuple[tuple[DocumentSpan, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """`mask`, bool (B, 1, L, L), pads attending to themselves; `valid`, bool (B, L, 1, 1), False on pads."""

    mask: Tensor
    valid: Tensor


Mask = BlockMask | DocumentSpans | Dense


def attention_mask(
    backend: Backend,
    cu_seqlens: Sequence[NDArray[np.int32]],
    image_spans: Sequence[NDArray[np.int32]] | None,
    seq_len: int,
    device: torch.device,
) -> Mask:
    """The mask of a batch of rows.

    Args:
        backend: who reads it.
        cu_seqlens: int (documents + 1,) of each row.
        image_spans: int (images, 2) of each row, whose places see each other both ways; None: causal everywhere.
        seq_len: places of a row.
        device: of the model.

    Raises:
        DataError: spans that cannot be, as an image that crosses the end of a document.
    """
    if backend == "flex":
        return build_block_mask(cu_seqlens, seq_len, image_spans=image_spans, device=device)
    images = image_spans if image_spans is not None else [None] * len(cu_seqlens)
    if backend == "sdpa":
        return DocumentSpans(
            tuple(
                _documents(ends, spans, seq_len, device)
                for ends, spans in zip(cu_seqlens, images, strict=True)
            )
        )
    mask = np.stack(
        [dense_mask(ends, seq_len, image_spans=spans) for ends, spans in zip(cu_seqlens, images, strict=True)]
    )
    valid = torch.from_numpy(mask.any(-1)).to(device)
    # A place that attends nowhere has no softmax: it sees itself, and its output is put to 0.
    mask |= np.eye(seq_len, dtype=bool)
    return Dense(torch.from_numpy(mask).to(device)[:, None], valid[:, :, None, None])


def _documents(
    ends: NDArray[np.int32], images: NDArray[np.int32] | None, seq_len: int, device: torch.device
) -> tuple[DocumentSpan, ...]:
    spans = check_spans(ends, seq_len, images)
    found = []
    for start, stop in zip(spans.cu_seqlens[:-1].tolist(), spans.cu_seqlens[1:].tolist(), strict=True):
        inside = spans.images[(spans.images[:, 0] >= start) & (spans.images[:, 0] < stop)] - start
        mask = None
        if len(inside):
            mask = torch.from_numpy(dense_mask([0, stop - start], stop - start, image_spans=inside)).to(
                device
            )
        if stop > start:
            found.append(DocumentSpan(start, stop, mask))
    return tuple(found)
