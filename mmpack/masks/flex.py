"""FlexAttention's BlockMask from document spans. The only file of this package that uses torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from mmpack.errors import MissingDependencyError
from mmpack.masks.blocks import FIELDS, build_block_index

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn.attention.flex_attention import BlockMask

MaskMod = Callable[["Tensor", "Tensor", "Tensor", "Tensor"], "Tensor"]
"""(batch, head, query, key) -> bool, as FlexAttention evaluates it inside partial blocks."""


def build_block_mask(
    cu_seqlens: ArrayLike | Sequence[ArrayLike],
    seq_len: int,
    *,
    block_size: int = 128,
    image_spans: ArrayLike | Sequence[ArrayLike | None] | None = None,
    device: torch.device | str = "cpu",
) -> BlockMask:
    """The BlockMask of one row or a batch of rows, built from its spans in time that no L x L enters.

    Causal within each document; with `image_spans` also both ways inside each image. Pads attend nowhere and
    nothing attends to them. All eight index tensors equal those of torch's `create_block_mask` with the same
    `mask_mod`. With one row it serves any batch, as torch's with B=None does; it serves any number of heads.
    (`BlockMask.to` would leave behind what the mask function holds: give the device here.)

    Args:
        cu_seqlens: (documents + 1,) integers from 0, or a list of such arrays, one a row.
        seq_len: places of each row, pads included; need not be a multiple of block_size.
        block_size: places a side of a block, of queries and keys alike.
        image_spans: (images, 2) integers, [start, stop) of places, or for a batch a list of such arrays
            (None for a row without). An empty array gives the same `mask_mod` as a full one, so that a
            compiled model is not compiled again for rows without pictures.
        device: where the tensors go.

    Raises:
        DataError: spans that cannot be, as :func:`mmpack.masks.check_spans`.
        MissingDependencyError: torch is not installed.
    """
    torch, make = _torch()
    index = build_block_index(cu_seqlens, seq_len, block_size=block_size, image_spans=image_spans)
    # Each array becomes a tensor with a storage of its own. Views of one storage would be moved in one copy, but
    # give a compiler of dynamic shapes an offset for each to reason about; torch 2.13 trips over that on CPU.
    tensors = {name: torch.from_numpy(getattr(index, name)).to(device) for name in (*FIELDS, "first", "stop")}
    first, stop = tensors.pop("first"), tensors.pop("stop")
    if len(first) == 1:
        first, stop = first[0], stop[0]
    return make(
        (seq_len, seq_len),
        **tensors,
        BLOCK_SIZE=(block_size, block_size),
        mask_mod=_make_mask_mod(first, None if image_spans is None else stop),
    )


@cache
def _torch() -> tuple[Any, type[BlockMask]]:
    try:
        import torch
        from torch.nn.attention.flex_attention import BlockMask
    except ImportError:
        raise MissingDependencyError(
            "a BlockMask is made of torch tensors, and torch is not installed",
            hint="pip install 'mmpack[torch]'",
        ) from None
    return torch, BlockMask


def _make_mask_mod(first: Tensor, stop: Tensor | None) -> MaskMod:
    """The function inside partial blocks. A query's keys are one interval, so it is two comparisons.

    Args:
        first: (seq_len,) for one row, whatever the batch; (rows, seq_len) for a batch.
        stop: likewise, or None if it is always the query's own place + 1.
    """
    if stop is None:
        if first.ndim == 1:
            return lambda b, h, query, key: (first[query] <= key) & (key <= query)
        return lambda b, h, query, key: (first[b, query] <= key) & (key <= query)
    if first.ndim == 1:
        return lambda b, h, query, key: (first[query] <= key) & (key < stop[query])
    return lambda b, h, query, key: (first[b, query] <= key) & (key < stop[b, query])
