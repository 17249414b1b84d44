"""All that is used of torchtitan, its private parts included: the other files import it from here.

torchtitan moves fast. Whoever changes its version reads this file and :mod:`mmpack_trainer.compat`.
"""

# ruff: noqa: E402

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

from mmpack_trainer.compat import SPMD_BACKEND, prepare

prepare()

from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.loss import _LossParallelCrossEntropy
from torchtitan.distributed import ParallelDims
from torchtitan.distributed.activation_checkpoint import FullAC, SelectiveAC
from torchtitan.distributed.fsdp import apply_fsdp_to_decoder
from torchtitan.models.common.attention import FlexAttention, GQAttention, QKVLinear
from torchtitan.models.common.config_utils import make_ffn_config
from torchtitan.models.common.decoder import Decoder, TransformerBlock
from torchtitan.models.common.decoder_sharding import (
    dense_activation_placement,
    dense_param_placement,
    norm_config,
    set_decoder_sharding_config,
    set_dense_ffn_sharding,
    set_gqa_attention_sharding,
    set_gqa_inner_attention_local_map,
)
from torchtitan.models.common.embedding import Embedding
from torchtitan.models.common.linear import Linear
from torchtitan.models.common.moe import GroupedExperts, MoE, RoutedExperts, TokenChoiceTopKRouter
from torchtitan.models.common.moe_sharding import set_moe_sharding_config
from torchtitan.models.common.nn_modules import RMSNorm
from torchtitan.models.common.rope import CosSinRoPE
from torchtitan.models.common.token_dispatcher import AllToAllTokenDispatcher
from torchtitan.protocols.module import Module
from torchtitan.protocols.sharding import ShardingConfig

__all__ = [
    "SPMD_BACKEND",
    "AllToAllTokenDispatcher",
    "BaseDataLoader",
    "CosSinRoPE",
    "Decoder",
    "Embedding",
    "FlexAttention",
    "FullAC",
    "GQAttention",
    "GroupedExperts",
    "Linear",
    "MoE",
    "Module",
    "ParallelDims",
    "QKVLinear",
    "RMSNorm",
    "RoutedExperts",
    "SelectiveAC",
    "ShardingConfig",
    "TokenChoiceTopKRouter",
    "TransformerBlock",
    "apply_fsdp_to_decoder",
    "dense_activation_placement",
    "dense_param_placement",
    "fill",
    "in_float8",
    "like",
    "local",
    "make_ffn_config",
    "norm_config",
    "set_decoder_sharding_config",
    "set_dense_ffn_sharding",
    "set_gqa_attention_sharding",
    "set_gqa_inner_attention_local_map",
    "set_moe_sharding_config",
    "token_losses",
    "whole",
]


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a DTensor; a plain tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a DTensor, equal on all its ranks, which go on with it alike; a plain tensor as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, reference: Tensor) -> Tensor:
    """A plain tensor, equal on all ranks, laid out as `reference` is: cut where that is cut, without communication."""
    if not isinstance(reference, DTensor):
        return tensor
    mesh = reference.device_mesh
    placed = DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return placed.redistribute(placements=reference.placements)


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each place, float32 (B, L); 0 where the label is -100.

    Args:
        logits: (B, L, ids); under tensor parallelism a DTensor cut along the ids, which is never put together.
        labels: int64 (B, L).
    """
    if not isinstance(logits, DTensor):
        flat = logits.flatten(0, 1).float()
        return nn.functional.cross_entropy(flat, labels.flatten(), reduction="none").view(labels.shape)
    losses = _LossParallelCrossEntropy.apply(
        logits.to_local().flatten(0, 1).float(),
        labels.flatten(),
        logits.device_mesh.get_group("tp"),
        logits.shape[-1],
        "none",
    )
    return losses.view(labels.shape)


def in_float8(config: Module.Config, *, emulate: bool) -> None:
    """Makes the linear layers of a tree of configurations float8 ones, in place; their weights stay what they are.

    Each row and column of a product has a scale of its own (torchao's recipe "rowwise"). torchtitan's converter is not
    used: it forgets how a layer is sharded, passes over layers silently, and emulates another recipe than it trains with.

    Args:
        config: whose layers have dimensions that 16 divides.
        emulate: round as float8 does, and multiply as without; for machines whose hardware has no float8.

    Raises:
        ImportError: torchao is not installed.
    """
    # Not above: it imports torchao, which takes seconds and need not be there.
    from torchao.float8 import Float8LinearConfig
    from torchtitan.components.quantization.float8 import Float8Linear

    recipe = replace(Float8LinearConfig.from_recipe_name("rowwise"), emulate=emulate)
    # Else compiled casts to float8 differ from eager ones (pytorch issue 150859).
    torch._inductor.config.emulate_precision_casts = True  # pyright: ignore
    found: list[tuple[str, Any, Any, Any]] = list(config.traverse(Linear.Config))
    for _, linear, parent, name in found:
        shared = {field.name: getattr(linear, field.name) for field in fields(Linear.Config)}
        setattr(parent, name, Float8Linear.Config(**shared, _torchao_config=recipe))  # type: ignore[union-attr]


def fill(model: Module, seed: int) -> None:
    """Gives every parameter and buffer of an emptied model its first values.

    A parameter's values follow from the seed and its name: each rank draws the whole of it and keeps its part, so they
    are the same however the model is sharded. (A DTensor that draws its own part would, without a CUDA generator,
    draw the same numbers on every rank.)
    """
    for path, module in model.named_modules():
        if not isinstance(module, Module) or module._param_init is None:
            continue
        clean = path.replace("_checkpoint_wrapped_module.", "").replace("_orig_mod.", "")
        module._param_init = {
            name: partial(_draw, init, _seed_of(seed, f"{clean}.{name}"))
            for name, init in module._param_init.items()
        }
    with torch.no_grad():
        model.init_states()


def _seed_of(seed: int, name: str) -> int:
    return int.from_bytes(sha256(f"{seed} {name}".encode()).digest()[:7], "big")


def _draw(init: object, seed: int, parameter: Tensor) -> None:
    full = torch.empty(parameter.shape, dtype=parameter.dtype, device=local(parameter).device)
    with torch.random.fork_rng(devices=[full.device] if full.is_cuda else []):
        torch.manual_seed(seed)
        init(full)  # type: ignore[operator]
    parameter.copy_(like(full, parameter))
