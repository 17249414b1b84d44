"""What a process holds in the memory of its accelerator while it trains, in bytes, without building the model.

Activations are counted as Korthikanti et al. do (arXiv 2205.05198, section 4), tensor by tensor of what the backward pass
needs, for this decoder: RMSNorm and no dropout, grouped queries, an attention kernel that keeps no L × L, SwiGLU. With
width h, all query heads together a wide, all key heads g, feed-forward f, and c bytes a number, a place of a layer keeps

    c · (4h + 2a + 2g + 4f) + 4 · heads

the residual stream and its norm before each half; queries and the output; keys and values; gate, its SiLU, up, and their
product; the logsumexp of each head. Tensor-parallel peers share all of it, sequence parallelism going with it.

Left out are the driver's context, what the allocator cannot use, and buffers of communication: see `ROOM`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from mmpack_trainer.accounting import BatchSize
from mmpack_trainer.config.schema import ModelConfig, MoeConfig, TrainConfig
from mmpack_trainer.parameters import Parameters, head_width

ROOM = 0.95
"""Share of a device's memory that an estimate may take."""
LOGITS = 1 << 27
"""Logits that the output head holds at a time, 512 MiB of float32; tensor-parallel peers share them."""

_FLOAT32 = 4
_BFLOAT16 = 2
#: Gate logits, their probabilities, and what the balancing losses make of them.
_GATE_COPIES = 3


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one process at the fullest moment of a step."""

    states: int
    """Shards of master weights, gradients and both moments."""
    gathered: int
    """Whole weights of the layer at work and of the next, and the first one's gradient before it is shared out."""
    activations: int
    """Kept from forward to backward, and what is recomputed of one layer."""
    logits_a_row: int
    """Those of a row that predicts an id everywhere, with what cross-entropy makes of them, there and back."""
    logits_at_once: int
    """The most that are held, however many rows there are."""
    micro_batch: int
    """Rows that activations and logits are of."""

    @property
    def logits(self) -> int:
        """Of the micro-batch."""
        return min(self.micro_batch * self.logits_a_row, self.logits_at_once)

    @property
    def total(self) -> int:
        """All of it."""
        return self.fixed + self.activations + self.logits

    @property
    def fixed(self) -> int:
        """What does not grow with the micro-batch."""
        return self.states + self.gathered

    def most_rows(self, memory_bytes: int) -> int:
        """The largest micro-batch that a device of `memory_bytes` has room for; 0: not even one row."""
        room, a_row = int(ROOM * memory_bytes) - self.fixed, self.activations // self.micro_batch
        return max(0, room // (a_row + self.logits_a_row), (room - self.logits_at_once) // a_row)

    def __str__(self) -> str:
        return (
            f"about {in_bytes(self.total)} a process (states {in_bytes(self.states)}, gathered layers {in_bytes(self.gathered)}, "
            f"activations {in_bytes(self.activations)}, logits {in_bytes(self.logits)})"
        )


def memory_of(config: TrainConfig, batch: BatchSize, parameters: Parameters, *, world: int) -> Memory:
    """The estimate for each of `world` processes, experts being chosen evenly."""
    each = _FLOAT32 if config.compute.precision == "float32" else _BFLOAT16
    places = batch.micro_batch * batch.seq_len // config.parallel.tensor
    # It, its log-probability, and the gradients of the two: all but the first in float32.
    a_logit = each + 3 * _FLOAT32
    return Memory(
        states=_states(config, parameters, world),
        gathered=_gathered(config, parameters, each),
        activations=places * _kept(config.model, each, config.compute.recompute),
        logits_a_row=batch.seq_len
        // config.parallel.tensor
        * (parameters.head // config.model.dim)
        * a_logit,
        logits_at_once=LOGITS // config.parallel.tensor * a_logit,
        micro_batch=batch.micro_batch,
    )


def in_bytes(count: int) -> str:
    """Bytes to read."""
    unit, name = (1 << 30, "GiB") if count >= 1 << 30 else (1 << 20, "MiB")
    return f"{count / unit:,.1f} {name}"


def _states(config: TrainConfig, parameters: Parameters, world: int) -> int:
    moment = _BFLOAT16 if config.optimizer.bf16_states else _FLOAT32
    # Experts are cut over expert-parallel ranks and the shards that are left, all else over tensor-parallel ranks and
    # theirs: over all processes of a replica, either way. Gates alone are whole in tensor-parallel peers.
    replica = world // config.parallel.replicate
    shards = replica // config.parallel.tensor
    own = ceil((parameters.total - parameters.router) / replica) + ceil(parameters.router / shards)
    return own * 2 * (_FLOAT32 + moment)


def _gathered(config: TrainConfig, parameters: Parameters, each: int) -> int:
    """FSDP2 gathers a layer, and the next one meanwhile; a gradient is added up in float32 when its ranks share it."""
    model, moe, tensor = config.model, config.model.moe, config.parallel.tensor
    attention = parameters.attention // model.layers
    units = [parameters.head // tensor]
    if parameters.dense:
        units.append((attention + 3 * model.dim * model.hidden_dim) // tensor)
    if moe is not None:
        expert = 3 * model.dim * moe.hidden_dim
        # Without expert parallelism, tensor-parallel peers share each expert.
        routed = moe.experts * expert // (config.parallel.expert if config.parallel.expert > 1 else tensor)
        units.append(routed + (attention + moe.shared_experts * expert) // tensor + model.dim * moe.experts)
    return max(units) * (3 * each + _FLOAT32)


def _kept(model: ModelConfig, each: int, recompute: str) -> int:
    """Bytes of a place over all layers; what is recomputed is there for one layer at a time."""
    kept_dense, kept_sparse = _KEPT[recompute]
    moe = model.moe
    dense = model.layers if moe is None else moe.dense_layers
    kept = dense * kept_dense(model, each)
    again = _dense(model, each) if dense else 0
    if moe is not None:
        kept += (model.layers - dense) * kept_sparse(model, moe, each)
        again = max(again, _sparse(model, moe, each))
    return kept if recompute == "none" else kept + again


def _attention(model: ModelConfig, each: int) -> int:
    query, key = model.heads * head_width(model), model.kv_heads * head_width(model)
    return each * (2 * model.dim + 2 * query + 2 * key) + _FLOAT32 * model.heads


def _dense(model: ModelConfig, each: int) -> int:
    return _attention(model, each) + each * (2 * model.dim + 4 * model.hidden_dim)


def _sparse(model: ModelConfig, moe: MoeConfig, each: int) -> int:
    """Each choice is a place of an expert, and its output is weighed in float32; the gate reads float32."""
    gate = _FLOAT32 * (model.dim + _GATE_COPIES * moe.experts)
    routed = moe.top_k * (each * (model.dim + 4 * moe.hidden_dim) + _FLOAT32 * model.dim)
    shared = moe.shared_experts * each * 4 * moe.hidden_dim
    return _attention(model, each) + each * 2 * model.dim + gate + routed + shared


def _attention_selected(model: ModelConfig, each: int) -> int:
    """torchtitan keeps every second product of a layer, from the first on, and what attention gives."""
    query, value = model.heads * head_width(model), model.kv_heads * head_width(model)
    return each * (model.dim + 2 * query + value) + _FLOAT32 * model.heads


def _dense_selected(model: ModelConfig, each: int) -> int:
    return _attention_selected(model, each) + each * (model.hidden_dim + model.dim)


def _sparse_selected(model: ModelConfig, moe: MoeConfig, each: int) -> int:
    """Experts' products are made again; what goes to experts of other processes and comes back is kept."""
    sent = 2 * moe.top_k * model.dim
    shared = moe.shared_experts * moe.hidden_dim + model.dim if moe.shared_experts else 0
    return _attention_selected(model, each) + each * (sent + shared)


#: Bytes that a place of a layer keeps, without experts and with, by how much is recomputed.
_KEPT: dict[str, tuple[Callable[[ModelConfig, int], int], Callable[[ModelConfig, MoeConfig, int], int]]] = {
    "none": (_dense, _sparse),
    "selective": (_dense_selected, _sparse_selected),
    "full": (lambda model, each: each * model.dim, lambda model, moe, each: each * model.dim),
}
