"""Mixture of experts: torchtitan's layer, with statistics and losses of the router, noise, and a capacity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate
from torch.nn import functional

from mmpack_trainer.model.inputs import Inputs, Routing
from mmpack_trainer.titan import (
    AllToAllTokenDispatcher,
    GroupedExperts,
    Linear,
    MoE,
    TokenChoiceTopKRouter,
    like,
    local,
    whole,
)

# Letters of shapes are torchtitan's: B rows, L places, E experts, K choices of a token, D width.


class Experts(GroupedExperts):
    """SwiGLU experts; in one grouped product where there is one (bf16 on a GPU), else one after the other.

    torchtitan's cast every product to bf16, whatever the model's precision is.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(GroupedExperts.Config):
        pass

    def forward(self, tokens: Tensor, counts: Tensor) -> Tensor:
        if tokens.is_cuda and tokens.dtype == torch.bfloat16:
            return super().forward(tokens, counts)
        gates, downs, ups = local(self.w1_EFD), local(self.w2_EDF), local(self.w3_EFD)
        parts = [
            functional.linear(functional.silu(functional.linear(x, gate)) * functional.linear(x, up), down)
            for x, gate, down, up in zip(tokens.split(counts.tolist()), gates, downs, ups, strict=True)
        ]
        return torch.cat(parts)


class Dispatcher(AllToAllTokenDispatcher):
    """Sends a token to the experts it was sent to; a choice numbered `num_experts` goes nowhere and costs nothing."""

    @dataclass(kw_only=True, slots=True)
    class Config(AllToAllTokenDispatcher.Config):
        pass

    def _local_reorder(
        self,
        tokens: Tensor,
        scores: Tensor,
        choices: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        chosen = choices.flatten()
        order = torch.argsort(chosen, stable=True)[: int((chosen < self.num_experts).sum())]
        places = order // self.top_k
        return tokens[places], places, scores.flatten()[order]


class Gate(Linear):
    """Logits in float32: what they choose must not hang on how they were rounded."""

    @dataclass(kw_only=True, slots=True)
    class Config(Linear.Config):
        pass

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input.float(), self.weight.float())


class Router(TokenChoiceTopKRouter):
    """Softmax over all experts, the best K by probability + bias, their probabilities made to sum to 1."""

    @dataclass(kw_only=True, slots=True)
    class Config(TokenChoiceTopKRouter.Config):
        noise: float
        """Deviation of Gaussian noise on the logits in training."""
        layer: int
        seed: int
        """Of the noise."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.noise, self.seed = config.noise, (config.seed, config.layer)

    def forward(
        self,
        hidden: Tensor,
        bias: Tensor | None,
        numbers: tuple[int, ...],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Scores (B, L, K), experts (B, L, K), logits and probabilities (B, L, E); float32."""
        logits = self.gate(hidden)
        if self.training and self.noise:
            logits = logits + like(self._noise(numbers, hidden.shape[1], local(logits).device), logits)
        probabilities = logits.softmax(-1)
        ranked = probabilities.detach() if bias is None else probabilities.detach() + bias
        experts = ranked.topk(self.top_k, dim=-1).indices
        scores = probabilities.gather(-1, experts)
        return scores / scores.sum(-1, keepdim=True), experts, logits, probabilities

    def _noise(self, numbers: tuple[int, ...], places: int, device: torch.device) -> Tensor:
        """Of each row by its number in the run: the same on any layout, and when activations are recomputed."""
        rows = []
        for number in numbers:
            # Mixed, since torch's generator of a CPU takes 32 bits of a seed: neighbours must differ in all of them.
            (seed,) = np.random.SeedSequence((*self.seed, number)).generate_state(1, np.uint64).tolist()
            generator = torch.Generator(device).manual_seed(seed)
            rows.append(torch.randn(places, self.num_experts, generator=generator, device=device))
        return torch.stack(rows) * self.noise


class MultimodalMoE(MoE):
    """Shared experts for every token and routed ones by choice.

    Pads are sent nowhere. With a capacity factor c, an expert takes at most ⌈c · K · T / E⌉ of a row's T tokens: first
    choices before second ones, earlier places before later; what is beyond is dropped and counted. Counting by row makes
    it the same on any number of ranks.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(MoE.Config):
        capacity_factor: float | None

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.capacity_factor = config.capacity_factor
        self._routing: Routing | None = None

    def take_routing(self) -> Routing:
        """What the last forward pass did. Kept until it is taken: torchtitan's sharding takes one output alone."""
        routing, self._routing = self._routing, None
        if routing is None:
            raise RuntimeError("the layer was not run")
        return routing

    def forward(self, x_BLD: Tensor, inputs: Inputs) -> Tensor:  # noqa: N803 - sharding goes by the name
        if isinstance(x_BLD, DTensor):
            # Where one row is cut over ranks its parts are still on their way, and torch 2.13 loses the gradient of what it
            # waits for on entering the experts (`_func_map.py`). A copy has arrived.
            x_BLD = x_BLD.clone()  # noqa: N806
        scores, experts, logits, probabilities = self.router(x_BLD, self.expert_bias_E, inputs.numbers)
        valid = like(inputs.valid, probabilities)
        kept = self._kept(experts, inputs.valid)
        self._routing = self._statistics(logits, probabilities, experts, kept, valid)
        sent = experts.masked_fill(~kept, self.router.num_experts)
        out = self.routed_experts(x_BLD, scores, sent, self._count(local(sent)))
        return out if self.shared_experts is None else out + self.shared_experts(x_BLD)

    def _count(self, experts: Tensor) -> Tensor:
        """(E,), how often each expert is in `experts`, which may be numbered E for none."""
        return torch.bincount(experts.flatten(), minlength=self.router.num_experts + 1)[:-1]

    def _kept(self, experts: Tensor, valid: Tensor) -> Tensor:
        """Which choices are served: bool (B, L, K), laid out as `experts`."""
        if self.capacity_factor is None:
            return like(valid[..., None].expand(experts.shape), experts)
        total, top_k = self.router.num_experts, self.router.top_k
        capacity = torch.ceil(valid.sum(1) * (self.capacity_factor * top_k / total))
        # All first choices, then all second ones: (B, K · L).
        chosen = whole(experts).masked_fill(~valid[..., None], total).transpose(1, 2).flatten(1)
        before = functional.one_hot(chosen, total + 1).cumsum(1).gather(-1, chosen[..., None])[..., 0]
        kept = (before <= capacity[:, None]) & (chosen < total)
        return like(kept.unflatten(1, (top_k, -1)).transpose(1, 2), experts)

    def _statistics(
        self, logits: Tensor, probabilities: Tensor, experts: Tensor, kept: Tensor, valid: Tensor
    ) -> Routing:
        total = self.router.num_experts
        weight = valid.float()[..., None]
        chosen = local(experts).masked_fill(~local(valid)[..., None], total)
        # (B, E): under expert parallelism a row is cut over the tensor-parallel ranks, and the sums are put together.
        counts = torch.stack([self._count(row) for row in chosen])
        shares = whole(_summed(counts, experts))
        mean = whole((probabilities * weight).sum(1))
        tokens = whole(weight.sum((1, 2))).clamp(min=1)
        balance = total * (shares / (tokens[:, None] * self.router.top_k) * mean / tokens[:, None]).sum()
        spread = logits.logsumexp(-1)
        z = whole((spread.square() * weight[..., 0]).sum())
        with torch.no_grad():
            ordered = logits.topk(min(self.router.top_k + 1, total), dim=-1).values
            entropy = spread - (probabilities * logits).sum(-1)
            # Where all are chosen there is no next one.
            is_choice = total > self.router.top_k
            margin = ordered[..., -2] - ordered[..., -1] if is_choice else torch.zeros_like(spread)
            facts = (logits.mean(-1), logits.var(-1, correction=0), spread, entropy, margin)
            gate = torch.stack([whole((fact * weight[..., 0]).sum()) for fact in facts])
            dropped = whole((~kept & valid[..., None]).sum())
        return Routing(balance, z, shares.sum(0), dropped, gate)


def _summed(part: Tensor, reference: Tensor) -> Tensor:
    """A count made from the local part of `reference`: partial along the mesh axes that cut it."""
    if not isinstance(reference, DTensor):
        return part
    placements = [Replicate() if place.is_replicate() else Partial() for place in reference.placements]
    return DTensor.from_local(part, reference.device_mesh, placements, run_check=False)
