"""The learning-rate range test (Smith, arXiv 1506.01186): a rate that rises geometrically, and what its losses say.

It is advice and no more. With a transformer it sees the first steps from random weights, without a warmup; rates that do
well there can still be too high for a whole run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np

from mmpack.errors import DataError

LEAST_STEPS = 10
_STOP = 4.0
#: Steps on each side that a loss is averaged with: a mean on one side only would be behind.
_SIDE = 3


@dataclass(frozen=True, slots=True)
class Found:
    """Learning rates that stand out, by the smoothed losses."""

    lowest: float
    """Of the lowest loss."""
    steepest: float | None
    """Where it falls fastest, before its lowest; None if it never falls."""
    diverged: float | None
    """The first behind the lowest whose loss is above that of the start or four times the lowest, or no number; None if
    there is none."""

    @property
    def peaks(self) -> tuple[float, ...]:
        """What is suggested, ascending: the steepest, and a tenth of where it diverges."""
        tenth = None if self.diverged is None else self.diverged / 10
        return tuple(sorted(each for each in (self.steepest, tenth) if each is not None))


def ladder(low: float, high: float, *, steps: int) -> Callable[[int], float]:
    """The learning rate of each step, `low` at the first, 0, and `high` at the last; each the same factor over the one
    before."""
    return lambda step: low * (high / low) ** (step / (steps - 1))


def smoothed(losses: Sequence[float]) -> list[float]:
    """Means over the steps around each, fewer at the ends; no number from the first on that is none."""
    known = next((number for number, loss in enumerate(losses) if not isfinite(loss)), len(losses))
    means = [
        float(np.mean(losses[max(0, number - _SIDE) : min(known, number + _SIDE + 1)]))
        for number in range(known)
    ]
    return means + [nan] * (len(losses) - known)


def is_over(losses: Sequence[float]) -> bool:
    """Whether going on would teach nothing: the smoothed loss is over four times its lowest, or no number."""
    means = smoothed(losses)
    return not isfinite(means[-1]) or means[-1] > _STOP * min(means)


def read_off(rates: Sequence[float], losses: Sequence[float]) -> Found:
    """What the losses at ascending rates say; those behind one that is no number are not looked at.

    Raises:
        DataError: they are too few.
    """
    means = smoothed(losses)
    known = sum(map(isfinite, means))
    if known < LEAST_STEPS:
        raise DataError(
            f"{known} steps before the loss is no number or the plan ends are too few to read a rate off",
            where="the range test",
            hint="Lower --from, or give the plan more tokens.",
        )
    lowest = int(np.argmin(means[:known]))
    slopes = np.gradient(means[:known], np.log(rates[:known]))
    steepest = int(np.argmin(slopes[: lowest + 1]))
    most = min(means[0], _STOP * means[lowest])
    diverged = next((n for n in range(lowest + 1, len(means)) if not means[n] <= most), None)
    return Found(
        lowest=rates[lowest],
        steepest=rates[steepest] if slopes[steepest] < 0 else None,
        diverged=None if diverged is None else rates[diverged],
    )
