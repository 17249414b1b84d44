"""Refuses settings that no model, machine or data could make right: numbers out of range, and contradictions."""

from __future__ import annotations

from math import inf

from mmpack.errors import ConfigError
from mmpack_trainer.config.schema import ModelConfig, MoeConfig, TrainConfig


def check_ranges(config: TrainConfig) -> None:
    """Raises ConfigError at the first setting that is out of range or contradicts another."""
    _within(config.steps, "steps", 1)
    _within(config.micro_batch, "micro_batch", 1)
    _within(config.seed, "seed", 0, (1 << 63) - 1)
    _within(config.log_every_steps, "log_every_steps", 1)
    for key in ("workers", "threads"):
        value = getattr(config.data, key)
        if value is not None:
            _within(value, f"data.{key}", 0, 1024)
    _check_model(config.model)
    _check_loss(config)
    _check_optimizer(config)
    _check_schedule(config)
    for key in ("tensor", "expert", "replicate"):
        _within(getattr(config.parallel, key), f"parallel.{key}", 1)
    _within(config.checkpoint.every_steps, "checkpoint.every_steps", 1)
    _within(config.checkpoint.keep, "checkpoint.keep", 1)


def _check_model(model: ModelConfig) -> None:
    for key in ("dim", "layers", "heads", "kv_heads", "hidden_dim"):
        _within(getattr(model, key), f"model.{key}", 1)
    _above(model.rope_theta, "model.rope_theta", 0)
    _above(model.norm_eps, "model.norm_eps", 0)
    _within(model.contrastive_dim, "model.contrastive_dim", 0)
    if model.vocabulary is not None:
        _within(model.vocabulary, "model.vocabulary", 1)
    if model.heads % model.kv_heads:
        raise ConfigError(
            f"{model.kv_heads} do not divide {model.heads} heads",
            where="model.kv_heads",
            hint=f"Set it to {_divisors_near(model.heads, model.kv_heads)}.",
        )
    if model.head_dim is None and model.dim % model.heads:
        raise ConfigError(
            f"{model.heads} do not divide a width of {model.dim}",
            where="model.heads",
            hint=f"Set it to {_divisors_near(model.dim, model.heads)}, or state head_dim.",
        )
    head = model.dim // model.heads if model.head_dim is None else model.head_dim
    if head < 2 or head % 2:
        raise ConfigError(
            f"heads of width {head} cannot be rotated", where="model.head_dim", hint="Make it even."
        )
    if model.moe is not None:
        _check_moe(model.moe, model.layers)


def _check_moe(moe: MoeConfig, layers: int) -> None:
    _within(moe.experts, "model.moe.experts", 1)
    _within(moe.top_k, "model.moe.top_k", 1, moe.experts)
    _within(moe.hidden_dim, "model.moe.hidden_dim", 1)
    _within(moe.shared_experts, "model.moe.shared_experts", 0)
    _within(moe.dense_layers, "model.moe.dense_layers", 0, layers - 1)
    _within(moe.bias_rate, "model.moe.bias_rate", 0)
    _within(moe.noise, "model.moe.noise", 0)
    if moe.capacity_factor is not None:
        _above(moe.capacity_factor, "model.moe.capacity_factor", 0)


def _check_loss(config: TrainConfig) -> None:
    loss, model = config.loss, config.model
    for key in ("contrastive", "action", "discrete_action", "aux", "z"):
        _within(getattr(loss, key), f"loss.{key}", 0)
    _above(loss.temperature, "loss.temperature", 0)
    if loss.contrastive and not model.contrastive_dim:
        raise ConfigError(
            "the model has no contrastive head",
            where="loss.contrastive",
            hint="Set model.contrastive_dim, or loss.contrastive = 0.",
        )
    for key in ("aux", "z"):
        if getattr(loss, key) and model.moe is None:
            raise ConfigError(
                "the model has no experts", where=f"loss.{key}", hint=f"Add [model.moe], or set {key} = 0."
            )


def _check_optimizer(config: TrainConfig) -> None:
    optimizer = config.optimizer
    _above(optimizer.lr, "optimizer.lr", 0)
    _above(optimizer.eps, "optimizer.eps", 0)
    _above(optimizer.max_norm, "optimizer.max_norm", 0)
    _within(optimizer.weight_decay, "optimizer.weight_decay", 0)
    for beta in optimizer.betas:
        if not 0 <= beta < 1:
            raise ConfigError(f"{beta:g} is not within 0 and 1", where="optimizer.betas")


def _check_schedule(config: TrainConfig) -> None:
    schedule = config.schedule
    _within(schedule.warmup_steps, "schedule.warmup_steps", 0)
    _within(schedule.final, "schedule.final", 0, 1)
    if not 0 < schedule.decay_share <= 1:
        raise ConfigError(
            f"{schedule.decay_share:g} is no share above 0, up to 1", where="schedule.decay_share"
        )
    if schedule.warmup_steps >= config.steps:
        low, high = usual_warmup(config.steps)
        raise ConfigError(
            f"{schedule.warmup_steps} steps of warmup leave none of {config.steps}",
            where="schedule.warmup_steps",
            hint=f"1 to 5 % of the steps is usual: {low:,} to {high:,}.",
        )


def usual_warmup(steps: int) -> tuple[int, int]:
    """The least and the most steps of warmup that are usual, 1 to 5 %; one step is never many, where another follows."""
    return steps // 100, max(steps // 20, min(1, steps - 1))


def _within(value: float, where: str, low: float, high: float | None = None) -> None:
    if high is None:
        if not low <= value < inf:
            raise ConfigError(f"{value} is not {low} or more", where=where)
    elif not low <= value <= high:
        raise ConfigError(f"{value} is not within {low} and {high}", where=where)


def _above(value: float, where: str, low: float) -> None:
    if not low < value < inf:
        raise ConfigError(f"{value:g} is not above {low:g}", where=where)


def _divisors_near(number: int, wanted: int) -> str:
    """The divisors of `number` next to `wanted`, as text."""
    below = next(each for each in range(min(wanted, number), 0, -1) if number % each == 0)
    above = next((each for each in range(wanted, number + 1) if number % each == 0), below)
    return f"{below}" if above == below else f"{below} or {above}"
