"""What can run and is seldom meant: warnings, one sentence each."""

from __future__ import annotations

from collections.abc import Iterator

from mmpack.mixture.phase_config import parse_token_count
from mmpack.stream import Plan
from mmpack_trainer.accounting import BatchSize, largest_divisor
from mmpack_trainer.config.ranges import usual_warmup
from mmpack_trainer.config.schema import TrainConfig
from mmpack_trainer.flops import planned_steps
from mmpack_trainer.hardware import Device
from mmpack_trainer.memory import ROOM, Memory, in_bytes
from mmpack_trainer.parameters import Parameters

#: Usual peaks by size: (least parameters, most, name, low, high).
_PEAKS = (
    (500_000_000, 3_000_000_000, "1B", 3e-4, 6e-4),
    (5_000_000_000, 20_000_000_000, "10B", 1e-4, 2e-4),
)
#: A peak of fine-tuning small models, and the batch at which it stands still.
_FINE_TUNING_LR = 5e-5
_LARGE_BATCH = parse_token_count("4M", where="")


def advice(
    config: TrainConfig, plan: Plan, batch: BatchSize, parameters: Parameters, memory: Memory, device: Device
) -> Iterator[str]:
    """Warnings of settings that passed all checks."""
    yield from _memory(config, batch, memory, device)
    yield from _warmup(config)
    yield from _peak(config, batch, parameters)
    yield from _gate(config)
    yield from _data(config, plan)


def usual_peaks(parameters: int) -> tuple[str, float, float] | None:
    """(size by name, least, greatest peak learning rate) usual for a model of so many parameters; None: not known."""
    for least, most, name, low, high in _PEAKS:
        if least <= parameters <= most:
            return name, low, high
    return None


def _memory(config: TrainConfig, batch: BatchSize, memory: Memory, device: Device) -> Iterator[str]:
    if device.memory_bytes is None or memory.total <= ROOM * device.memory_bytes:
        return
    most = memory.most_rows(device.memory_bytes)
    if most:
        mend = f"micro_batch = {largest_divisor(batch.micro_batch * batch.accumulation, most)} would fit"
    elif config.compute.recompute != "full":
        mend = 'not one row fits: try compute.recompute = "full"'
    else:
        mend = "not one row fits: raise parallel.tensor, or shorten the plan's max_seq_len"
    yield f"the run takes {memory}, and {device.name} has {in_bytes(device.memory_bytes)}; {mend}"


def _warmup(config: TrainConfig) -> Iterator[str]:
    if config.schedule.kind == "one-cycle":  # its way up is a third of the run by design
        return
    steps, (low, high) = config.schedule.warmup_steps, usual_warmup(config.steps)
    if not low <= steps <= high:
        share = steps / config.steps
        yield f"warmup is {share:.2%} of {config.steps:,} steps; 1 to 5 % is usual, {low:,} to {high:,} steps"


def _peak(config: TrainConfig, batch: BatchSize, parameters: Parameters) -> Iterator[str]:
    lr = config.optimizer.lr
    if lr <= _FINE_TUNING_LR and batch.tokens >= _LARGE_BATCH:
        yield (
            f"a peak learning rate of {lr:g} is one of fine-tuning: at {batch.tokens:,} tokens a step training "
            "hardly moves"
        )
    usual = usual_peaks(parameters.total)
    if usual is not None:
        name, low, high = usual
        if not low <= lr <= high:
            yield f"a peak learning rate of {lr:g} is outside {low:g} to {high:g}, usual for {name} parameters"


def _gate(config: TrainConfig) -> Iterator[str]:
    moe = config.model.moe
    if moe is not None and moe.top_k == 1 < moe.experts and not config.loss.aux:
        yield (
            "model.moe.top_k = 1 makes every score 1, so that the gate learns nothing from the data: set top_k to 2, or "
            "loss.aux so that it learns to balance at least"
        )


def _data(config: TrainConfig, plan: Plan) -> Iterator[str]:
    known = planned_steps(plan)
    if known is not None and known < config.steps:
        yield f"the plan has rows for about {known:,} steps of the run's {config.steps:,}; it ends there"
    streams = plan.layout.config.numeric
    if config.loss.action and not any(s.role == "action" and s.mode == "continuous" for s in streams):
        yield "loss.action has nothing to learn from: the layout has no continuous actions"
    if config.loss.contrastive and not any(each.contrastive for each in plan.config.datasets):
        yield "loss.contrastive has nothing to learn from: no data set of the plan is contrastive"
