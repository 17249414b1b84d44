"""The compiled draw; `mmpack.mixture.draw` explains the rule and proves its bound."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from mmpack.mixture.quota import NEVER
from mmpack.mixture.weights import SCALE

ENOUGH, EXHAUSTED, END = 0, 1, 2
"""Stop codes; `DrawResult.stop` names them."""


@njit(cache=True)
def _advance_quota(edges: Any, weights: Any, dataset: int, point: Any, tokens: int) -> Any:
    """Returns the point of the quota curve at which `tokens` more tokens of a data set are due than at `point`.

    Points are tuples (segment, whole tokens, rest) as in `QuotaCurve.inverse`.
    """
    segment, total, rest = point
    needed = rest + tokens * SCALE
    while segment < weights.shape[0]:
        weight = weights[segment, dataset]
        if weight > 0:
            tokens_left = edges[segment + 1] - total
            steps = needed // weight
            if steps < tokens_left or (steps == tokens_left and needed == steps * weight):
                return segment, total + steps, needed - steps * weight
            needed -= tokens_left * weight
        segment += 1
        total = edges[segment]
    return segment, NEVER, 0


@njit(cache=True)
def _release_tokens(edges: Any, weights: Any, dataset: int, point: Any) -> int:
    """Returns the first whole token count from which on more of a data set becomes due than at `point`."""
    segment, total, rest = point
    if rest > 0:
        return total + 1
    while segment < weights.shape[0]:
        if weights[segment, dataset] > 0 and total < edges[segment + 1]:
            return total
        segment += 1
        total = edges[segment]
    return NEVER


@njit(cache=True, nogil=True)
def draw_earliest_deadline(
    edges: Any,
    weights: Any,
    available: Any,
    quota_points: Any,
    drawn: Any,
    lengths: Any,
    offsets: Any,
    until_tokens: int,
) -> Any:
    """Draws the released document with the earliest deadline until a limit is reached.

    Drawing stops when `until_tokens` tokens are drawn, a buffer has no next document or the quota curve ends.

    Args:
        edges: int64 (segments + 1,), `QuotaCurve.segment_edges`.
        weights: int64 (segments, datasets), `QuotaCurve.weights`.
        available: int64 (datasets,), `QuotaCurve.available`.
        quota_points: int64 (datasets, 3), points of the quota curve at which the tokens drawn so far are due, as in
            `QuotaCurve.inverse`.
        drawn: int64 (datasets,), tokens drawn so far; modified by the call.
        lengths: int32 (documents,), tokens of the next documents of all data sets.
        offsets: int64 (datasets + 1,), index in `lengths` at which each data set begins.
        until_tokens: number of tokens of all data sets together at which drawing stops.

    Returns:
        (int16 (draws,) data set of each draw, stop code, index of the data set whose buffer has no next document or -1).
    """
    num_datasets = drawn.size
    chosen = np.empty(lengths.size, np.int16)
    start = [(quota_points[i, 0], quota_points[i, 1], quota_points[i, 2]) for i in range(num_datasets)]
    # The point at which the next document of each data set is completely due.
    end = [start[i] for i in range(num_datasets)]
    next_document = offsets[:-1].copy()
    release = np.full(num_datasets, NEVER, np.int64)
    deadline = np.full(num_datasets, NEVER, np.int64)
    # Tokens beyond a cap count in `total`, but not in `now`, the position on the quota curve.
    total = now = draws = 0
    for i in range(num_datasets):
        total += drawn[i]
        now += min(drawn[i], available[i])
        if drawn[i] < available[i]:
            release[i] = _release_tokens(edges, weights, i, start[i])
            if next_document[i] < offsets[i + 1]:
                counted = min(lengths[next_document[i]], available[i] - drawn[i])
                end[i] = _advance_quota(edges, weights, i, start[i], counted)
                deadline[i] = end[i][1]
    while total < until_tokens:
        if now >= edges[-1]:
            return chosen[:draws].copy(), END, -1
        best = -1
        for i in range(num_datasets):
            if release[i] <= now:
                if next_document[i] == offsets[i + 1]:
                    return chosen[:draws].copy(), EXHAUSTED, i
                if best < 0 or deadline[i] < deadline[best]:
                    best = i
        length = lengths[next_document[best]]
        now += min(length, available[best] - drawn[best])
        total += length
        drawn[best] += length
        chosen[draws] = best
        draws += 1
        next_document[best] += 1
        if drawn[best] >= available[best]:
            release[best] = NEVER
            continue
        release[best] = _release_tokens(edges, weights, best, end[best])
        if next_document[best] < offsets[best + 1]:
            counted = min(lengths[next_document[best]], available[best] - drawn[best])
            end[best] = _advance_quota(edges, weights, best, end[best], counted)
            deadline[best] = end[best][1]
    return chosen[:draws].copy(), ENOUGH, -1
