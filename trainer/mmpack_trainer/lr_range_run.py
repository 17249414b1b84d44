"""A range test on a run's model and rows: from its first weights on, leaving no checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from mmpack_trainer.config.schema import TrainConfig
from mmpack_trainer.lr_range import is_over, ladder

if TYPE_CHECKING:
    from mmpack_trainer.train import Step


def sweep(
    config: TrainConfig, low: float, high: float, *, steps: int, log: Callable[[Step], None]
) -> tuple[list[float], list[float]]:
    """Trains with rising learning rates until the loss shows that they are too high, or the plan ends.

    Args:
        config: a checked run; its schedule and checkpoints are left alone.
        low: the first learning rate.
        high: the last.
        steps: how many there are.
        log: called with every step.

    Returns:
        Learning rates and losses, each loss as it was before the step of its rate; the last is no number where the gradient
        was none. Equal on all ranks.

    Raises:
        MmpackError: rows cannot be read.
    """
    import torch.distributed as dist

    from mmpack.plan import PlanEndError
    from mmpack_trainer.train import DivergenceError, Trainer

    rate = ladder(low, high, steps=steps)
    rates: list[float] = []
    losses: list[float] = []
    with closing(Trainer(config, lr=rate)) as trainer:
        while len(losses) < steps and not (losses and is_over(losses)):
            try:
                step = trainer.step()
            except PlanEndError:
                break
            except DivergenceError:
                rates.append(rate(trainer.done))
                losses.append(float("nan"))
                break
            rates.append(step.lr)
            losses.append(step.loss)
            log(step)
    dist.destroy_process_group()
    return rates, losses
