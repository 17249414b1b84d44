"""Tokens and epochs that each data set will see in each phase, known before a run, and what to watch out for."""

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
"""Repeats are worth almost as much as new tokens up to here (Muennighoff et al., arXiv 2305.16264)."""


@dataclass(frozen=True, slots=True)
class ForecastWarning:
    """Something in a forecast that its author may not have meant.

    Attributes:
        kind: "cap", a data set reaches its repeat cap and others take over; "data_end", all data sets of a phase have run
            out before the phases are over; "repeated", a data set without a cap is seen more than `DIMINISHING_EPOCHS` times;
            "unseen", a data set gives nothing.
        dataset: its name; empty for "data_end".
        phase: in which phase; empty if in none.
        tokens: of the run, when it happens.
        message: the same in a sentence.
        takes_over: for "cap": (name, share before, share after) of each data set whose share changes, largest gain
            first.
    """

    kind: Literal["cap", "data_end", "repeated", "unseen"]
    dataset: str
    phase: str
    tokens: int
    message: str
    takes_over: tuple[tuple[str, float, float], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class MixtureForecast:
    """What a run will draw, each figure exact up to one document of its data set at either end.

    Attributes:
        course: what is drawn when.
        sizes: int64 (datasets,), tokens of one epoch.
        edges: int64 (phases + 1,), tokens of the run where phases begin, and where the forecast ends. A phase that the
            data do not last for is empty.
        tokens: int64 (phases, datasets).
        findings: in the order they happen.
    """

    quota_curve: QuotaCurve
    sizes: NDArray[np.int64]
    phase_edges: NDArray[np.int64]
    tokens: NDArray[np.int64]
    findings: tuple[ForecastWarning, ...]

    @property
    def shares(self) -> NDArray[np.float64]:
        """float64 (phases, datasets): of each phase's tokens; 0 in an empty phase."""
        whole = np.diff(self.phase_edges)[:, None]
        return np.divide(self.tokens, whole, out=np.zeros(self.tokens.shape), where=whole > 0)

    @property
    def epochs(self) -> NDArray[np.float64]:
        """float64 (phases, datasets): how often a data set's tokens are seen in each phase."""
        return np.divide(self.tokens, self.sizes, out=np.zeros(self.tokens.shape), where=self.sizes > 0)

    @property
    def total_tokens(self) -> NDArray[np.int64]:
        """int64 (datasets,), of the whole forecast."""
        return self.tokens.sum(axis=0)

    @property
    def total_epochs(self) -> NDArray[np.float64]:
        """float64 (datasets,), of the whole forecast."""
        return self.epochs.sum(axis=0)


def max_tokens_of_run(max_epochs: float | None, tokens: int) -> int | None:
    """Tokens that a data set may give in the whole run, at least 1 if it has any; None: no cap.

    Args:
        max_epochs: repeat cap, taken as the decimal it is written as.
        tokens: of one epoch.
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
    """What a run along `schedule` will draw.

    Args:
        schedule: the phases.
        sizes: tokens of one epoch of each data set.
        max_epochs: repeat caps; None: no cap.
        until_tokens: how far to look. None: to the end of the phases or of the data; where neither ends, until the last
            phase has drawn as many tokens as its data sets have.
    """
    course = quota_curve(
        schedule, [max_tokens_of_run(epochs, size) for epochs, size in zip(max_epochs, sizes, strict=True)]
    )
    starts = schedule.start_tokens[np.searchsorted(schedule.phase, np.arange(len(schedule.phases)))]
    end = until_tokens
    if end is None:
        once = sum(size for size, weight in zip(sizes, schedule.weights[-1], strict=True) if weight)
        last = course.exhausted[-1][1] if course.exhausted else 0
        end = max(int(starts[-1]) + once, last + 1)
    if course.end_tokens is not None:
        end = course.end_tokens if until_tokens is None else min(end, course.end_tokens)
    edges = np.minimum(np.append(starts, end), end)
    due = [course.tokens_at(edge) for edge in edges.tolist()]
    tokens = np.diff(np.array([[_round_tokens(part) for part in row] for row in due], np.int64), axis=0)
    return MixtureForecast(
        course,
        np.array(sizes, np.int64),
        edges,
        tokens,
        tuple(_collect_warnings(course, sizes, max_epochs, end)),
    )


def _round_tokens(part: int) -> int:
    """Parts of `SCALE` of a token as whole tokens."""
    return (2 * part + SCALE) // (2 * SCALE)


def format_tokens(tokens: float) -> str:
    """`1500000000000` as "1.5T"."""
    for size, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        # What would be written "1e+03" of a unit is 1 of the next.
        if tokens >= 0.9995 * size:
            return f"{tokens / size:.3g}{unit}"
    return f"{tokens:.3g}"


def format_epochs(epochs: float) -> str:
    """Three figures: 0.648, 70.6, 1,010."""
    return f"{epochs:.3g}" if epochs < 999.5 else f"{epochs:,.0f}"


def _collect_warnings(
    curve: QuotaCurve, sizes: Sequence[int], max_epochs: Sequence[float | None], end: int
) -> list[ForecastWarning]:
    names = curve.schedule.datasets
    found = [
        _cap_warning(curve, dataset, tokens, max_epochs)
        for dataset, tokens in curve.exhausted
        if tokens <= end
    ]
    for dataset, size in enumerate(sizes):
        total = curve.tokens_at(end)[dataset]
        if not total:
            drawn_from = curve.schedule.weights[:, dataset].any()
            why = (
                "it has no tokens"
                if not size
                else "its phases are not reached"
                if drawn_from
                else "no phase has it"
            )
            found.append(
                ForecastWarning("unseen", names[dataset], "", 0, f"'{names[dataset]}' gives nothing: {why}")
            )
        elif max_epochs[dataset] is None and total > DIMINISHING_EPOCHS * size * SCALE:
            _, tokens, _ = curve.inverse(dataset, DIMINISHING_EPOCHS * size)
            found.append(
                ForecastWarning(
                    "repeated",
                    names[dataset],
                    _phase_at(curve, tokens),
                    tokens,
                    f"'{names[dataset]}' has been seen {DIMINISHING_EPOCHS} times, after which gains fade, and will be "
                    f"{format_epochs(total / SCALE / size)} times: a max_epochs would cap it",
                )
            )
    if curve.ends_by == "data" and curve.end_tokens is not None and end == curve.end_tokens:
        planned = curve.schedule.end_tokens
        short = "" if planned is None else f", {planned - end:,} tokens before the end of the phases"
        phase = _phase_at(curve, end)
        found.append(
            ForecastWarning(
                "data_end", "", phase, end, f"all data sets of '{phase}' have run out{short}: the run ends"
            )
        )
    return sorted(found, key=lambda finding: finding.tokens)


def _phase_at(curve: QuotaCurve, tokens: int) -> str:
    """The wanted phase: the course may have ended there."""
    return curve.schedule.phases[int(curve.schedule.phase[curve.schedule.stage_at(tokens)])]


def _cap_warning(
    curve: QuotaCurve, dataset: int, tokens: int, max_epochs: Sequence[float | None]
) -> ForecastWarning:
    """The finding that a data set has run out, with who takes over."""
    schedule = curve.schedule
    name, phase = schedule.datasets[dataset], _phase_at(curve, tokens - 1)
    message = f"'{name}' reaches its cap (max_epochs {max_epochs[dataset]:g})"
    # Segments of one token, where a cap falls within a token, have shares of no meaning.
    before, after = _neighbouring_segments(curve, tokens)
    ended = curve.end_tokens is not None and tokens >= curve.end_tokens
    if ended or _phase_at(curve, tokens) != phase:
        return ForecastWarning("cap", name, phase, tokens, message)
    changes = sorted(
        (
            (schedule.datasets[i], float(old) / SCALE, float(new) / SCALE)
            for i, (old, new) in enumerate(zip(curve.weights[before], curve.weights[after], strict=True))
            if new > old
        ),
        key=lambda change: change[1] - change[2],
    )
    told = ", ".join(f"'{other}' {old:.1%} → {new:.1%}" for other, old, new in changes[:3])
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return ForecastWarning(
        "cap", name, phase, tokens, f"{message}; its part goes to {told}{more}", tuple(changes)
    )


def _neighbouring_segments(curve: QuotaCurve, tokens: int) -> tuple[int, int]:
    """The nearest segments of more than one token that end by `tokens` and begin there."""
    short = np.diff(curve.segment_edges) == 1
    after = int(np.searchsorted(curve.start_tokens, tokens))
    before = after - 1
    while before > 0 and short[before]:
        before -= 1
    while after < len(short) - 1 and short[after]:
        after += 1
    return before, min(after, len(short) - 1)
