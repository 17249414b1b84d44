"""The decoder: one causal transformer over the documents of packed rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmpack_trainer.model.inputs import Inputs, Labels, Outputs, Routing
from mmpack_trainer.model.moe import MultimodalMoE
from mmpack_trainer.titan import Decoder, Linear, TransformerBlock, whole


class DecoderBlock(TransformerBlock):
    """x + attention(norm(x)), then x + feed-forward(norm(x)), the feed-forward dense or of experts."""

    @dataclass(kw_only=True, slots=True)
    class Config(TransformerBlock.Config):
        pass

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = config.attention.build()
        self.attention_norm = config.attention_norm.build()
        self.ffn_norm = config.ffn_norm.build()
        self.moe_enabled = config.moe is not None
        if config.moe is not None:
            self.moe = config.moe.build()
        elif config.feed_forward is not None:
            self.feed_forward = config.feed_forward.build()

    def forward(self, x: Tensor, inputs: Inputs) -> tuple[Tensor, Routing | None]:
        x, normed = self.attend(x, inputs)
        if not self.moe_enabled:
            return x + self.feed_forward(normed), None
        moe: MultimodalMoE = self.moe
        return x + moe(normed, inputs), moe.take_routing()

    def attend(self, x: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """What comes before the feed-forward: the residual stream behind attention, and its norm."""
        x = x + self.attention(self.attention_norm(x), inputs.mask, inputs.positions)
        return x, self.ffn_norm(x)


class MultimodalDecoder(Decoder):
    """A decoder over ids, patches, continuous values and actions, with heads for ids, actions and embeddings.

    Forward: :class:`Inputs` to :class:`Outputs`; with :class:`Labels` their cross-entropy takes the place of the logits.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(Decoder.Config):
        action_head: Linear.Config | None
        """dim → streams · width."""
        action_width: int
        contrastive_head: Linear.Config | None
        temperature: float | None
        """Where a learned τ starts; None: τ is no parameter."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.action_head = config.action_head.build() if config.action_head else None
        self.action_width = config.action_width
        self.contrastive_head = config.contrastive_head.build() if config.contrastive_head else None
        self.log_temperature: nn.Parameter | None = None
        if config.temperature is not None:
            # One dimension and not none, since FSDP shards along the first.
            self.log_temperature = nn.Parameter(torch.empty(1))

    def experts(self) -> list[MultimodalMoE]:
        """The layers with experts, in order."""
        return [module for module in self.modules() if isinstance(module, MultimodalMoE)]

    def forward(self, inputs: Inputs, labels: Labels | None = None) -> Outputs:  # type: ignore[override]
        hidden = self.tok_embeddings(inputs)
        routing = []
        for layer in self.layers.values():
            hidden, routed = layer(hidden, inputs)
            if routed is not None:
                routing.append(routed)
        hidden = self.norm(hidden)
        flat = whole(hidden).flatten(0, 1)
        predicted = self.lm_head(hidden, labels)
        return Outputs(
            logits=predicted if labels is None else None,
            ce=None if labels is None else predicted,
            actions=self._actions(flat, inputs),
            embeddings=self._embeddings(flat, inputs),
            temperature=None if self.log_temperature is None else whole(self.log_temperature).float().exp(),
            routing=tuple(routing),
        )

    def _actions(self, flat: Tensor, inputs: Inputs) -> Tensor | None:
        if self.action_head is None:
            return None
        found = whole(self.action_head(flat[inputs.action_index - 1]))
        by_stream = found.unflatten(-1, (-1, self.action_width))
        return by_stream[torch.arange(len(found), device=found.device), inputs.action_stream].float()

    def _embeddings(self, flat: Tensor, inputs: Inputs) -> Tensor | None:
        if self.contrastive_head is None:
            return None
        found = whole(self.contrastive_head(flat[inputs.cls_index.flatten()])).unflatten(0, (-1, 2))
        return functional.normalize(found.float(), dim=-1)
