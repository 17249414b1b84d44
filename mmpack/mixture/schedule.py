"""Phases to stages: which shares are in force from which token on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import ConfigError
from mmpack.mixture.phase_config import PhaseConfig
from mmpack.mixture.weights import share_weights, temperature_weights
from mmpack.settings import suggest

RAMP_STAGES = 64
"""Stages of a ramp: equally long in tokens, each with the temperature at its middle. From T = 3 to 5 a share is then
within 1.2 % of itself of the smooth ramp's, for data sets two thousandfold apart."""

MAX_TOKENS = 1 << 60
"""Of a run; far above what is trained on, and sums of it fit into 64 bits."""
_MAX_DATASETS = 1 << 15


@dataclass(frozen=True, slots=True, eq=False)
class MixtureSchedule:
    """The shares of a run as its phases state them, before any data set runs out.

    Attributes:
        datasets: names, in the order of the columns.
        phases: names.
        start_tokens: int64 (stages,), tokens of the run at which a stage begins; the first is 0, ascending.
        weights: int64 (stages, datasets), shares in parts of `SCALE`, which each row sums to.
        phase: int64 (stages,), the phase that a stage belongs to.
        end_tokens: tokens of all phases; None if the last one has no end.
    """

    datasets: tuple[str, ...]
    phases: tuple[str, ...]
    start_tokens: NDArray[np.int64]
    weights: NDArray[np.int64]
    phase: NDArray[np.int64]
    end_tokens: int | None

    def canonical(self) -> dict[str, Any]:
        """Plain data for a fingerprint: all that the order of documents depends on. Names of phases are not in it."""
        return {
            "datasets": list(self.datasets),
            "start_tokens": self.start_tokens.tolist(),
            "weights": self.weights.tolist(),
            "end_tokens": self.end_tokens,
        }

    def stage_at(self, tokens: int) -> int:
        """The stage in force once `tokens` were drawn; behind the end, the last one."""
        return int(np.searchsorted(self.start_tokens, tokens, side="right")) - 1


def mixture_schedule(phases: Sequence[PhaseConfig], tokens: Mapping[str, int]) -> MixtureSchedule:
    """The stages of `phases` over data sets of given sizes.

    Args:
        phases: one after the other; only the last may lack tokens.
        tokens: name to tokens of one epoch, in the order that data sets are numbered in. One without tokens has no
            share.

    Raises:
        ConfigError: a phase names an unknown data set (with the nearest known one), has no data set with a positive
            share, or lacks tokens and is not the last; no phases, or more tokens than `MAX_TOKENS`.
    """
    if not phases:
        raise ConfigError("no phases", where="phases", hint="Add a [[phases]] table.")
    if not 1 <= len(tokens) <= _MAX_DATASETS:
        raise ConfigError(f"{len(tokens)} data sets are not 1 to {_MAX_DATASETS}", where="datasets")
    starts: list[int] = []
    weights: list[list[int]] = []
    owners: list[int] = []
    end: int | None = 0
    for number, phase in enumerate(phases):
        if end is None:
            raise ConfigError(
                f"it never begins, since '{phases[number - 1].name}' before it has no end",
                where=f"phases.{phase.name}",
                hint=f"Give '{phases[number - 1].name}' its tokens.",
            )
        for start, row in _phase_stages(phase, tokens):
            starts.append(end + start)
            weights.append(row)
            owners.append(number)
        end = None if phase.num_tokens is None else end + phase.num_tokens
        if end is not None and end > MAX_TOKENS:
            raise ConfigError(
                f"the phases so far have {end:,} tokens, more than {MAX_TOKENS:,}",
                where=f"phases.{phase.name}",
                hint="Check the unit.",
            )
    return MixtureSchedule(
        tuple(tokens),
        tuple(phase.name for phase in phases),
        np.array(starts, np.int64),
        np.array(weights, np.int64),
        np.array(owners, np.int64),
        end,
    )


def _phase_stages(phase: PhaseConfig, tokens: Mapping[str, int]) -> list[tuple[int, list[int]]]:
    """(tokens from the phase's start, weights) of each stage."""
    where = f"phases.{phase.name}"
    for key, names in (
        ("datasets", phase.datasets or ()),
        ("weights", phase.weights),
        ("shares", phase.shares),
    ):
        for name in names:
            if name not in tokens:
                raise ConfigError(
                    f"no data set is called '{name}'", where=f"{where}.{key}", hint=suggest(name, tokens)
                )
    members = phase.datasets or tuple(phase.shares) or tuple(tokens)
    table = phase.shares or phase.weights
    factors = [
        table.get(name, 0.0 if phase.shares else 1.0) if name in members and tokens[name] else 0.0
        for name in tokens
    ]
    if not any(factors):
        raise ConfigError(
            "no data set has a share in it",
            where=where,
            hint="Name one that has tokens, with a share or weight above 0.",
        )
    if phase.shares:
        return [(0, share_weights(factors))]
    first, last = (Fraction(repr(float(value))) for value in phase.temperatures)
    if first == last or phase.num_tokens is None:
        return [(0, temperature_weights(list(tokens.values()), first, factors))]
    count = min(RAMP_STAGES, phase.num_tokens)
    return [
        (
            phase.num_tokens * stage // count,
            temperature_weights(
                list(tokens.values()), first + (last - first) * Fraction(2 * stage + 1, 2 * count), factors
            ),
        )
        for stage in range(count)
    ]
