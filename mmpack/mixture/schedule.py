"""The schedule of a mixture: phases divided into stages with constant shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import ConfigError
from mmpack.mixture.phase_config import PhaseConfig, check_phases
from mmpack.mixture.weights import share_weights, temperature_weights

RAMP_STAGES = 64
"""Number of stages of a temperature ramp, equally long in tokens, each with the temperature at its middle.

For a ramp from T = 3 to 5 and data sets whose sizes differ by a factor of 2,000, each share is within 1.2 % (relative)
of the share of the smooth ramp.
"""

MAX_TOKENS = 1 << 60
"""Largest number of tokens of a plan: far above any training run, and small enough that sums fit into 64 bits."""
_MAX_DATASETS = 1 << 15


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MixtureSchedule:
    """The shares of a plan as its phases state them, without repeat caps.

    Attributes:
        datasets: names of the data sets, in the order of the columns of `weights`.
        phases: names of the phases.
        start_tokens: int64 (stages,), token counts at which the stages begin, ascending from 0.
        weights: int64 (stages, datasets), shares in parts of 1 / `SCALE`; each row sums to `SCALE`.
        phase: int64 (stages,), phase index of each stage.
        end_tokens: tokens of all phases together; None if the last phase has no end.
    """

    datasets: tuple[str, ...]
    phases: tuple[str, ...]
    start_tokens: NDArray[np.int64]
    weights: NDArray[np.int64]
    phase: NDArray[np.int64]
    end_tokens: int | None

    def canonical(self) -> dict[str, Any]:
        """Returns plain data for a fingerprint: all values on which the order of documents depends.

        The names of the phases are not included, because the order does not depend on them.
        """
        return {
            "datasets": list(self.datasets),
            "start_tokens": self.start_tokens.tolist(),
            "weights": self.weights.tolist(),
            "end_tokens": self.end_tokens,
        }

    def stage_at(self, tokens: int) -> int:
        """Returns the index of the stage that applies once `tokens` tokens were drawn; after the end, the last stage."""
        return int(np.searchsorted(self.start_tokens, tokens, side="right")) - 1


def mixture_schedule(phases: Sequence[PhaseConfig], tokens: Mapping[str, int]) -> MixtureSchedule:
    """Builds the schedule of `phases` over data sets of known sizes.

    Args:
        phases: phases in order; only the last may lack `tokens`.
        tokens: tokens of one epoch by name of data set, in the order of the data set indices. A data set without tokens
            has no share.

    Raises:
        ConfigError: a phase names an unknown data set (the hint has the nearest known name), has no data set with a
            positive share, or lacks `tokens` and is not the last; there are no phases or no data sets, or too many data
            sets; the phases have more than `MAX_TOKENS` tokens.
    """
    if not phases:
        raise ConfigError("there are no phases", where="phases", hint="Add a [[phases]] table.")
    if not 1 <= len(tokens) <= _MAX_DATASETS:
        raise ConfigError(
            f"the number of data sets, {len(tokens)}, is not 1 to {_MAX_DATASETS}", where="datasets"
        )
    check_phases(phases, tokens)
    starts: list[int] = []
    weights: list[list[int]] = []
    phase_indices: list[int] = []
    end: int | None = 0
    for index, phase in enumerate(phases):
        assert end is not None  # check_phases
        for start, row in _phase_stages(phase, tokens):
            starts.append(end + start)
            weights.append(row)
            phase_indices.append(index)
        end = None if phase.num_tokens is None else end + phase.num_tokens
        if end is not None and end > MAX_TOKENS:
            raise ConfigError(
                f"the phases up to this one have {end:,} tokens, more than {MAX_TOKENS:,}",
                where=f"phases.{phase.name}",
                hint="Check the unit of 'tokens'.",
            )
    return MixtureSchedule(
        datasets=tuple(tokens),
        phases=tuple(phase.name for phase in phases),
        start_tokens=np.array(starts, np.int64),
        weights=np.array(weights, np.int64),
        phase=np.array(phase_indices, np.int64),
        end_tokens=end,
    )


def _phase_stages(phase: PhaseConfig, tokens: Mapping[str, int]) -> list[tuple[int, list[int]]]:
    """Returns (tokens after the start of the phase, weights) of each stage."""
    where = f"phases.{phase.name}"
    members = phase.datasets or tuple(phase.shares) or tuple(tokens)
    table = phase.shares or phase.weights
    factors = [
        table.get(name, 0.0 if phase.shares else 1.0) if name in members and tokens[name] else 0.0
        for name in tokens
    ]
    if not any(factors):
        raise ConfigError(
            "no data set has a positive share in the phase",
            where=where,
            hint="List a data set that has tokens, and give it a share or weight above 0.",
        )
    if phase.shares:
        return [(0, share_weights(factors))]
    first, last = (Fraction(repr(float(value))) for value in phase.temperatures)
    if first == last or phase.num_tokens is None:
        return [(0, temperature_weights(list(tokens.values()), first, factors))]
    num_stages = min(RAMP_STAGES, phase.num_tokens)
    return [
        (
            phase.num_tokens * stage // num_stages,
            temperature_weights(
                list(tokens.values()),
                first + (last - first) * Fraction(2 * stage + 1, 2 * num_stages),
                factors,
            ),
        )
        for stage in range(num_stages)
    ]
