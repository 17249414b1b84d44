"""The quota curve of a mixture: the tokens due to each data set as a function of all tokens drawn.

A schedule states the requested shares. Its quota curve also takes into account that data sets are exhausted at their
repeat caps: from then on, the other data sets of the phase divide the share in proportion. The curve follows from sizes
and caps alone, so it is known before the first document is drawn. The draw stays within one document of the curve
(`mmpack.mixture.draw`), and the forecast reads it.

This is generalised processor sharing (Parekh and Gallager, IEEE/ACM Transactions on Networking 1, 1993) in integers,
with tokens instead of time.
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
"""A token count that no plan reaches, used instead of infinity."""


@dataclass(frozen=True, kw_only=True, eq=False)
class QuotaCurve:
    """The tokens due to each data set as a function of all tokens drawn; linear in each segment.

    Attributes:
        schedule: schedule from which the curve was computed.
        available: int64 (datasets,), tokens that each data set may contribute to the whole plan; `NEVER` if it has no
            cap.
        start_tokens: int64 (segments,), token counts at which the segments begin, ascending from 0.
        weights: int64 (segments, datasets), tokens due per token drawn, in parts of 1 / `SCALE`; each row sums to
            `SCALE`.
        phase: int64 (segments,), phase index of each segment.
        end_tokens: token count at which the curve ends; None if it does not end.
        ends_by: "schedule": the curve ends with the last phase; "data": it ends where all data sets of a phase are
            exhausted; "never": it does not end.
        exhausted: (data set index, tokens) of each exhausted data set, in order: the data set is exhausted once this
            many tokens of all data sets were drawn.
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
        """The token counts between segments, int64 (segments + 1,): `start_tokens`, then the end or `NEVER`."""
        return np.append(self.start_tokens, NEVER if self.end_tokens is None else self.end_tokens)

    @cached_property
    def _tokens_exact(self) -> list[list[int]]:
        """The tokens due to each data set at each segment edge, in parts of 1 / `SCALE`, as Python integers.

        The value at an infinite last edge is only an upper bound.
        """
        columns = []
        edges = self.segment_edges.tolist()
        for column in self.weights.T.tolist():
            due = [0]
            for start, stop, weight in zip(edges, edges[1:], column, strict=False):
                due.append(due[-1] + (stop - start) * weight)
            columns.append(due)
        return columns

    def tokens_at(self, tokens: int) -> list[int]:
        """Computes the tokens due to each data set once `tokens` tokens of all data sets were drawn.

        The values are in parts of 1 / `SCALE` and sum to tokens · `SCALE`. They are constant after the end of the curve.
        """
        tokens = min(tokens, int(self.segment_edges[-1]))
        segment = (
            min(int(np.searchsorted(self.start_tokens, tokens, side="right")), len(self.start_tokens)) - 1
        )
        tokens_in_segment = tokens - int(self.start_tokens[segment])
        return [
            due[segment] + tokens_in_segment * int(weight)
            for due, weight in zip(self._tokens_exact, self.weights[segment], strict=True)
        ]

    def inverse(self, dataset: int, tokens: int) -> tuple[int, int, int]:
        """Computes the point of the curve at which `tokens` tokens of a data set are due.

        Returns:
            (segment, whole tokens, rest): the tokens are due once `whole tokens + rest / weight` tokens of all data sets
            were drawn, where weight is the weight of the data set in the segment; (number of segments, `NEVER`, 0) if
            the tokens never become due.
        """
        target = tokens * SCALE
        due = self._tokens_exact[dataset]
        segment = bisect_left(due, target, 1) - 1
        if segment == len(self.start_tokens):
            return segment, NEVER, 0
        start, due_in_segment = int(self.start_tokens[segment]), target - due[segment]
        if not due_in_segment:
            return segment, start, 0
        steps, rest = divmod(due_in_segment, int(self.weights[segment, dataset]))
        return segment, start + steps, rest


def quota_curve(schedule: MixtureSchedule, available: Sequence[int | None]) -> QuotaCurve:
    """Computes the quota curve of a schedule.

    Args:
        schedule: requested shares.
        available: tokens that each data set may contribute to the whole plan, its tokens times its repeat cap; None if
            it has no cap.

    Raises:
        ConfigError: the number of entries differs from the number of data sets, an entry is negative, or the entries of
            all data sets of the first phase are 0.
    """
    if len(available) != len(schedule.datasets):
        raise ConfigError(f"{len(available)} caps for {len(schedule.datasets)} data sets", where="datasets")
    if any(tokens is not None and tokens < 0 for tokens in available):
        raise ConfigError("a data set has a negative number of available tokens", where="datasets")
    # No plan reaches a cap above MAX_TOKENS, and sums of such caps would exceed 64 bits.
    caps = [NEVER if tokens is None or tokens > MAX_TOKENS else tokens for tokens in available]
    builder = _CurveBuilder(caps)
    ends = [*schedule.start_tokens[1:].tolist(), schedule.end_tokens]
    completed = all(
        builder.add_stage(weights, phase, end)
        for weights, phase, end in zip(schedule.weights.tolist(), schedule.phase.tolist(), ends, strict=True)
    )
    if not builder.starts:
        raise ConfigError(
            "no data set of the phase may contribute a token",
            where=f"phases.{schedule.phases[0]}",
            hint="Raise max_epochs.",
        )
    if not completed:
        end_tokens, ends_by = builder.tokens, "data"
    else:
        end_tokens = schedule.end_tokens
        ends_by = "never" if end_tokens is None else "schedule"
    return QuotaCurve(
        schedule=schedule,
        available=np.array(caps, np.int64),
        start_tokens=np.array(builder.starts, np.int64),
        weights=np.array(builder.weights, np.int64).reshape(-1, len(caps)),
        phase=np.array(builder.phases, np.int64),
        end_tokens=end_tokens,
        ends_by=ends_by,
        exhausted=tuple(builder.exhausted),
    )


class _CurveBuilder:
    """A builder of the segments of a quota curve from the stages of a schedule.

    It computes with Python integers, because the tokens due in parts of 1 / `SCALE` exceed 64 bits.
    """

    def __init__(self, caps: list[int]) -> None:
        self.starts: list[int] = []
        self.weights: list[list[int]] = []
        self.phases: list[int] = []
        self.exhausted: list[tuple[int, int]] = []
        self.tokens = 0
        # The available tokens that are not yet due, in parts of 1 / SCALE; None for a data set without a cap.
        self._left = [None if cap == NEVER else cap * SCALE for cap in caps]

    def add_stage(self, stage_weights: list[int], phase: int, end: int | None) -> bool:
        """Appends the segments of a stage; returns False if all its data sets are exhausted before its end."""
        while end is None or self.tokens < end:
            parts = [part if left != 0 else 0 for part, left in zip(stage_weights, self._left, strict=True)]
            if not any(parts):
                return False
            weights = integer_weights(parts)
            tokens_to_caps = [
                left // weight
                for left, weight in zip(self._left, weights, strict=True)
                if weight and left is not None
            ]
            tokens_to_end = None if end is None else end - self.tokens
            limits = [tokens for tokens in [*tokens_to_caps, tokens_to_end] if tokens is not None]
            length = min(limits, default=None)
            if length:
                self._append_segment(weights, phase, length)
            elif length is None:
                self._append_segment(weights, phase, 0)
                return True
            elif not self._append_final_token(parts, phase):
                return False
        return True

    def _append_segment(self, weights: list[int], phase: int, length: int) -> None:
        """Appends a segment of `length` tokens; 0 stands for an infinite segment."""
        self.starts.append(self.tokens)
        self.weights.append(weights)
        self.phases.append(phase)
        self.tokens += length
        for i, weight in enumerate(weights):
            left = self._left[i]
            if weight and left is not None:
                self._left[i] = left - weight * length
                if self._left[i] == 0:
                    self.exhausted.append((i, self.tokens))

    def _append_final_token(self, parts: list[int], phase: int) -> bool:
        """Appends a segment of one token in which a data set is exhausted within the token.

        The data set contributes the fraction that it has left, and the other data sets contribute the rest. Returns False
        if all data sets together have less than one token left.
        """
        weights = [0] * len(parts)
        rest = SCALE
        while rest:
            open_parts = [
                part if self._left[i] is None or weights[i] < self._left[i] else 0  # type: ignore[operator]
                for i, part in enumerate(parts)
            ]
            if not any(open_parts):
                return False
            for i, share in enumerate(split_proportionally(rest, open_parts)):
                left = self._left[i]
                taken = share if left is None else min(share, left - weights[i])
                weights[i] += taken
                rest -= taken
        self._append_segment(weights, phase, 1)
        return True
