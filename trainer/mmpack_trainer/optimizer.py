"""AdamW over sharded parameters, and the balancing of experts by bias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial, Replicate
from torch.optim import AdamW, Optimizer

from mmpack_trainer.config.schema import OptimizerConfig
from mmpack_trainer.titan import like, local, whole


def adamw(model: nn.Module, config: OptimizerConfig) -> AdamW:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) with decay on everything of two dimensions or more.

    Weights are float32; moments too, or with `bf16_states` bfloat16, which the fused kernel on a GPU updates in place.
    """
    parameters = [each for each in model.parameters() if each.requires_grad]
    groups = [
        {"params": [each for each in parameters if each.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0},
    ]
    is_fused = parameters[0].is_cuda
    optimizer = AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=is_fused,
        foreach=False,
    )
    if config.bf16_states:
        optimizer.register_step_pre_hook(_make_states_bf16)
    return optimizer


@torch.no_grad()
def clip(model: nn.Module, max_norm: float) -> float:
    """Scales all gradients so that their common norm is at most `max_norm`; returns the norm before.

    Squares are added in float64, shards of one layout together and then over their ranks, so that the norm is the same
    on any layout. (In float32, the norm of a large tensor is off by some 1e-5.)
    """
    gradients = [each.grad for each in model.parameters() if each.grad is not None]
    sums: dict[tuple[Any, ...], Tensor] = {}
    for gradient in gradients:
        key = (gradient.device_mesh, gradient.placements) if isinstance(gradient, DTensor) else ()
        square = torch.linalg.vector_norm(local(gradient), dtype=torch.float64).square()
        sums[key] = sums[key] + square if key in sums else square
    total = 0.0
    for key, square in sums.items():
        if key:
            mesh, placements = key
            partial = [Replicate() if each.is_replicate() else Partial() for each in placements]
            square = DTensor.from_local(square, mesh, partial, run_check=False).full_tensor()
        total += square.item()
    norm = total**0.5
    factor = max_norm / (norm + 1e-6)
    if factor < 1:
        for gradient in gradients:
            gradient.mul_(factor)
    return norm


def row_norms(weights: Sequence[Tensor]) -> Tensor:
    """Norms of the gradients of the rows of weights of one shape (E, D), each laid out as the others.

    Returns:
        float32 (weights, E), equal on all ranks; (0, 0) of none.
    """
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    if not gradients:
        return torch.zeros(0, 0)
    # Put together before they are shared: one communication for all.
    return whole(torch.stack([each.double().square().sum(1) for each in gradients])).sqrt().float()


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """The learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def _make_states_bf16(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Puts bfloat16 moments where AdamW would make float32 ones at its first step."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            if parameter.grad is None or state:
                continue
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(parameter, dtype=torch.bfloat16)


@torch.no_grad()
def balance(bias: Tensor, chosen: Tensor, rate: float) -> None:
    """Moves the bias of experts that were chosen less than the mean up by `rate`, the others down (arXiv 2408.15664).

    Args:
        bias: float32 (E,), changed in place.
        chosen: (E,), tokens of the step that chose each expert, on all ranks.
        rate: of a step.
    """
    counts = chosen.float()
    change = rate * torch.sign(counts.mean() - counts)
    bias.add_(like(change - change.mean(), bias))
