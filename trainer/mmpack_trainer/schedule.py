"""The learning rate over steps, as pure functions.

Step 0 is the first step of the run and `steps - 1` the last. Momentum is never cycled: torch's OneCycleLR rewrites the
optimizer's betas, these do not touch them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi, sqrt

from mmpack_trainer.config.schema import ScheduleConfig

START = 0.01
"""First learning rate over the peak."""


def learning_rate(schedule: ScheduleConfig, *, steps: int, peak: float) -> Callable[[int], float]:
    """The learning rate of each step of a run of `steps` steps."""
    shape = factor(schedule, steps=steps)
    return lambda step: peak * shape(step)


def factor(schedule: ScheduleConfig, *, steps: int) -> Callable[[int], float]:
    """Learning rate over its peak, of each step.

    From `START` to 1 in `warmup_steps`, linear; then by kind, down to `final` at the last step:

    - `cosine`: half a cosine.
    - `one-cycle`: half a cosine, as the way up is (Smith and Topin, arXiv 1708.07120; torch's `OneCycleLR`).
    - `wsd`: at the peak until the last `decay_share` of the steps, then 1 − √ of their progress (arXiv 2405.18392).
    - `constant`: at the peak to the end.

    Steps before 0 and behind the last have its rate.
    """
    warmup, last = schedule.warmup_steps, max(steps - 1, 0)
    fall = _FALLS[schedule.kind]
    decay = max(1, round(schedule.decay_share * steps)) if schedule.kind == "wsd" else steps
    stable = max(warmup, last - decay)

    def at(step: int) -> float:
        step = min(max(step, 0), last)
        if step < warmup:
            progress = step / warmup
            rise = _half_cosine(progress) if schedule.kind == "one-cycle" else progress
            return START + (1 - START) * rise
        if step <= stable:
            return 1.0
        return 1 + (schedule.final - 1) * fall((step - stable) / (last - stable))

    return at


def _half_cosine(progress: float) -> float:
    return (1 - cos(pi * progress)) / 2


#: How far down a schedule is, 0 to 1, by progress through its fall.
_FALLS: dict[str, Callable[[float], float]] = {
    "cosine": _half_cosine,
    "one-cycle": _half_cosine,
    "wsd": sqrt,
    "constant": lambda progress: 0.0,
}
