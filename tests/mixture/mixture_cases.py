"""Mixtures for tests, and slow, plain ways to what the package computes fast."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmpack.mixture import SCALE, PhaseConfig, QuotaCurve, mixture_schedule, quota_curve

T = 10**12
SEED_PHASES = (
    PhaseConfig(name="cold", tokens="1T", temperature=1.2),
    PhaseConfig(name="mid", tokens="8T", temperature=(3.0, 5.0)),
    PhaseConfig(name="hot", tokens="1T", temperature=1.5),
)
SIZES = {"web": 9 * T, "video": 2 * T, "drives": 4 * 10**11, "speech": 6 * 10**10, "instructions": 5 * 10**9}


@dataclass(frozen=True)
class MixtureCase:
    """A course, and the documents of each data set in their order."""

    course: QuotaCurve
    documents: list[list[int]]

    @property
    def longest(self) -> int:
        return max(max(lengths) for lengths in self.documents)

    def buffers(self, taken: list[int] | None = None, most: int = 1 << 30) -> tuple[NDArray, NDArray]:
        """(lengths, offsets) of up to `most` documents behind those taken."""
        begin = taken or [0] * len(self.documents)
        parts = [lengths[n : n + most] for lengths, n in zip(self.documents, begin, strict=True)]
        offsets = np.concatenate(([0], np.cumsum([len(part) for part in parts]))).astype(np.int64)
        return np.array([length for part in parts for length in part], np.int32), offsets


@st.composite
def cases(draw: st.DrawFn, most_datasets: int = 8) -> MixtureCase:
    """Data sets with any shares, several phases, caps, and lengths that are alike, extreme or of any kind."""
    count = draw(st.integers(1, most_datasets))
    names = [f"d{i}" for i in range(count)]
    longest = draw(st.sampled_from([1, 2, 7, 100, 1 << 24]))
    tokens = st.integers(1, 40 * count * longest)
    phases = []
    for number in range(draw(st.integers(1, 4))):
        members = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
        settings: dict[str, object] = {"name": f"p{number}", "tokens": draw(tokens)}
        if draw(st.booleans()):
            share = st.floats(1e-9, 1).map(lambda value: value**4)
            settings["shares"] = {name: max(draw(share), 1e-30) for name in members}
        else:
            settings["datasets"] = tuple(members)
            heat = st.floats(0.2, 6)
            settings["temperature"] = draw(heat | heat | st.tuples(heat, heat))
        phases.append(PhaseConfig(**settings))  # type: ignore[arg-type]
    if draw(st.booleans()):
        phases.append(PhaseConfig(name="rest"))
    sizes = {name: draw(st.integers(1, 10**6)) for name in names}
    caps = [draw(st.none() | st.integers(1, 20 * longest)) for _ in names]
    course = quota_curve(mixture_schedule(phases, sizes), caps)
    # Their lengths one by one would be most of what hypothesis draws; a seed and a kind are enough.
    random = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    kinds = {
        "any": lambda: random.integers(1, longest + 1, 60),
        "longest": lambda: np.full(60, longest),
        "extreme": lambda: random.choice([1, longest], 60),
        "one": lambda: np.full(60, random.integers(1, longest + 1)),
        "growing": lambda: np.sort(random.integers(1, longest + 1, 60)),
    }
    documents = [kinds[draw(st.sampled_from(list(kinds)))]().tolist() for _ in range(count)]
    return MixtureCase(course, documents)


def reference_draw(case: MixtureCase, draws: int) -> list[int]:
    """The rule as it is written, in fractions and from the course's definition alone, without going on from before."""
    course, chosen = case.course, []
    counted = [0] * len(case.documents)
    taken = [0] * len(case.documents)
    while len(chosen) < draws:
        now = sum(counted)
        if course.end_tokens is not None and now >= course.end_tokens:
            break
        due, soon = course.tokens_at(now), course.tokens_at(now + 1)
        best: tuple[float, int] | None = None
        for i, lengths in enumerate(case.documents):
            have, cap = counted[i] * SCALE, int(course.available[i])
            if counted[i] >= cap or due[i] < have or soon[i] <= have:
                continue
            if taken[i] == len(lengths):
                return chosen
            best = min(
                best or (float("inf"), i), (_deadline(course, i, min(counted[i] + lengths[taken[i]], cap)), i)
            )
        assert best is not None
        i = best[1]
        counted[i] = min(counted[i] + case.documents[i][taken[i]], int(course.available[i]))
        taken[i] += 1
        chosen.append(i)
    return chosen


def _deadline(course: QuotaCurve, dataset: int, tokens: int) -> float:
    """Whole tokens of the run after which `tokens` of a data set are due."""
    edges = course.segment_edges.tolist()
    due = 0
    for start, stop, weight in zip(edges, edges[1:], course.weights[:, dataset].tolist(), strict=False):
        if weight and due + (stop - start) * weight >= tokens * SCALE:
            return start + Fraction(tokens * SCALE - due, weight).__floor__()
        due += (stop - start) * weight
    return float("inf")
