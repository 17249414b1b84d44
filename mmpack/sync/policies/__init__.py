"""Sync policies: how the items of a stream are chosen for each tick, one file per policy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.policies.exact import match_exact
from mmpack.sync.policies.hold import match_hold
from mmpack.sync.policies.interpolate import match_interpolate
from mmpack.sync.policies.match import StreamMatch
from mmpack.sync.policies.nearest import match_nearest
from mmpack.sync.policies.overlap import match_overlap
from mmpack.sync.policies.rule import MatchRule
from mmpack.sync.policies.window import match_window


def match_stream(
    stream: AlignedStream, rule: MatchRule, ticks_ns: NDArray[np.int64], tick_period_ns: int
) -> StreamMatch:
    """Matches `stream` to the ticks with the policy of its rule.

    Args:
        stream: aligned stream.
        rule: match rule of the stream.
        ticks_ns: int64, shape (T,), times of the ticks, ascending.
        tick_period_ns: median distance of the ticks.
    """
    return POLICIES[rule.policy](stream, rule, ticks_ns, tick_period_ns)


POLICIES: dict[str, Callable[[AlignedStream, MatchRule, NDArray[np.int64], int], StreamMatch]] = {
    "exact": match_exact,
    "nearest": match_nearest,
    "interpolate": match_interpolate,
    "hold": match_hold,
    "window": match_window,
    "overlap": match_overlap,
}
