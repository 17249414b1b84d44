"""The sync policies by name. A new policy is a file in this folder and a line in `POLICIES`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmpack.recording.model import StreamKind
from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.policies.exact import EXACT
from mmpack.sync.policies.hold import HOLD
from mmpack.sync.policies.interpolate import INTERPOLATE
from mmpack.sync.policies.match import StreamMatch
from mmpack.sync.policies.nearest import NEAREST
from mmpack.sync.policies.overlap import OVERLAP
from mmpack.sync.policies.policy import JudgedBy, SyncPolicy
from mmpack.sync.policies.rule import MatchRule
from mmpack.sync.policies.window import WINDOW

#: All policies by name, in the order in which messages list them.
POLICIES: dict[str, SyncPolicy] = {
    policy.name: policy
    for policy in (
        EXACT,
        NEAREST,
        INTERPOLATE,
        WINDOW,
        HOLD,
        OVERLAP,
    )
}

#: The default policy of each kind of stream.
DEFAULT_POLICIES: dict[StreamKind, SyncPolicy] = {
    kind: policy for policy in POLICIES.values() for kind in policy.default_kinds
}


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
    return POLICIES[rule.policy].match(stream, rule, ticks_ns, tick_period_ns)


def judged_by(match: StreamMatch) -> JudgedBy:
    """Returns the quantity by which `match` is judged."""
    return POLICIES[match.rule.policy].judged_by
