"""All that can be refused before a process group starts, each in one line; and what a run resolves to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmpack.errors import ConfigError
from mmpack.mixture.phase_config import parse_token_count
from mmpack.stream import Plan, load_plan_config, open_plan
from mmpack_trainer.accounting import BatchSize, batch_of, solved
from mmpack_trainer.config.advice import advice
from mmpack_trainer.config.fp8 import check_fp8
from mmpack_trainer.config.ranges import check_ranges
from mmpack_trainer.config.schema import TrainConfig
from mmpack_trainer.hardware import Device
from mmpack_trainer.memory import Memory, in_bytes, memory_of
from mmpack_trainer.parameters import Parameters, parameters_of

#: How far a step may be from `target_tokens`: "2M" is said of 2²¹ as well as of 2 · 10⁶, 4.9 % apart.
_TARGET_SLACK = 0.05


@dataclass(frozen=True, slots=True)
class Checked:
    """What the settings come to."""

    plan: Plan
    batch: BatchSize
    parameters: Parameters
    memory: Memory
    """Of each process, estimated."""
    warnings: tuple[str, ...]
    """What is unusual, though it can run; one sentence each."""


def check(config: TrainConfig, *, world: int, device: Device) -> Checked:
    """Refuses what cannot run, without starting a process group or building a model.

    Args:
        config: see :func:`mmpack_trainer.config.load.load_config`.
        world: processes of the run.
        device: what each of them computes on.

    Raises:
        ConfigError: a setting is out of range, or contradicts another, the world's size, the device or the plan; or the
            plan's builds have different layouts.
        DataError, IntegrityError, StorageError: the plan's builds cannot be read.
    """
    check_ranges(config)
    _check_parallel(config, world)
    _check_device(config, device)
    plan = open_plan(load_plan_config(config.data.plan))
    _check_rows(config, plan)
    check_fp8(config, device, seq_len=plan.config.max_seq_len)
    batch = batch_of(
        plan.config.global_batch,
        seq_len=plan.config.max_seq_len,
        micro_batch=config.micro_batch,
        ranks=data_ranks(config, world),
    )
    _check_target(config, batch)
    parameters = parameters_of(config.model, plan.layout)
    memory = memory_of(config, batch, parameters, world=world)
    _check_memory(config, memory, world, device)
    warnings = tuple(advice(config, plan, batch, parameters, memory, device))
    return Checked(plan, batch, parameters, memory, warnings)


def data_ranks(config: TrainConfig, world: int) -> int:
    """Data-parallel ranks of `world` processes: tensor-parallel peers get the same rows."""
    return world // config.parallel.tensor


def _check_parallel(config: TrainConfig, world: int) -> None:
    parallel, model = config.parallel, config.model
    tensor, expert, replicate = parallel.tensor, parallel.expert, parallel.replicate
    if world % (tensor * replicate):
        raise ConfigError(
            f"tensor {tensor} × replicate {replicate} = {tensor * replicate} does not divide {world} processes",
            where="parallel",
            hint=f"Start a multiple of {tensor * replicate} processes, or lower them.",
        )
    for key, size in (("heads", model.heads), ("kv_heads", model.kv_heads), ("hidden_dim", model.hidden_dim)):
        _divides("tensor", tensor, size, f"model.{key}")
    if model.moe is not None:
        _divides("tensor", tensor, model.moe.hidden_dim, "model.moe.hidden_dim")
        _divides("expert", expert, model.moe.experts, "model.moe.experts")
    elif expert > 1:
        raise ConfigError(
            f"{expert}, and the model has no experts",
            where="parallel.expert",
            hint="Add [model.moe], or set it to 1.",
        )
    if world // replicate % expert:
        raise ConfigError(
            f"{expert} does not divide the {world // replicate} processes of a replica",
            where="parallel.expert",
            hint=f"Start a multiple of {expert} processes in each replica, or lower it.",
        )


def _divides(key: str, degree: int, size: int, what: str) -> None:
    if size % degree:
        fits = [str(each) for each in range(1, size + 1) if size % each == 0][:8]
        raise ConfigError(
            f"{degree} does not divide {what} = {size}",
            where=f"parallel.{key}",
            hint=f"Divisors: {', '.join(fits)}.",
        )


def _check_device(config: TrainConfig, device: Device) -> None:
    if config.optimizer.bf16_states and not device.is_gpu:
        raise ConfigError(
            "moments in bf16 need a GPU", where="optimizer.bf16_states", hint="Set it to false."
        )
    if config.model.attention == "flex" and not device.is_gpu:
        raise ConfigError(
            "FlexAttention has no backward pass on a CPU",
            where="model.attention",
            hint='Use "auto" or "sdpa".',
        )


def _check_rows(config: TrainConfig, plan: Plan) -> None:
    tensor, places = config.parallel.tensor, plan.config.max_seq_len
    if places % tensor:
        raise ConfigError(
            f"{tensor} does not divide the plan's max_seq_len = {places}",
            where="parallel.tensor",
            hint=f"Set max_seq_len to {places - places % tensor}: tensor-parallel peers share a row's places.",
        )
    stated, size = config.model.vocabulary, plan.layout.vocabulary.size
    if stated is not None and stated < size:
        raise ConfigError(
            f"{stated} ids are fewer than the {size} of the layout of {Path(config.data.plan).name}",
            where="model.vocabulary",
            hint=f"Set it to {size}, or leave it out: the embedding has as many rows as the layout has ids.",
        )


def _check_target(config: TrainConfig, batch: BatchSize) -> None:
    if config.target_tokens is None:
        return
    target = parse_token_count(config.target_tokens, where="target_tokens")
    wanted = solved(target, seq_len=batch.seq_len, micro_batch=batch.micro_batch, ranks=batch.ranks)
    if abs(batch.tokens - target) > _TARGET_SLACK * target and batch != wanted:
        raise ConfigError(
            f"{config.target_tokens} tokens are asked for, and the plan's global_batch makes {batch}",
            where="target_tokens",
            hint=f"Set the plan's global_batch to {wanted.rows}: {wanted}.",
        )


def _check_memory(config: TrainConfig, memory: Memory, world: int, device: Device) -> None:
    if device.memory_bytes is None or memory.states <= device.memory_bytes:
        return
    mends = [f"start {world * -(-memory.states // device.memory_bytes)} processes"]
    if config.parallel.replicate > 1:
        mends.append("lower parallel.replicate")
    if not config.optimizer.bf16_states:
        mends.append("set optimizer.bf16_states")
    mend = " or ".join(mends)
    raise ConfigError(
        f"weights, gradients and moments take {in_bytes(memory.states)} of each process, and {device.name} has "
        f"{in_bytes(device.memory_bytes)}",
        where="memory",
        hint=f"{mend[0].upper()}{mend[1:]}.",
    )
