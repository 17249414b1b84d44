"""Construction of the BlockMask of FlexAttention from document spans; the only file of this package that uses torch."""

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
"""A function (batch, head, query, key) -> bool that FlexAttention evaluates inside partial blocks."""


def build_block_mask(
    cu_seqlens: ArrayLike | Sequence[ArrayLike],
    seq_len: int,
    *,
    block_size: int = 128,
    image_spans: ArrayLike | Sequence[ArrayLike | None] | None = None,
    device: torch.device | str = "cpu",
) -> BlockMask:
    """Builds the BlockMask of one row or a batch of rows from spans, without the L x L mask.

    Attention is causal within each document, and with `image_spans` also bidirectional within each image. Padding attends
    to nothing, and nothing attends to padding. All eight index tensors equal those of torch's `create_block_mask` with the
    same `mask_mod`. The mask of one row serves any batch size, as that of `create_block_mask` with B=None does, and any
    number of heads. (`BlockMask.to` does not move the tensors that the mask function uses, so give the device here.)

    Args:
        cu_seqlens: (documents + 1,) integers from 0, or a list of such arrays, one per row.
        seq_len: number of positions of each row, padding included; it need not be a multiple of `block_size`.
        block_size: number of positions per side of a block, for queries and keys alike.
        image_spans: (images, 2) integers, half-open ranges [start, stop) of positions, or for a batch a list of such arrays
            (None for a row without images). An empty array gives the same `mask_mod` as a non-empty one, so a compiled
            model is not compiled again for rows without images.
        device: device of the tensors.

    Raises:
        DataError: the spans are invalid, see :func:`mmpack.masks.check_spans`.
        MissingDependencyError: torch is not installed.
    """
    torch, block_mask_type = _import_torch()
    index = build_block_index(cu_seqlens, seq_len, block_size=block_size, image_spans=image_spans)
    # Each array becomes a tensor with its own storage. Views of one storage could be moved in one copy, but then a compiler
    # with dynamic shapes has to reason about an offset per view, and torch 2.13 fails at that on a CPU.
    tensors = {name: torch.from_numpy(getattr(index, name)).to(device) for name in (*FIELDS, "first", "stop")}
    first, stop = tensors.pop("first"), tensors.pop("stop")
    if len(first) == 1:
        first, stop = first[0], stop[0]
    return block_mask_type(
        (seq_len, seq_len),
        **tensors,
        BLOCK_SIZE=(block_size, block_size),
        mask_mod=_make_mask_mod(first, None if image_spans is None else stop),
    )


@cache
def _import_torch() -> tuple[Any, type[BlockMask]]:
    try:
        import torch
        from torch.nn.attention.flex_attention import BlockMask
    except ImportError:
        raise MissingDependencyError(
            "a BlockMask consists of torch tensors, and torch is not installed",
            hint="pip install 'mmpack[torch]'",
        ) from None
    return torch, BlockMask


def _make_mask_mod(first: Tensor, stop: Tensor | None) -> MaskMod:
    """Returns the mask function of partial blocks: two comparisons, because the keys of a query are one interval.

    Args:
        first: first key of each query; (seq_len,) for one row that serves any batch size, (rows, seq_len) for a batch.
        stop: key after the last key of each query, with the shape of `first`; None if it is always query + 1.
    """
    if stop is None:
        if first.ndim == 1:
            return lambda b, h, query, key: (first[query] <= key) & (key <= query)
        return lambda b, h, query, key: (first[b, query] <= key) & (key <= query)
    if first.ndim == 1:
        return lambda b, h, query, key: (first[query] <= key) & (key < stop[query])
    return lambda b, h, query, key: (first[b, query] <= key) & (key < stop[b, query])
