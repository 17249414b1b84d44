"""A forecast of a plan: tokens and epochs of each data set in each phase, with warnings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmpack.mixture.quota import QuotaCurve, quota_curve
from mmpack.mixture.schedule import MixtureSchedule
from mmpack.mixture.weights import SCALE

DIMINISHING_EPOCHS = 4
"""Number of epochs up to which repeated tokens are worth almost as much as new tokens (Muennighoff et al.,
arXiv 2305.16264)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastWarning:
    """An effect of a plan that its author may not have intended.

    Attributes:
        kind: "cap": a data set reaches its repeat cap, and other data sets take over its share; "data_end": all data sets
            of a phase are exhausted before the end of the phases; "repeated": a data set without a cap is seen more than
            `DIMINISHING_EPOCHS` times; "unseen": a data set contributes no tokens.
        dataset: name of the data set; empty for "data_end".
        phase: name of the phase in which the effect occurs; empty for "unseen".
        tokens: token count of the plan at which the effect occurs.
        message: the warning as a sentence.
        takes_over: for "cap", (name, share before, share after) of each data set whose share grows, largest gain first.
    """

    kind: Literal["cap", "data_end", "repeated", "unseen"]
    dataset: str
    phase: str
    tokens: int
    message: str
    takes_over: tuple[tuple[str, float, float], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class MixtureForecast:
    """The tokens that a plan draws in each phase.

    Each value is exact up to one document of its data set at the beginning and one at the end of the phase.

    Attributes:
        quota_curve: quota of each data set.
        sizes: int64 (datasets,), tokens of one epoch of each data set.
        phase_edges: int64 (phases + 1,), token counts at which the phases begin, then the one at which the forecast ends.
            A phase that is not reached is empty.
        tokens: int64 (phases, datasets), tokens drawn in each phase.
        warnings: warnings in the order of their token counts.
    """

    quota_curve: QuotaCurve
    sizes: NDArray[np.int64]
    phase_edges: NDArray[np.int64]
    tokens: NDArray[np.int64]
    warnings: tuple[ForecastWarning, ...]

    @property
    def shares(self) -> NDArray[np.float64]:
        """The share of each data set in the tokens of each phase, float64 (phases, datasets); 0 in an empty phase."""
        phase_tokens = np.diff(self.phase_edges)[:, None]
        return np.divide(self.tokens, phase_tokens, out=np.zeros(self.tokens.shape), where=phase_tokens > 0)

    @property
    def epochs(self) -> NDArray[np.float64]:
        """The number of epochs of each data set in each phase, float64 (phases, datasets)."""
        return np.divide(self.tokens, self.sizes, out=np.zeros(self.tokens.shape), where=self.sizes > 0)

    @property
    def total_tokens(self) -> NDArray[np.int64]:
        """The tokens of each data set in the whole forecast, int64 (datasets,)."""
        return self.tokens.sum(axis=0)

    @property
    def total_epochs(self) -> NDArray[np.float64]:
        """The number of epochs of each data set in the whole forecast, float64 (datasets,)."""
        return self.epochs.sum(axis=0)


def max_tokens_of_run(max_epochs: float | None, tokens: int) -> int | None:
    """Computes the number of tokens that a data set may contribute to the whole plan.

    Args:
        max_epochs: repeat cap, taken as the decimal that `repr` prints, so 0.1 is 1/10; None for no cap.
        tokens: number of tokens of one epoch.

    Returns:
        The number of tokens, at least 1 if the data set has tokens; None without a cap.
    """
    if not tokens:
        return 0
    return None if max_epochs is None else max(1, int(Fraction(repr(float(max_epochs))) * tokens))


def forecast_mixture(
    schedule: MixtureSchedule,
    sizes: Sequence[int],
    max_epochs: Sequence[float | None],
    *,
    until_tokens: int | None = None,
) -> MixtureForecast:
    """Forecasts the tokens that a plan draws.

    Args:
        schedule: requested shares.
        sizes: tokens of one epoch of each data set.
        max_epochs: repeat cap of each data set; None for no cap.
        until_tokens: token count at which the forecast ends. None: the end of the phases or of the data; if neither
            ends, the token count at which the last phase has drawn as many tokens as one epoch of its data sets.
    """
    curve = quota_curve(
        schedule, [max_tokens_of_run(epochs, size) for epochs, size in zip(max_epochs, sizes, strict=True)]
    )
    starts = schedule.start_tokens[np.searchsorted(schedule.phase, np.arange(len(schedule.phases)))]
    end = until_tokens
    if end is None:
        last_phase_epoch = sum(
            size for size, weight in zip(sizes, schedule.weights[-1], strict=True) if weight
        )
        last_exhausted = curve.exhausted[-1][1] if curve.exhausted else 0
        end = max(int(starts[-1]) + last_phase_epoch, last_exhausted + 1)
    if curve.end_tokens is not None:
        end = curve.end_tokens if until_tokens is None else min(end, curve.end_tokens)
    edges = np.minimum(np.append(starts, end), end)
    due = [curve.tokens_at(edge) for edge in edges.tolist()]
    tokens = np.diff(np.array([[_round_tokens(part) for part in row] for row in due], np.int64), axis=0)
    return MixtureForecast(
        curve,
        np.array(sizes, np.int64),
        edges,
        tokens,
        tuple(_collect_warnings(curve, sizes, max_epochs, end)),
    )


def _round_tokens(part: int) -> int:
    """Rounds a number of tokens in parts of 1 / `SCALE` to whole tokens."""
    return (2 * part + SCALE) // (2 * SCALE)


def format_tokens(tokens: float) -> str:
    """Formats a number of tokens with three digits and a unit: `1500000000000` as "1.5T"."""
    for size, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        # A value that would print as "1e+03" of a unit is printed as 1 of the next unit.
        if tokens >= 0.9995 * size:
            return f"{tokens / size:.3g}{unit}"
    return f"{tokens:.3g}"


def format_epochs(epochs: float) -> str:
    """Formats a number of epochs with three significant digits, or as an integer from 1,000 on: 0.648, 70.6, 1,010."""
    return f"{epochs:.3g}" if epochs < 999.5 else f"{epochs:,.0f}"


def _collect_warnings(
    curve: QuotaCurve, sizes: Sequence[int], max_epochs: Sequence[float | None], end: int
) -> list[ForecastWarning]:
    names = curve.schedule.datasets
    warnings = [
        _cap_warning(curve, dataset, tokens, max_epochs)
        for dataset, tokens in curve.exhausted
        if tokens <= end
    ]
    for dataset, size in enumerate(sizes):
        total = curve.tokens_at(end)[dataset]
        if not total:
            is_scheduled = curve.schedule.weights[:, dataset].any()
            reason = (
                "it has no tokens"
                if not size
                else "its phases are not reached"
                if is_scheduled
                else "no phase uses it"
            )
            message = f"'{names[dataset]}' contributes no tokens: {reason}"
            warnings.append(
                ForecastWarning(kind="unseen", dataset=names[dataset], phase="", tokens=0, message=message)
            )
        elif max_epochs[dataset] is None and total > DIMINISHING_EPOCHS * size * SCALE:
            _, tokens, _ = curve.inverse(dataset, DIMINISHING_EPOCHS * size)
            warnings.append(
                ForecastWarning(
                    kind="repeated",
                    dataset=names[dataset],
                    phase=_phase_at(curve, tokens),
                    tokens=tokens,
                    message=f"'{names[dataset]}' has been seen {DIMINISHING_EPOCHS} times, after which repeats gain less, and will "
                    f"be seen {format_epochs(total / SCALE / size)} times; set max_epochs to limit it",
                )
            )
    if curve.ends_by == "data" and curve.end_tokens is not None and end == curve.end_tokens:
        scheduled = curve.schedule.end_tokens
        shortfall = "" if scheduled is None else f", {scheduled - end:,} tokens before the end of the phases"
        phase = _phase_at(curve, end)
        message = f"the plan ends because all data sets of '{phase}' are exhausted{shortfall}"
        warnings.append(
            ForecastWarning(kind="data_end", dataset="", phase=phase, tokens=end, message=message)
        )
    return sorted(warnings, key=lambda warning: warning.tokens)


def _phase_at(curve: QuotaCurve, tokens: int) -> str:
    """Returns the name of the phase that the schedule has at `tokens`, even after the end of the quota curve."""
    return curve.schedule.phases[int(curve.schedule.phase[curve.schedule.stage_at(tokens)])]


def _cap_warning(
    curve: QuotaCurve, dataset: int, tokens: int, max_epochs: Sequence[float | None]
) -> ForecastWarning:
    """Returns the warning that a data set reaches its cap, with the data sets that take over its share."""
    schedule = curve.schedule
    name, phase = schedule.datasets[dataset], _phase_at(curve, tokens - 1)
    message = f"'{name}' reaches its cap (max_epochs {max_epochs[dataset]:g})"
    # The shares of a segment of one token, which exists where a cap falls within a token, have no meaning.
    before, after = _neighbouring_segments(curve, tokens)
    is_end = curve.end_tokens is not None and tokens >= curve.end_tokens
    if is_end or _phase_at(curve, tokens) != phase:
        return ForecastWarning(kind="cap", dataset=name, phase=phase, tokens=tokens, message=message)
    changes = sorted(
        (
            (schedule.datasets[i], float(old) / SCALE, float(new) / SCALE)
            for i, (old, new) in enumerate(zip(curve.weights[before], curve.weights[after], strict=True))
            if new > old
        ),
        key=lambda change: change[1] - change[2],
    )
    gains = ", ".join(f"'{other}' {old:.1%} → {new:.1%}" for other, old, new in changes[:3])
    others = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return ForecastWarning(
        kind="cap",
        dataset=name,
        phase=phase,
        tokens=tokens,
        message=f"{message}; its share goes to {gains}{others}",
        takes_over=tuple(changes),
    )


def _neighbouring_segments(curve: QuotaCurve, tokens: int) -> tuple[int, int]:
    """Returns the indices of the nearest segments of more than one token before and after a segment edge.

    Args:
        curve: quota curve.
        tokens: token count of the edge.
    """
    is_single = np.diff(curve.segment_edges) == 1
    after = int(np.searchsorted(curve.start_tokens, tokens))
    before = after - 1
    while before > 0 and is_single[before]:
        before -= 1
    while after < len(is_single) - 1 and is_single[after]:
        after += 1
    return before, min(after, len(is_single) - 1)
