"""The loss of a micro-batch as its part of the step's: every sum is divided by what all micro-batches and ranks hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmpack_trainer.batch import MicroBatch, Targets
from mmpack_trainer.config.schema import LossConfig
from mmpack_trainer.contrastive import Contrast
from mmpack_trainer.model.inputs import Outputs
from mmpack_trainer.parallel import World

PARTS = ("ce", "action", "aux", "z")
"""Parts that are sums over places, values or rows. InfoNCE is none: see :mod:`mmpack_trainer.contrastive`."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What a step holds, over all micro-batches and data-parallel ranks.

    Attributes:
        weight: of all labels.
        labels: places where an id is predicted.
        actions: numbers of continuous actions.
        rows, tokens: of the step; pads and what could not be read are no tokens.
        pairs: contrastive pairs.
    """

    weight: float
    labels: int
    actions: int
    rows: int
    tokens: int
    pairs: int


def totals(batches: Sequence[MicroBatch], world: World) -> Totals:
    """Of the step that `batches` are this rank's part of."""
    counts = torch.zeros(6, dtype=torch.float64, device=world.device)
    for batch in batches:
        inputs, targets = batch.inputs, batch.targets
        counts += torch.stack(
            [
                targets.ids.weights.sum(dtype=torch.float64),
                torch.tensor(len(targets.ids.places), device=world.device),
                targets.action_mask.sum(),
                torch.tensor(len(inputs.tokens), device=world.device),
                inputs.valid.sum(),
                targets.pair_valid.sum(),
            ]
        ).double()
    weight, labels, actions, rows, tokens, pairs = world.add(counts).tolist()
    return Totals(weight, int(labels), int(actions), int(rows), int(tokens), int(pairs))


@dataclass(frozen=True, slots=True, eq=False)
class Loss:
    """Attributes:
    value: float64 (), what is differentiated.
    parts: float64 (len(PARTS),), the parts without their factors; no gradient.
    """

    value: Tensor
    parts: Tensor


def loss_of(
    outputs: Outputs,
    targets: Targets,
    config: LossConfig,
    sums: Totals,
    contrast: Contrast | None,
    *,
    first: int,
    shares: int,
) -> Loss:
    """A micro-batch's share of the step's loss, so that the shares of all micro-batches and ranks add up to it.

    Args:
        outputs: of the model, run with the labels.
        targets: of the micro-batch.
        config: factors of the parts.
        sums: of the step.
        contrast: of the step; None: no contrastive loss.
        first: number of the micro-batch's first pair among this rank's.
        shares: micro-batches of a step, over all data-parallel ranks.
    """
    layers = max(len(outputs.routing), 1)
    if outputs.ce is None:
        raise ValueError("the model was run without the labels")
    zero = torch.zeros_like(outputs.ce)
    ce = outputs.ce / max(sums.weight, 1e-9)
    action = _action(outputs.actions, targets) / max(sums.actions, 1) if outputs.actions is not None else zero
    aux = sum((each.balance for each in outputs.routing), zero) / (sums.rows * layers)
    z = sum((each.z for each in outputs.routing), zero) / (max(sums.tokens, 1) * layers)
    value = ce + config.action * action + config.aux * aux + config.z * z
    if contrast is not None and outputs.embeddings is not None:
        value = value + config.contrastive * contrast.surrogate(outputs.embeddings, first)
        if outputs.temperature is not None:
            # Each knows the whole gradient, and what they give is added up.
            value = value + config.contrastive * (outputs.temperature * contrast.temperature).sum() / shares
    return Loss(value, torch.stack([ce, action, aux, z]).detach())


def _action(predicted: Tensor, targets: Targets) -> Tensor:
    """Sum of squared differences over the numbers that there are."""
    return ((predicted - targets.actions).square() * targets.action_mask).double().sum()
