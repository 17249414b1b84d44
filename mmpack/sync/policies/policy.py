"""SyncPolicy: the description of a policy, as data that all other modules ask instead of its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from mmpack.recording import Stream
from mmpack.recording.model import StreamKind
from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.policies.match import StreamMatch
from mmpack.sync.policies.rule import MatchRule

#: Matches an aligned stream by its rule to the ticks (int64, shape (T,), ascending, on the reference's clock); the last
#: argument is the median distance of the ticks in ns.
MatchFunction = Callable[[AlignedStream, MatchRule, NDArray[np.int64], int], StreamMatch]

ALL_KINDS: frozenset[StreamKind] = frozenset(get_args(StreamKind))
#: Kinds whose items have a timestamp each and no duration.
INSTANT_KINDS: frozenset[StreamKind] = ALL_KINDS - {"audio", "text"}


class JudgedBy(Enum):
    """The quantity by which a match is judged when it is made and when a finished slice is verified.

    It also decides how reports show a stream, and which modules look at its residuals.
    """

    EQUALITY = "equality"
    """One item whose timestamp is tick + offset, so its residual is 0."""
    RESIDUAL = "residual"
    """One item whose |residual| is at most the tolerance. The residuals show a learned offset and the drift of a clock."""
    AGE = "age"
    """The latest item, no older than the limit of the rule."""
    COMPUTED = "computed"
    """A value that is interpolated for tick + offset itself; the limit of the rule bounds the gap between the items."""
    SPAN = "span"
    """All items, or audio samples, of the time window of the rule."""
    TEXT = "text"
    """Texts that overlap the time window of the rule."""

    @property
    def is_compared(self) -> bool:
        """True if the residual of the item counts into the residual of the slice."""
        return self in (JudgedBy.EQUALITY, JudgedBy.RESIDUAL)

    @property
    def has_residual(self) -> bool:
        """True if the residual describes the quality of a match, so that reports show it."""
        return self in (JudgedBy.EQUALITY, JudgedBy.RESIDUAL, JudgedBy.AGE)

    @property
    def has_window(self) -> bool:
        """True if the rule's window [tick + offset - before, tick + offset + after) chooses the items."""
        return self in (JudgedBy.SPAN, JudgedBy.TEXT)


@dataclass(frozen=True, kw_only=True)
class SyncPolicy:
    """A way to choose the items of a stream for each tick.

    Attributes:
        name: value of `policy` in the settings, in reports and in shards.
        match: function that matches a stream.
        judged_by: quantity by which its matches are judged.
        kinds: kinds of streams that it can match.
        default_kinds: kinds of streams for which it is the default; each kind has one default policy.
        kinds_message: message for a stream of another kind; `{kind}` stands for the kind with its article.
        check_stream: function that raises ConfigError for a stream of a fitting kind that it cannot match, or None.
        plot_label: text in the plot in place of a histogram of residuals; empty for a policy with residuals to plot.
    """

    name: str
    match: MatchFunction
    judged_by: JudgedBy
    kinds: frozenset[StreamKind]
    default_kinds: frozenset[StreamKind] = frozenset()
    kinds_message: str = ""
    check_stream: Callable[[Stream], None] | None = None
    plot_label: str = ""
