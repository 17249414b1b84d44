"""Symmetric InfoNCE over the global batch: every pair of a step, on all ranks and in all micro-batches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mmpack_trainer.parallel import World


@dataclass(frozen=True, slots=True, eq=False)
class Contrast:
    """The loss of a step and how it changes with each embedding: what a micro-batch needs of all the others.

    Attributes:
        loss: float32 (), mean over pairs and over both directions; 0 without pairs.
        gradients: float32 (K, 2, width), of this rank's pairs in order.
        temperature: float32 (1,), gradient of τ over all pairs.
    """

    loss: Tensor
    gradients: Tensor
    temperature: Tensor

    def surrogate(self, embeddings: Tensor, first: int) -> Tensor:
        """A number whose gradient is the loss's: embeddings of this rank's pairs first, first + 1, ... ."""
        return (embeddings * self.gradients[first : first + len(embeddings)]).sum()


def info_nce(media: Tensor, text: Tensor, temperature: Tensor) -> Tensor:
    """(CE of media → text + CE of text → media) / 2, mean over pairs (van den Oord, arXiv 1807.03748; Radford,
    arXiv 2103.00020).

    Args:
        media, text: float32 (n, width), of length 1; pair i is row i of both.
        temperature: τ.
    """
    logits = media @ text.T / temperature
    own = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def contrast(embeddings: Tensor, valid: Tensor, temperature: Tensor, world: World) -> Contrast:
    """The contrastive loss of a step.

    Every rank gathers all embeddings and computes the whole loss, whose gradient by its own embeddings is then exact: that
    of the others by them is in it. What goes back into the model is each embedding times that gradient, which also serves
    micro-batches that were run one after the other (Gao et al., arXiv 2101.06983).

    Args:
        embeddings: float32 (K, 2, width), of this rank's pairs in all its micro-batches.
        valid: bool (K,); pairs that could not be read take no part.
        temperature: float32 (1,), τ.
        world: the ranks.
    """
    counts = torch.zeros(world.data_ranks, dtype=torch.int64, device=embeddings.device)
    counts[world.data_rank] = len(embeddings)
    sizes = world.add(counts).tolist()
    if not sum(sizes):
        return Contrast(embeddings.new_zeros(()), torch.zeros_like(embeddings), torch.zeros_like(temperature))
    everything = world.gather(embeddings, sizes).requires_grad_()
    usable = world.gather(valid.to(torch.uint8), sizes).bool()
    tau = temperature.detach().clone().requires_grad_()
    with torch.enable_grad():
        media, text = everything[usable].unbind(1)
        loss = info_nce(media, text, tau) if len(media) else everything.sum() * 0 + tau.sum() * 0
    gradients, by_tau = torch.autograd.grad(loss, (everything, tau))
    start = sum(sizes[: world.data_rank])
    return Contrast(loss.detach(), gradients[start : start + len(embeddings)], by_tau)
