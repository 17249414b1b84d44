"""The output head: logits of ids, and the cross-entropy of those that are to be predicted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mmpack_trainer.memory import LOGITS
from mmpack_trainer.model.inputs import Labels
from mmpack_trainer.titan import Linear, local, token_losses


class IdHead(Linear):
    """One product over the vocabulary. Under tensor parallelism each rank has a part of the ids.

    With labels, logits are made where an id is to be predicted and nowhere else: pictures, sound and numbers are most of
    a row and predict no id. More than `LOGITS` of them are made in pieces, which the backward pass makes anew.

    Forward: (B, L, dim) to (B, L, ids), under tensor parallelism a DTensor cut along the ids; or with labels to their
    weighted cross-entropy, the float64 sum ().
    """

    @dataclass(kw_only=True, slots=True)
    class Config(Linear.Config):
        pass

    def forward(self, hidden: Tensor, labels: Labels | None = None) -> Tensor:  # type: ignore[override]
        weight = self.weight
        mesh = weight.device_mesh if isinstance(weight, DTensor) else None
        if isinstance(hidden, DTensor):
            # Each rank's ids give a part of the gradient.
            ranks = hidden.device_mesh.ndim
            hidden = hidden.redistribute(placements=[Replicate()] * ranks).to_local(
                grad_placements=[Partial()] * ranks
            )
        if labels is None:
            logits = functional.linear(hidden, local(weight))
            return logits if mesh is None else DTensor.from_local(logits, mesh, [Shard(-1)], run_check=False)
        chosen = hidden.flatten(0, 1)[labels.places]
        size = max(LOGITS // weight.shape[0], 1)
        pieces = list(
            zip(chosen.split(size), labels.ids.split(size), labels.weights.split(size), strict=True)
        )
        if len(pieces) == 1:
            return self._sum(*pieces[0])
        parts = [checkpoint(self._sum, *piece, use_reentrant=False) for piece in pieces]
        return torch.stack(parts).sum()

    def _sum(self, hidden: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        logits = functional.linear(hidden, local(self.weight))
        if isinstance(self.weight, DTensor):
            logits = DTensor.from_local(logits, self.weight.device_mesh, [Shard(-1)], run_check=False)
        # Sums of many numbers are made in float64, so that what is logged does not depend on their order.
        return (token_losses(logits[None], ids[None])[0] * weights).double().sum()
