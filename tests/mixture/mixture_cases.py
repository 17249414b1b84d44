"""Random mixtures for tests, and slow reference implementations of what the package computes fast."""

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
    """A quota curve, and the document lengths of each data set in order."""

    curve: QuotaCurve
    documents: list[list[int]]

    @property
    def max_length(self) -> int:
        """The length of the longest document."""
        return max(max(lengths) for lengths in self.documents)

    def buffers(
        self, num_drawn: list[int] | None = None, max_documents: int = 1 << 30
    ) -> tuple[NDArray, NDArray]:
        """Returns (lengths, offsets) of up to `max_documents` documents of each data set after the drawn ones."""
        starts = num_drawn or [0] * len(self.documents)
        buffers = [lengths[n : n + max_documents] for lengths, n in zip(self.documents, starts, strict=True)]
        offsets = np.concatenate(([0], np.cumsum([len(buffer) for buffer in buffers]))).astype(np.int64)
        return np.array([length for buffer in buffers for length in buffer], np.int32), offsets


@st.composite
def cases(draw: st.DrawFn, max_datasets: int = 8) -> MixtureCase:
    """Draws data sets with any shares, several phases, caps, and document lengths of several distributions."""
    num_datasets = draw(st.integers(1, max_datasets))
    names = [f"d{i}" for i in range(num_datasets)]
    max_length = draw(st.sampled_from([1, 2, 7, 100, 1 << 24]))
    tokens = st.integers(1, 40 * num_datasets * max_length)
    phases = []
    for index in range(draw(st.integers(1, 4))):
        members = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
        settings: dict[str, object] = {"name": f"p{index}", "tokens": draw(tokens)}
        if draw(st.booleans()):
            share = st.floats(1e-9, 1).map(lambda value: value**4)
            settings["shares"] = {name: max(draw(share), 1e-30) for name in members}
        else:
            settings["datasets"] = tuple(members)
            temperature = st.floats(0.2, 6)
            settings["temperature"] = draw(temperature | temperature | st.tuples(temperature, temperature))
        phases.append(PhaseConfig(**settings))  # type: ignore[arg-type]
    if draw(st.booleans()):
        phases.append(PhaseConfig(name="rest"))
    sizes = {name: draw(st.integers(1, 10**6)) for name in names}
    caps = [draw(st.none() | st.integers(1, 20 * max_length)) for _ in names]
    curve = quota_curve(mixture_schedule(phases, sizes), caps)
    # Hypothesis draws a seed and a distribution, because drawing every length would dominate the case.
    random = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    distributions = {
        "any": lambda: random.integers(1, max_length + 1, 60),
        "longest": lambda: np.full(60, max_length),
        "extreme": lambda: random.choice([1, max_length], 60),
        "one": lambda: np.full(60, random.integers(1, max_length + 1)),
        "growing": lambda: np.sort(random.integers(1, max_length + 1, 60)),
    }
    documents = [
        distributions[draw(st.sampled_from(list(distributions)))]().tolist() for _ in range(num_datasets)
    ]
    return MixtureCase(curve, documents)


def reference_draw(case: MixtureCase, max_draws: int) -> list[int]:
    """Draws up to `max_draws` documents by the rule, with fractions, from the definition of the quota curve alone.

    It computes every deadline anew from the whole curve.
    """
    curve, chosen = case.curve, []
    counted = [0] * len(case.documents)
    num_drawn = [0] * len(case.documents)
    while len(chosen) < max_draws:
        now = sum(counted)
        if curve.end_tokens is not None and now >= curve.end_tokens:
            break
        due, due_next = curve.tokens_at(now), curve.tokens_at(now + 1)
        best: tuple[float, int] | None = None
        for i, lengths in enumerate(case.documents):
            drawn, cap = counted[i] * SCALE, int(curve.available[i])
            if counted[i] >= cap or due[i] < drawn or due_next[i] <= drawn:
                continue
            if num_drawn[i] == len(lengths):
                return chosen
            deadline = _deadline(curve, i, min(counted[i] + lengths[num_drawn[i]], cap))
            best = min(best or (float("inf"), i), (deadline, i))
        assert best is not None
        i = best[1]
        counted[i] = min(counted[i] + case.documents[i][num_drawn[i]], int(curve.available[i]))
        num_drawn[i] += 1
        chosen.append(i)
    return chosen


def _deadline(curve: QuotaCurve, dataset: int, tokens: int) -> float:
    """Returns the token count of all data sets, rounded down, at which `tokens` tokens of a data set are due."""
    edges = curve.segment_edges.tolist()
    due = 0
    for start, stop, weight in zip(edges, edges[1:], curve.weights[:, dataset].tolist(), strict=False):
        if weight and due + (stop - start) * weight >= tokens * SCALE:
            return start + Fraction(tokens * SCALE - due, weight).__floor__()
        due += (stop - start) * weight
    return float("inf")
