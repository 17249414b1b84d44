"""The decoder of a `[model]` table, as a tree of torchtitan's configurations, with how each part is sharded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import log, sqrt

import spmd_types as spmd
from torch import nn

from mmpack.layout import Layout
from mmpack_trainer.config.schema import LossConfig, ModelConfig
from mmpack_trainer.model.attention import inner_attention
from mmpack_trainer.model.decoder import DecoderBlock, MultimodalDecoder
from mmpack_trainer.model.embedding import MultimodalEmbedding
from mmpack_trainer.model.head import IdHead
from mmpack_trainer.model.masks import Backend
from mmpack_trainer.model.moe import Dispatcher, Experts, Gate, MultimodalMoE, Router
from mmpack_trainer.titan import (
    CosSinRoPE,
    Embedding,
    GQAttention,
    Linear,
    QKVLinear,
    RMSNorm,
    RoutedExperts,
    ShardingConfig,
    dense_activation_placement,
    dense_param_placement,
    make_ffn_config,
    norm_config,
    set_decoder_sharding_config,
    set_dense_ffn_sharding,
    set_gqa_attention_sharding,
    set_gqa_inner_attention_local_map,
    set_moe_sharding_config,
)

DEVIATION = 0.02
"""Of the first weights (GPT-2, Megatron-LM)."""
MULTIPLE = 128
"""The vocabulary is padded to a multiple of it, so that every number of tensor-parallel ranks divides it."""

Init = dict[str, Callable[..., object]]
_NORMAL: Init = {"weight": partial(nn.init.normal_, std=DEVIATION)}


@dataclass(frozen=True, slots=True)
class Widths:
    """What a model must know of a layout.

    Attributes:
        vocabulary: ids, padded to a multiple of `MULTIPLE`.
        pixels: numbers of a patch.
        value_streams, action_streams: numbers in `layout.numeric` of the continuous streams of each role.
        value_width, action_width: of the widest of them, as in the arrays of a row; 0 if there is none.
    """

    vocabulary: int
    pixels: int
    value_streams: tuple[int, ...]
    action_streams: tuple[int, ...]
    value_width: int
    action_width: int

    @classmethod
    def of(cls, layout: Layout) -> Widths:
        """Those of a layout."""
        streams = list(enumerate(layout.config.numeric))
        values = [(n, s.width) for n, s in streams if s.mode == "continuous" and s.role != "action"]
        actions = [(n, s.width) for n, s in streams if s.mode == "continuous" and s.role == "action"]
        return cls(
            vocabulary=-(-layout.vocabulary.size // MULTIPLE) * MULTIPLE,
            pixels=3 * layout.config.vision.token_side**2,
            value_streams=tuple(number for number, _ in values),
            action_streams=tuple(number for number, _ in actions),
            value_width=max((width for _, width in values), default=0),
            action_width=max((width for _, width in actions), default=0),
        )


def decoder_config(
    model: ModelConfig,
    loss: LossConfig,
    widths: Widths,
    *,
    max_seq_len: int,
    backend: Backend,
    expert_parallel: bool = False,
    seed: int = 0,
) -> MultimodalDecoder.Config:
    """The whole model; `.build()` makes it. Sharding is told for sequence parallelism, which goes with tensor
    parallelism, and does nothing where there is none. `seed` is of the noise on the gates."""
    config = MultimodalDecoder.Config(
        dim=model.dim,
        vocab_size=widths.vocabulary,
        tok_embeddings=_embedding(model, widths),  # type: ignore[arg-type]
        layers=[
            _block(model, number, max_seq_len, backend, seed, expert_parallel=expert_parallel)
            for number in range(model.layers)
        ],
        norm=_norm(model),
        lm_head=IdHead.Config(in_features=model.dim, out_features=widths.vocabulary, param_init=_NORMAL),
        action_head=_linear(model.dim, len(widths.action_streams) * widths.action_width),
        action_width=widths.action_width,
        contrastive_head=_linear(model.dim, model.contrastive_dim),
        temperature=loss.temperature if loss.learn_temperature and model.contrastive_dim else None,
        param_init={"log_temperature": partial(nn.init.constant_, val=log(loss.temperature))},
    )
    embedding = config.tok_embeddings
    set_decoder_sharding_config(config, enable_sp=True)
    embedding.sharding_config = ShardingConfig()
    config.lm_head.sharding_config = _states(spmd.S(0))
    config.sharding_config = ShardingConfig(
        state_shardings={"log_temperature": dense_param_placement(tp=spmd.R)}
    )
    for head in (config.action_head, config.contrastive_head):
        if head is not None:
            head.sharding_config = ShardingConfig(
                state_shardings={"weight": dense_param_placement(tp=spmd.R)},
                in_src_shardings={"input": dense_activation_placement(tp=spmd.R)},
            )
    return config


def _embedding(model: ModelConfig, widths: Widths) -> MultimodalEmbedding.Config:
    columns = _states(spmd.S(0))
    tokens = Embedding.Config(num_embeddings=widths.vocabulary, embedding_dim=model.dim, param_init=_NORMAL)
    tokens.sharding_config = columns
    out = _linear(model.dim, model.dim) if model.vision == "mlp" else None
    config = MultimodalEmbedding.Config(
        tokens=tokens,
        patches=Linear.Config(in_features=widths.pixels, out_features=model.dim, param_init=_NORMAL),
        patches_out=out,
        values=_linear(2 * widths.value_width * len(widths.value_streams), model.dim),
        actions=_linear(2 * widths.action_width * len(widths.action_streams), model.dim),
    )
    for linear in (config.patches, config.values, config.actions):
        if linear is not None:
            linear.sharding_config = columns
    if out is not None:
        out.sharding_config = _states(spmd.S(1))
    return config


def _block(
    model: ModelConfig, number: int, max_seq_len: int, backend: Backend, seed: int, *, expert_parallel: bool
) -> DecoderBlock.Config:
    # What is added to the residual stream is scaled down by the number of additions (GPT-2).
    residual: Init = {"weight": partial(nn.init.normal_, std=DEVIATION / sqrt(2 * model.layers))}
    is_dense = model.moe is None or number < model.moe.dense_layers
    config = DecoderBlock.Config(
        attention=_attention(model, residual, max_seq_len, backend),
        attention_norm=_norm(model),
        ffn_norm=_norm(model),
        feed_forward=_feed_forward(model.dim, model.hidden_dim, residual) if is_dense else None,
        moe=None if is_dense else _moe(model, number, residual, seed),
    )
    norm = norm_config(enable_sp=True)
    config.attention_norm.sharding_config = config.ffn_norm.sharding_config = norm
    set_gqa_attention_sharding(config.attention, enable_sp=True)
    set_gqa_inner_attention_local_map(config.attention.inner_attention)
    if config.feed_forward is not None:
        layout = norm.out_src_shardings
        set_dense_ffn_sharding(config.feed_forward, attn_x_layout=layout, enable_sp=True)  # type: ignore[arg-type]
    if config.moe is not None:
        set_moe_sharding_config(
            config.moe,
            enable_ep=expert_parallel,
            enable_sp=True,
            expert_param_layout={"w1_EFD": spmd.S(1), "w2_EDF": spmd.S(2), "w3_EFD": spmd.S(1)},
        )
    return config


def _attention(model: ModelConfig, residual: Init, max_seq_len: int, backend: Backend) -> GQAttention.Config:
    width = model.head_dim or model.dim // model.heads
    return GQAttention.Config(
        n_heads=model.heads,
        n_kv_heads=model.kv_heads,
        head_dim=width,
        dim=model.dim,
        qkv_linear=QKVLinear.Config(
            head_dim=width,
            wq=Linear.Config(in_features=model.dim, out_features=model.heads * width, param_init=_NORMAL),
            wkv=Linear.Config(in_features=model.dim, out_features=model.kv_heads * width, param_init=_NORMAL),
        ),
        wo=Linear.Config(in_features=model.heads * width, out_features=model.dim, param_init=residual),
        inner_attention=inner_attention(backend),
        rope=CosSinRoPE.Config(dim=width, max_seq_len=max_seq_len, theta=model.rope_theta),
    )


def _moe(model: ModelConfig, number: int, residual: Init, seed: int) -> MultimodalMoE.Config:
    moe = model.moe
    if moe is None:
        raise ValueError("the model has no experts")
    down = residual["weight"]
    shared = moe.shared_experts * moe.hidden_dim
    return MultimodalMoE.Config(
        num_experts=moe.experts,
        load_balance_coeff=moe.bias_rate or None,
        capacity_factor=moe.capacity_factor,
        router=Router.Config(
            num_experts=moe.experts,
            gate=Gate.Config(in_features=model.dim, out_features=moe.experts, param_init=_NORMAL),
            top_k=moe.top_k,
            noise=moe.noise,
            layer=number,
            seed=seed,
        ),
        routed_experts=RoutedExperts.Config(
            inner_experts=Experts.Config(
                dim=model.dim,
                hidden_dim=moe.hidden_dim,
                num_experts=moe.experts,
                param_init={"w1_EFD": _NORMAL["weight"], "w2_EDF": down, "w3_EFD": _NORMAL["weight"]},
            ),
            token_dispatcher=Dispatcher.Config(num_experts=moe.experts, top_k=moe.top_k),
        ),
        shared_experts=_feed_forward(model.dim, shared, residual) if shared else None,
    )


def _feed_forward(dim: int, hidden_dim: int, residual: Init):
    config = make_ffn_config(dim=dim, hidden_dim=hidden_dim, w1_param_init=_NORMAL, w2w3_param_init=_NORMAL)
    config.w2.param_init = residual
    return config


def _norm(model: ModelConfig) -> RMSNorm.Config:
    return RMSNorm.Config(
        normalized_shape=model.dim, eps=model.norm_eps, param_init={"weight": nn.init.ones_}
    )


def _linear(inputs: int, outputs: int) -> Linear.Config | None:
    """None if either is 0."""
    if not inputs or not outputs:
        return None
    return Linear.Config(in_features=inputs, out_features=outputs, param_init=_NORMAL)


def _states(tp) -> ShardingConfig:
    return ShardingConfig(state_shardings={"weight": dense_param_placement(tp=tp)})
