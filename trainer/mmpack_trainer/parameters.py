"""How many parameters a model has, and how many work on a token, without building it."""

from __future__ import annotations

from dataclasses import dataclass

from mmpack.layout import Layout
from mmpack_trainer.config.schema import ModelConfig


@dataclass(frozen=True, slots=True)
class Parameters:
    """Counts by part, over all layers.

    Left out are norms, the products of continuous values and actions, and the contrastive head, which few places meet:
    all together less than 1 % of a model.
    """

    embedding: int
    """Rows of the vocabulary, looked up and not multiplied."""
    head: int
    """Output ids: vocabulary × width."""
    attention: int
    """Query, key, value and output products."""
    dense: int
    """Feed-forward of the layers without experts."""
    router: int
    """Gates."""
    shared: int
    """Experts that every token goes through."""
    routed: int
    """Experts that a token goes through `top_k` of `experts` of."""
    routed_active: int
    """Those `top_k`."""
    patches: int
    """Pixels of a patch to its embedding; works at patch places alone."""

    @property
    def total(self) -> int:
        """All that is stored and trained."""
        always = self.attention + self.dense + self.router + self.shared
        return self.embedding + self.head + always + self.routed + self.patches

    @property
    def active(self) -> int:
        """Those that one token can meet: `total` less the experts it is not sent to."""
        return self.total - self.routed + self.routed_active

    @property
    def products(self) -> int:
        """N of 6·N·T: those that each token is multiplied with; neither the embedding nor the patches'."""
        return self.active - self.embedding - self.patches


def head_width(model: ModelConfig) -> int:
    """Width of an attention head."""
    return model.head_dim or model.dim // model.heads


def parameters_of(model: ModelConfig, layout: Layout) -> Parameters:
    """Parameters of `model` over the ids and patches of `layout`."""
    width, moe = head_width(model), model.moe
    expert = 3 * model.dim * moe.hidden_dim if moe else 0
    sparse = max(0, model.layers - moe.dense_layers) if moe else 0
    table = layout.vocabulary.size * model.dim
    pixels = 3 * layout.config.vision.token_side**2
    return Parameters(
        embedding=table,
        head=table,
        attention=model.layers * 2 * model.dim * width * (model.heads + model.kv_heads),
        dense=(model.layers - sparse) * 3 * model.dim * model.hidden_dim,
        router=sparse * model.dim * moe.experts if moe else 0,
        shared=sparse * expert * moe.shared_experts if moe else 0,
        routed=sparse * expert * moe.experts if moe else 0,
        routed_active=sparse * expert * moe.top_k if moe else 0,
        patches=pixels * model.dim + (model.dim**2 if model.vision == "mlp" else 0),
    )
