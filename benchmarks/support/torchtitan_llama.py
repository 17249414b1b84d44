"""torchtitan's own llama3 as a baseline for the multimodal model, and a patch for torchtitan 0.3.0 on older torch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed.fsdp

if not hasattr(torch.distributed.fsdp, "DataParallelMeshDims"):
    # torchtitan 0.3.0 uses this class in annotations; torch 2.11 does not have it.
    torch.distributed.fsdp.DataParallelMeshDims = type("DataParallelMeshDims", (), {})  # type: ignore[misc]

from mmpack_trainer.batch import MicroBatch
from mmpack_trainer.config.schema import TrainConfig
from mmpack_trainer.model.attention import inner_attention
from mmpack_trainer.optimizer import adamw, clip
from mmpack_trainer.parallel import DTYPES, World
from mmpack_trainer.titan import apply_fsdp_to_decoder, token_losses

# isort: split
from torchtitan.models.common import ComplexRoPE, Embedding, Linear, RMSNorm
from torchtitan.models.llama3 import _EMBEDDING_INIT, _NORM_INIT, _build_llama3_layers, _output_linear_init
from torchtitan.models.llama3.model import Llama3Model


def make_llama3_step(
    config: TrainConfig, vocabulary: int, seq_len: int, world: World
) -> Callable[[MicroBatch], float]:
    """Makes a training step of torchtitan's llama3 with the size, precision and optimizer of `config`.

    The step reads ids, positions, mask and labels of a batch and returns the loss. All parts are torchtitan's own except
    the optimizer, the gradient clipping and, without a GPU, the attention.
    """
    size, dim = config.model, config.model.dim
    tree = Llama3Model.Config(
        dim=dim,
        vocab_size=vocabulary,
        tok_embeddings=Embedding.Config(
            num_embeddings=vocabulary, embedding_dim=dim, param_init=_EMBEDDING_INIT
        ),
        norm=RMSNorm.Config(normalized_shape=dim, param_init=_NORM_INIT),
        lm_head=Linear.Config(in_features=dim, out_features=vocabulary, param_init=_output_linear_init(dim)),
        layers=_build_llama3_layers(
            n_layers=size.layers,
            dim=dim,
            n_heads=size.heads,
            n_kv_heads=size.kv_heads,
            hidden_dim=size.hidden_dim,
            rope=ComplexRoPE.Config(dim=dim // size.heads, max_seq_len=seq_len, theta=size.rope_theta),
            attn_backend="flex",
        ),
    )
    on_gpu = world.device.type == "cuda"
    if not on_gpu:  # FlexAttention has no backward pass on the CPU
        for layer in tree.layers:
            layer.attention.inner_attention = inner_attention("sdpa")
    with torch.device("meta"):
        model = tree.build()
    if on_gpu:
        for block in model.layers.values():
            block.compile()
    apply_fsdp_to_decoder(
        model,
        world.dims.get_mesh("fsdp"),
        param_dtype=DTYPES["bfloat16"],
        reduce_dtype=torch.float32,
        pp_enabled=False,
    )
    for module in model.modules():
        if isinstance(module, torch.distributed.fsdp.FSDPModule):
            module.set_force_sum_reduction_for_comms(True)
    model.to_empty(device=world.device)
    with torch.no_grad():
        model.init_states()
    optimizer = adamw(model, config.optimizer)

    def step(batch: MicroBatch) -> float:
        inputs, labels = batch.inputs, batch.targets.labels
        logits = model(inputs.tokens, inputs.positions, inputs.mask)
        loss = token_losses(logits, labels).sum() / (labels >= 0).sum()
        loss.backward()
        clip(model, config.optimizer.max_norm)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step
