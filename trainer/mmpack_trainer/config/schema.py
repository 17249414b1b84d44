"""The tables of a training run's TOML file, one class each."""

from __future__ import annotations

from typing import Literal

from mmpack.settings import Settings


class DataConfig(Settings, frozen=True, kw_only=True):
    """`[data]`: where rows come from."""

    plan: str
    """A PLAN.toml; a relative path starts at the file. Its `max_seq_len` and `global_batch` are the run's."""
    workers: int | None = None
    """Worker processes that read and decode, in place of the plan's."""
    threads: int | None = None
    """Threads that do, in place of the plan's."""


class MoeConfig(Settings, frozen=True, kw_only=True):
    """`[model.moe]`: routed experts in place of the feed-forward of each layer."""

    experts: int
    """Routed experts of a layer."""
    top_k: int = 2
    """Experts a token is sent to."""
    hidden_dim: int
    """Inner width of a routed expert."""
    shared_experts: int = 0
    """Experts of that width that every token goes through."""
    dense_layers: int = 0
    """First layers that keep a dense feed-forward."""
    bias_rate: float = 1e-3
    """Step of the balancing bias (aux-loss-free balancing, arXiv 2408.15664); 0: none."""
    noise: float = 0.0
    """Deviation of the Gaussian noise on gate logits while training (arXiv 1701.06538)."""
    capacity_factor: float | None = None
    """Places of an expert over its even share; tokens beyond are dropped and counted. None: dropless."""


class ModelConfig(Settings, frozen=True, kw_only=True):
    """`[model]`: one decoder over all modalities."""

    dim: int
    """Width."""
    layers: int
    """Blocks."""
    heads: int
    """Query heads."""
    kv_heads: int
    """Key and value heads."""
    head_dim: int | None = None
    """Width of a head; default dim / heads."""
    hidden_dim: int
    """Inner width of the dense feed-forward (SwiGLU)."""
    rope_theta: float = 10_000.0
    """Base of the rotary embedding on positions within documents."""
    norm_eps: float = 1e-5
    """Of RMSNorm."""
    vision: Literal["linear", "mlp"] = "linear"
    """How a patch's pixels become its embedding."""
    attention: Literal["auto", "flex", "sdpa", "dense"] = "auto"
    """Backend; auto: flex on a GPU, one SDPA per document elsewhere. dense is the reference of tests."""
    image_attention: Literal["causal", "both"] = "causal"
    """Whether places of one picture see each other both ways."""
    contrastive_dim: int = 0
    """Width of contrastive embeddings; 0: no head."""
    vocabulary: int | None = None
    """Ids that the recipe was written for; a layout of more is refused. The embedding has the layout's own number of
    rows, whatever is stated."""
    moe: MoeConfig | None = None
    """Mixture of experts; none: dense."""


class LossConfig(Settings, frozen=True, kw_only=True):
    """`[loss]`: CE + contrastive · InfoNCE + action · L2 + aux · balance + z · z-loss."""

    contrastive: float = 0.0
    """Factor λ1 of InfoNCE."""
    temperature: float = 0.07
    """τ of InfoNCE."""
    learn_temperature: bool = False
    """Whether τ is learned."""
    action: float = 0.0
    """Factor λ2 of L2 on continuous actions."""
    discrete_action: float = 1.0
    """Weight of a discrete action's id within CE."""
    aux: float = 0.0
    """Factor of the load-balancing loss (arXiv 2101.03961)."""
    z: float = 0.0
    """Factor of the router's z-loss (arXiv 2202.08906)."""


class OptimizerConfig(Settings, frozen=True, kw_only=True):
    """`[optimizer]`: AdamW."""

    lr: float
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    """Not on norms, biases and embeddings of one dimension."""
    max_norm: float = 1.0
    """Gradients are clipped to it."""
    bf16_states: bool = False
    """Moments in bf16, weights in fp32; needs a GPU."""


class ScheduleConfig(Settings, frozen=True, kw_only=True):
    """`[schedule]`: the learning rate over steps."""

    kind: Literal["cosine", "one-cycle", "wsd", "constant"] = "cosine"
    warmup_steps: int
    """Linear, from 1 % of the peak."""
    final: float = 0.1
    """Last learning rate over the peak."""
    decay_share: float = 0.1
    """Share of the steps that WSD decays in."""


class ParallelConfig(Settings, frozen=True, kw_only=True):
    """`[parallel]`: how the processes share the work."""

    tensor: int = 1
    """Tensor-parallel degree; sequence parallel goes with it."""
    expert: int = 1
    """Expert-parallel degree."""
    replicate: int = 1
    """Data-parallel replicas of the sharded model (HSDP)."""


class ComputeConfig(Settings, frozen=True, kw_only=True):
    """`[compute]`: precision and memory."""

    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Of matrix products; master weights and reductions are float32."""
    fp8: bool = False
    """Attention's, the feed-forward's and shared experts' products in float8 through torchao; heads, embeddings, gates and
    routed experts stay as they are. Weights are the same: a checkpoint goes on with or without. Needs a GPU of compute
    capability 8.9 and `mmpack-trainer[fp8]`; sizes are multiples of 16. No utilisation is told, since products of two
    precisions have no peak in common."""
    recompute: Literal["none", "selective", "full"] = "none"
    """Activation checkpointing."""
    compile: bool = False
    """torch.compile of each block. Of one with experts, attention and the shared experts are compiled and routing is not;
    with attention by document ("sdpa"), the feed-forward or the shared experts alone."""


class CheckpointConfig(Settings, frozen=True, kw_only=True):
    """`[checkpoint]`: distributed checkpoints of model, optimizer, schedule and data."""

    every_steps: int = 500
    keep: int = 2
    """Last ones kept, beside the best."""
    resume: bool = True
    """Go on from the last one that is there; if not, a folder with checkpoints is refused."""


class TrainConfig(Settings, frozen=True, kw_only=True):
    """The whole file."""

    out: str
    """Folder of checkpoints, logs and metrics; a relative path starts at the file."""
    steps: int
    """Optimizer steps."""
    micro_batch: int = 1
    """Rows of a rank in one forward pass; accumulation follows from the plan's global batch."""
    target_tokens: str | None = None
    """Global batch in tokens, as "2M", to solve the accumulation from and to check the plan against."""
    seed: int = 0
    data: DataConfig
    model: ModelConfig
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    parallel: ParallelConfig = ParallelConfig()
    compute: ComputeConfig = ComputeConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log_every_steps: int = 1
