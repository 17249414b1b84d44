"""What the model reads and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from mmpack_trainer.model.masks import Mask


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """A micro-batch of B rows of L places, on the model's device.

    Attributes:
        tokens: int64 (B, L), ids.
        positions: int64 (B, L), distance from the document's start.
        valid: bool (B, L), False at pads and at the places of unreadable samples.
        mask: who attends to whom.
        numbers: of the rows in the run; the noise on a gate is drawn by them.
        patches: float (P, pixels), in [-1, 1].
        patch_index, value_index, action_index: int64, flat places of the batch that hold no id but what lies beside.
        values, actions: float (V, streams · 2 · width), see :func:`mmpack_trainer.batch.by_stream`.
        action_stream: int64 (A,), which of the continuous action streams each is of, from 0.
        cls_index: int64 (K, 2), flat places of the two `<|cls|>` of each contrastive pair.
    """

    tokens: Tensor
    positions: Tensor
    valid: Tensor
    mask: Mask
    numbers: tuple[int, ...]
    patches: Tensor
    patch_index: Tensor
    values: Tensor
    value_index: Tensor
    actions: Tensor
    action_index: Tensor
    action_stream: Tensor
    cls_index: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """The ids that a micro-batch predicts.

    Attributes:
        places: int64 (M,), flat places of the batch, ascending.
        ids: int64 (M,), what each is to predict.
        weights: float32 (M,), of each in the cross-entropy.
    """

    places: Tensor
    ids: Tensor
    weights: Tensor

    def none(self) -> Labels:
        """No labels: the output head then computes nothing."""
        return Labels(self.places[:0], self.ids[:0], self.weights[:0])


class Routing(NamedTuple):
    """What a layer's router did with a micro-batch; sums, so that they add up over micro-batches and ranks.

    Attributes:
        balance: float (), sum over rows of E · Σₑ fₑ·Pₑ, the load-balancing loss of each (arXiv 2101.03961), f being the
            share of a row's choices and P the mean probability. With gradient.
        z: float (), sum over tokens of logsumexp² of the gate's logits (arXiv 2202.08906). With gradient.
        chosen: int64 (E,), tokens that chose each expert.
        dropped: int64 (), choices beyond an expert's capacity.
        gate: float (5,), sums over tokens of the logits' mean, their variance, logsumexp, the entropy of the
            probabilities, and the margin between the last chosen expert and the next.
    """

    balance: Tensor
    z: Tensor
    chosen: Tensor
    dropped: Tensor
    gate: Tensor


class Outputs(NamedTuple):
    """Attributes:
    logits: (B, L, ids); under tensor parallelism a DTensor cut along the ids. None if there were labels.
    ce: float64 (), weighted sum of the labels' cross-entropy; None without labels.
    actions: float (A, width), predictions of continuous actions, made at the place before each.
    embeddings: float (K, 2, contrastive_dim), of length 1; None without a contrastive head.
    temperature: float (1,), τ; None unless it is learned.
    routing: of each layer with experts, in order.
    """

    logits: Tensor | None
    ce: Tensor | None
    actions: Tensor | None
    embeddings: Tensor | None
    temperature: Tensor | None
    routing: tuple[Routing, ...]

    def all_logits(self) -> Tensor:
        """`logits`. Raises ValueError if the model was run with labels."""
        if self.logits is None:
            raise ValueError("the model was run with labels, and made no logits beyond their losses")
        return self.logits
