"""Finding and Severity."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmpack.sync.alignment.align import AlignedStream

Severity = Literal["info", "fault"]

#: Places listed in one finding; the count is always complete.
MAX_TIMES = 1000
#: Fewer items than this have no period to speak of.
MIN_ITEMS = 8


@dataclass(frozen=True)
class Finding:
    """One thing a detector saw.

    Attributes:
        kind: gap, duplicate, near_duplicate, backward, sentinel, no_overlap, float_quantised, burst,
            receive_latency, missing_sensor, truncated_edge, drift, coarse_stamps, out_of_tolerance or
            reference_wander.
        severity: 'fault' for damage, 'info' for a property worth knowing.
        stream: the stream.
        count: how often.
        text: one sentence for people.
        places_ns: the first places on the reference's clock, at most MAX_PLACES.
    """

    kind: str
    severity: Severity
    stream: str
    count: int
    text: str
    times_ns: tuple[int, ...] = ()


def limit_times(t_ns: Iterable[int] | NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(int(t) for t in list(t_ns)[:MAX_TIMES])


def timestamps_of_items(stream: AlignedStream, items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where items lie on the reference's clock; those set aside as doubles lie where their first copy does."""
    at = np.searchsorted(stream.items, items, side="right") - 1
    return stream.t_ns[np.clip(at, 0, len(stream.t_ns) - 1)]
