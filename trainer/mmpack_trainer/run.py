"""A checked run from its first step or last checkpoint to its end, written down as it goes."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmpack_trainer.config.check import Checked
from mmpack_trainer.config.schema import TrainConfig
from mmpack_trainer.flops import Work, planned_work, rates_of
from mmpack_trainer.hardware import Device, peak_flops
from mmpack_trainer.metrics import MetricsLog, StepMetrics
from mmpack_trainer.monitors import Monitors
from mmpack_trainer.panel import bars, experts_line, figures

if TYPE_CHECKING:
    from rich.console import Console

    from mmpack_trainer.train import Step


def run(
    config: TrainConfig, checked: Checked, *, world: int, device: Device, console: Console | None
) -> range:
    """Trains.

    Args:
        config, checked: see :func:`mmpack_trainer.config.check.check`.
        world: processes of the run.
        device: of each.
        console: of the process that speaks for all, which also writes `metrics.jsonl`; None in the others.

    Returns:
        Steps that were done now, by how many there were before each: empty if a checkpoint of the last one was there.

    Raises:
        MmpackError: rows cannot be read, the plan ends, or a checkpoint does not fit.
    """
    import torch.distributed as dist

    from mmpack_trainer.train import Trainer

    with (
        closing(Trainer(config)) as trainer,
        closing(_Diary(config, checked, world, device, console)) as diary,
    ):
        trainer.fit(diary.add, ready=diary.open)
    # Not in a `finally`: where this process failed, its peers may be waiting, and so would it.
    dist.destroy_process_group()
    return range(diary.before, trainer.done)


class _Diary:
    """Turns a trainer's steps into metrics and alarms."""

    def __init__(
        self, config: TrainConfig, checked: Checked, world: int, device: Device, console: Console | None
    ) -> None:
        self.before = 0
        """Steps done by earlier starts of the run."""
        self._config, self._checked, self._world, self._console = config, checked, world, console
        # Products of float32 have another peak, and which one depends on what torch allows; with float8 there are products
        # of two precisions. Of neither a share is told.
        is_bf16 = config.compute.precision == "bfloat16" and not config.compute.fp8
        self._peak = peak_flops(device) if is_bf16 else None
        self._log: MetricsLog | None = None
        rows = checked.plan.config.global_batch
        self._monitors = Monitors(config, checked.parameters, global_batch=rows)
        self._alarms: list[str] = []
        """Not yet in the log."""
        moe = config.model.moe
        self._first_layer = moe.dense_layers if moe is not None else 0

    def open(self, done: int) -> None:
        self.before = done
        if self._console is not None and done < self._config.steps:
            self._log = MetricsLog(
                Path(self._config.out),
                steps=self._config.steps,
                first_step=done + 1,
                console=self._console,
            )

    def add(self, step: Step) -> None:
        if self._console is None or self._log is None:
            return
        is_logged = step.number % self._config.log_every_steps == 0 or step.number == self._config.steps
        metrics = self._metrics(step) if is_logged else None
        alarms = self._monitors.see(step, useful_mfu=metrics.rates.useful_mfu if metrics else None)
        for alarm in alarms:
            self._console.print(f"warning: {alarm}", style="yellow")
        self._alarms += alarms
        if metrics is not None:
            self._log.log(replace(metrics, alarms=tuple(self._alarms)))
            self._alarms.clear()
            if metrics.bars:
                self._console.print(experts_line(step, first_layer=self._first_layer), style="dim")

    def close(self) -> None:
        if self._log is not None:
            self._log.close()

    def _metrics(self, step: Step) -> StepMetrics:
        model, plan = self._config.model, self._checked.plan
        planned = planned_work(plan, step.number - 1)
        work = Work(
            planned.rows,
            step.places,
            step.tokens,
            planned.squares,
            planned.squares_rows,
            planned.patches,
            unlabelled=step.tokens - step.labels,
        )
        return StepMetrics(
            step=step.number,
            loss=step.loss,
            parts=_used(step.parts, self._config),
            grad_norm=step.gradient_norm,
            lr=step.lr,
            rates=rates_of(
                work,
                wall_s=step.seconds,
                devices=self._world,
                peak_flops=self._peak,
                model=model,
                parameters=self._checked.parameters,
                recompute=self._config.compute.recompute,
            ),
            devices=self._world,
            wall_s=step.seconds,
            data_wait_s=step.waited,
            extra=figures(step),
            bars=bars(step, first_layer=self._first_layer),
        )


def _used(parts: dict[str, float], config: TrainConfig) -> dict[str, float]:
    """The parts that are minimised: those without a factor stay unsaid."""
    return {name: value for name, value in parts.items() if name == "ce" or getattr(config.loss, name)}
