"""The course of a mixture: how many tokens of each data set are due once so many were drawn in all.

A schedule says which shares are wanted. Its course says what comes of them when data sets may run out at their
repeat caps: from then on the others of the phase share the part in proportion. It is known before the first
document is drawn, from sizes and caps alone: the draw follows it within one document (`mmpack.mixture.draw`), and
the forecast reads it.

This is generalised processor sharing (Parekh and Gallager, IEEE/ACM Transactions on Networking 1, 1993) with tokens
for time, in integers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import ConfigError
from mmpack.mixture.schedule import MAX_TOKENS, MixtureSchedule
from mmpack.mixture.weights import SCALE, integer_weights, split_proportionally

NEVER = (1 << 63) - 1
"""A token count that no run reaches, in place of infinity."""


@dataclass(frozen=True, eq=False)
class QuotaCurve:
    """Tokens due to each data set, as a function of all tokens: linear in each segment.

    Attributes:
        schedule: what it is the course of.
        available: int64 (datasets,), tokens a data set may give in the whole run; `NEVER`: no cap.
        start_tokens: int64 (segments,), where a segment begins; the first is 0, ascending.
        weights: int64 (segments, datasets), tokens due per token drawn, in parts of `SCALE`; rows sum to it.
        phase: int64 (segments,).
        end_tokens: where it ends; None: never.
        ends_by: "schedule", at the end of the last phase; "data", where all data sets of a phase have run out;
            "never".
        spent: (data set, tokens) in order: the data set has run out once that many tokens were drawn in all.
    """

    schedule: MixtureSchedule
    available: NDArray[np.int64]
    start_tokens: NDArray[np.int64]
    weights: NDArray[np.int64]
    phase: NDArray[np.int64]
    end_tokens: int | None
    ends_by: Literal["schedule", "data", "never"]
    exhausted: tuple[tuple[int, int], ...]

    @cached_property
    def segment_edges(self) -> NDArray[np.int64]:
        """int64 (segments + 1,): `start_tokens`, then the end or `NEVER`."""
        return np.append(self.start_tokens, NEVER if self.end_tokens is None else self.end_tokens)

    @cached_property
    def _tokens_exact(self) -> list[list[int]]:
        """By data set: what is due at each edge but an infinite one, in parts of `SCALE`."""
        columns = []
        edges = self.segment_edges.tolist()
        for column in self.weights.T.tolist():
            due = [0]
            for start, stop, weight in zip(edges, edges[1:], column, strict=False):
                # Past any run if the segment has no end: only a bound.
                due.append(due[-1] + (stop - start) * weight)
            columns.append(due)
        return columns

    def tokens_at(self, tokens: int) -> list[int]:
        """What is due to each data set once `tokens` were drawn in all, in parts of `SCALE`; sums to tokens · SCALE.

        Behind the end nothing more falls due.
        """
        tokens = min(tokens, int(self.segment_edges[-1]))
        segment = (
            min(int(np.searchsorted(self.start_tokens, tokens, side="right")), len(self.start_tokens)) - 1
        )
        more = tokens - int(self.start_tokens[segment])
        return [
            due[segment] + more * int(weight)
            for due, weight in zip(self._tokens_exact, self.weights[segment], strict=True)
        ]

    def inverse(self, dataset: int, tokens: int) -> tuple[int, int, int]:
        """Where `tokens` of a data set fall due.

        Returns:
            (segment, whole tokens of the run, rest): after `whole + rest / weight` tokens, the weight being that of the
            segment; or (segments, `NEVER`, 0) if they never do.
        """
        wanted = tokens * SCALE
        due = self._tokens_exact[dataset]
        segment = bisect_left(due, wanted, 1) - 1
        if segment == len(self.start_tokens):
            return segment, NEVER, 0
        start, more = int(self.start_tokens[segment]), wanted - due[segment]
        if not more:
            return segment, start, 0
        whole, rest = divmod(more, int(self.weights[segment, dataset]))
        return segment, start + whole, rest


def quota_curve(schedule: MixtureSchedule, available: Sequence[int | None]) -> QuotaCurve:
    """The course of a schedule.

    Args:
        schedule: wanted shares.
        available: tokens that each data set may give in the whole run, its tokens times its repeat cap; None: no cap.

    Raises:
        ConfigError: not one entry for each data set, one is negative, or those of the first phase are all 0.
    """
    if len(available) != len(schedule.datasets):
        raise ConfigError(f"{len(available)} caps for {len(schedule.datasets)} data sets", where="datasets")
    if any(tokens is not None and tokens < 0 for tokens in available):
        raise ConfigError("a data set has less than no tokens", where="datasets")
    # No run reaches a cap beyond MAX_TOKENS, and sums of such would pass 64 bits.
    caps = [NEVER if tokens is None or tokens > MAX_TOKENS else tokens for tokens in available]
    builder = _Builder(caps)
    ends = [*schedule.start_tokens[1:].tolist(), schedule.end_tokens]
    lasts = all(
        builder.stage(weights, phase, end)
        for weights, phase, end in zip(schedule.weights.tolist(), schedule.phase.tolist(), ends, strict=True)
    )
    if not builder.starts:
        raise ConfigError(
            "none of its data sets may give a token",
            where=f"phases.{schedule.phases[0]}",
            hint="Raise max_epochs.",
        )
    if not lasts:
        end_tokens, ends_by = builder.tokens, "data"
    else:
        end_tokens = schedule.end_tokens
        ends_by = "never" if end_tokens is None else "schedule"
    return QuotaCurve(
        schedule,
        np.array(caps, np.int64),
        np.array(builder.starts, np.int64),
        np.array(builder.weights, np.int64).reshape(-1, len(caps)),
        np.array(builder.phases, np.int64),
        end_tokens,
        ends_by,
        tuple(builder.spent),
    )


class _Builder:
    """Stages to segments, in Python's integers: what is due passes 64 bits."""

    def __init__(self, caps: list[int]) -> None:
        self.starts: list[int] = []
        self.weights: list[list[int]] = []
        self.phases: list[int] = []
        self.spent: list[tuple[int, int]] = []
        self.tokens = 0
        # What is not yet due of what is available, in parts of SCALE; None: no cap.
        self._left = [None if cap == NEVER else cap * SCALE for cap in caps]

    def stage(self, wanted: list[int], phase: int, end: int | None) -> bool:
        """Appends a stage's segments; false if its data run out before its end."""
        while end is None or self.tokens < end:
            parts = [part if left != 0 else 0 for part, left in zip(wanted, self._left, strict=True)]
            if not any(parts):
                return False
            weights = integer_weights(parts)
            capped = [
                left // weight
                for left, weight in zip(self._left, weights, strict=True)
                if weight and left is not None
            ]
            room = None if end is None else end - self.tokens
            length = min((tokens for tokens in [*capped, room] if tokens is not None), default=None)
            if length:
                self._segment(weights, phase, length)
            elif length is None:
                self._segment(weights, phase, 0)
                return True
            elif not self._last_token(parts, phase):
                return False
        return True

    def _segment(self, weights: list[int], phase: int, length: int) -> None:
        """Appends a segment of `length` tokens; of an infinite one, 0."""
        self.starts.append(self.tokens)
        self.weights.append(weights)
        self.phases.append(phase)
        self.tokens += length
        for i, weight in enumerate(weights):
            left = self._left[i]
            if weight and left is not None:
                self._left[i] = left - weight * length
                if self._left[i] == 0:
                    self.spent.append((i, self.tokens))

    def _last_token(self, parts: list[int], phase: int) -> bool:
        """A segment of one token, in which a data set gets the fraction it has left and the others the rest.

        False if all of them have less than a token left.
        """
        weights = [0] * len(parts)
        rest = SCALE
        while rest:
            open_ = [
                part if self._left[i] is None or weights[i] < self._left[i] else 0  # type: ignore[operator]
                for i, part in enumerate(parts)
            ]
            if not any(open_):
                return False
            for i, more in enumerate(split_proportionally(rest, open_)):
                left = self._left[i]
                taken = more if left is None else min(more, left - weights[i])
                weights[i] += taken
                rest -= taken
        self._segment(weights, phase, 1)
        return True
