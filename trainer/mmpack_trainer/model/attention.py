"""Attention within documents: one product per document, or the dense reference. (On a GPU: torchtitan's FlexAttention.)"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mmpack_trainer.model.masks import Backend, Dense, DocumentSpans
from mmpack_trainer.titan import FlexAttention, Module

# Letters of shapes are torchtitan's: B rows, L places, N heads, H width of a head.


class DocumentAttention(Module):
    """`scaled_dot_product_attention` of each document alone, so that a document's output does not depend on its row.

    Forward: queries (B, L, N, H), keys and values (B, L, n, H), n dividing N, to (B, L, N, H); 0 at pads.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(Module.Config):
        pass

    def __init__(self, config: Config) -> None:
        super().__init__()

    # Every batch has other documents, and a compiler would compile for each of them anew.
    @torch.compiler.disable
    def forward(
        self,
        q_BLNH: Tensor,  # noqa: N803
        k_BLNH: Tensor,  # noqa: N803
        v_BLNH: Tensor,  # noqa: N803
        *,
        attention_masks: DocumentSpans,
        scale: float | None,
        enable_gqa: bool,
    ) -> Tensor:
        rows = []
        for query, key, value, documents in zip(
            *(each.transpose(1, 2) for each in (q_BLNH, k_BLNH, v_BLNH)), attention_masks.rows, strict=True
        ):
            pieces = [
                functional.scaled_dot_product_attention(
                    query[None, :, part.start : part.stop],
                    key[None, :, part.start : part.stop],
                    value[None, :, part.start : part.stop],
                    attn_mask=part.mask,
                    is_causal=part.mask is None,
                    scale=scale,
                    enable_gqa=enable_gqa,
                )[0]
                for part in documents
            ]
            end = documents[-1].stop if documents else 0
            rows.append(torch.cat([*pieces, torch.zeros_like(query[:, end:])], dim=1))
        return torch.stack(rows).transpose(1, 2)


class DenseAttention(Module):
    """The reference: one product over the whole row under a mask of L × L. Shapes as :class:`DocumentAttention`."""

    @dataclass(kw_only=True, slots=True)
    class Config(Module.Config):
        pass

    def __init__(self, config: Config) -> None:
        super().__init__()

    def forward(
        self,
        q_BLNH: Tensor,  # noqa: N803
        k_BLNH: Tensor,  # noqa: N803
        v_BLNH: Tensor,  # noqa: N803
        *,
        attention_masks: Dense,
        scale: float | None,
        enable_gqa: bool,
    ) -> Tensor:
        query, key, value = (each.transpose(1, 2) for each in (q_BLNH, k_BLNH, v_BLNH))
        out = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_masks.mask, scale=scale, enable_gqa=enable_gqa
        )
        return out.transpose(1, 2) * attention_masks.valid


def inner_attention(backend: Backend) -> Module.Config:
    """The configuration of a backend's module."""
    kinds = {"flex": FlexAttention, "sdpa": DocumentAttention, "dense": DenseAttention}
    return kinds[backend].Config()
