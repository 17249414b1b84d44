"""Finding: what a detector reports about the timestamps of a stream, and its severity."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmpack.sync.alignment.align import AlignedStream

Severity = Literal["info", "problem"]

#: Largest number of times listed in one finding; its count is always complete.
MAX_TIMES = 1000
#: A stream with fewer items has no meaningful period.
MIN_ITEMS = 8


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One observation of a detector about a stream.

    Attributes:
        kind: gap, duplicate, near_duplicate, backward, sentinel, no_overlap, float_quantised, burst,
            receive_latency, missing_sensor, truncated_edge, drift, coarse_timestamps, out_of_tolerance or
            unstable_reference.
        severity: 'problem' for damage, 'info' for a property of the stream.
        stream: name of the stream.
        count: number of occurrences.
        text: description in one sentence.
        times_ns: times of the first occurrences on the reference's clock, at most MAX_TIMES.
    """

    kind: str
    severity: Severity
    stream: str
    count: int
    text: str
    times_ns: tuple[int, ...] = ()


def is_series(stream: AlignedStream) -> bool:
    """Returns True if `stream` is a series of instants that is long enough to have a period.

    The segments of audio and the texts of a stream have no period.
    """
    return stream.stream.kind not in ("audio", "text") and len(stream.t_ns) >= MIN_ITEMS


def limit_times(t_ns: Iterable[int] | NDArray[np.int64]) -> tuple[int, ...]:
    """Returns the first MAX_TIMES of the times."""
    return tuple(int(t) for t in list(t_ns)[:MAX_TIMES])


def timestamps_of_items(stream: AlignedStream, items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the times of items on the reference's clock, int64; for a discarded duplicate the time of its first
    copy.
    """
    indices = np.searchsorted(stream.items, items, side="right") - 1
    return stream.t_ns[np.clip(indices, 0, len(stream.t_ns) - 1)]
