"""The draw itself, compiled; what it does and why it holds is told in `mmpack.mixture.draw`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from mmpack.mixture.quota import NEVER
from mmpack.mixture.weights import SCALE

ENOUGH, EXHAUSTED, END = 0, 1, 2


@njit(cache=True)
def _advance_quota(edges: Any, weights: Any, dataset: int, place: Any, tokens: int) -> Any:
    """The place `tokens` further due: (segment, whole tokens, rest), as of `QuotaCurve.place`."""
    segment, whole, rest = place
    need = rest + tokens * SCALE
    while segment < weights.shape[0]:
        weight = weights[segment, dataset]
        if weight > 0:
            room = edges[segment + 1] - whole
            steps = need // weight
            if steps < room or (steps == room and need == steps * weight):
                return segment, whole + steps, need - steps * weight
            need -= room * weight
        segment += 1
        whole = edges[segment]
    return segment, NEVER, 0


@njit(cache=True)
def _release_tokens(edges: Any, weights: Any, dataset: int, place: Any) -> int:
    """The first whole token count at which more is due than at `place`, or is just about to be."""
    segment, whole, rest = place
    if rest > 0:
        return whole + 1
    while segment < weights.shape[0]:
        if weights[segment, dataset] > 0 and whole < edges[segment + 1]:
            return whole
        segment += 1
        whole = edges[segment]
    return NEVER


@njit(cache=True, nogil=True)
def draw_earliest_deadline(
    edges: Any, weights: Any, available: Any, places: Any, drawn: Any, lengths: Any, offsets: Any, tokens: int
) -> Any:
    """Draws until `tokens` are drawn, a buffer runs dry or the course ends.

    Args:
        edges, weights, available: of the course.
        places: int64 (datasets, 3), where the tokens drawn so far fall due.
        drawn: int64 (datasets,), tokens drawn so far; changed in place.
        lengths: int32, next documents of all data sets; offsets: int64 (datasets + 1,) into it.
        tokens: of all data sets together, over which nothing more is drawn.

    Returns:
        int16 (draws,), why it stopped, the data set whose buffer ran dry or -1.
    """
    count = drawn.size
    chosen = np.empty(lengths.size, np.int16)
    place = [(places[i, 0], places[i, 1], places[i, 2]) for i in range(count)]
    after = [place[i] for i in range(count)]
    at = offsets[:-1].copy()
    release = np.full(count, NEVER, np.int64)
    deadline = np.full(count, NEVER, np.int64)
    total = now = draws = 0
    for i in range(count):
        total += drawn[i]
        now += min(drawn[i], available[i])
        if drawn[i] < available[i]:
            release[i] = _release_tokens(edges, weights, i, place[i])
            if at[i] < offsets[i + 1]:
                part = min(lengths[at[i]], available[i] - drawn[i])
                after[i] = _advance_quota(edges, weights, i, place[i], part)
                deadline[i] = after[i][1]
    while total < tokens:
        if now >= edges[-1]:
            return chosen[:draws].copy(), END, -1
        best = -1
        for i in range(count):
            if release[i] <= now:
                if at[i] == offsets[i + 1]:
                    return chosen[:draws].copy(), EXHAUSTED, i
                if best < 0 or deadline[i] < deadline[best]:
                    best = i
        length = lengths[at[best]]
        now += min(length, available[best] - drawn[best])
        total += length
        drawn[best] += length
        chosen[draws] = best
        draws += 1
        at[best] += 1
        if drawn[best] >= available[best]:
            release[best] = NEVER
            continue
        release[best] = _release_tokens(edges, weights, best, after[best])
        if at[best] < offsets[best + 1]:
            part = min(lengths[at[best]], available[best] - drawn[best])
            after[best] = _advance_quota(edges, weights, best, after[best], part)
            deadline[best] = after[best][1]
    return chosen[:draws].copy(), ENOUGH, -1
