"""Sync policies: how the items of a stream are chosen for each tick. One file per policy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mmpack.sync.alignment.align import Aligned
from mmpack.sync.policies.exact import _exact
from mmpack.sync.policies.hold import _hold
from mmpack.sync.policies.interpolate import _interpolate
from mmpack.sync.policies.match import Match
from mmpack.sync.policies.nearest import _nearest
from mmpack.sync.policies.overlap import _overlap
from mmpack.sync.policies.rule import Rule
from mmpack.sync.policies.window import _window


def match(stream: Aligned, rule: Rule, ticks_ns: NDArray[np.int64], tick_period_ns: int) -> Match:
    """`stream` matched to the ticks by its rule's policy.

    Args:
        stream: cleaned stamps on the reference's clock.
        rule: its settings.
        ticks_ns: int64, shape (T,), ascending.
        tick_period_ns: median distance of ticks.
    """
    return _POLICIES[rule.policy](stream, rule, ticks_ns, tick_period_ns)


_POLICIES: dict[str, Callable[[Aligned, Rule, NDArray[np.int64], int], Match]] = {
    "exact": _exact,
    "nearest": _nearest,
    "interpolate": _interpolate,
    "hold": _hold,
    "window": _window,
    "overlap": _overlap,
}
