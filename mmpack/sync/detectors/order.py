"""Detects implausible, backward and duplicate timestamps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.detectors.finding import Finding, limit_times, timestamps_of_items


def detect_discarded(stream: AlignedStream) -> Iterator[Finding]:
    """Yields the findings sentinel, backward and duplicate."""
    name, t_ns = stream.name, stream.stream.timestamps.t_ns
    if len(stream.implausible):
        values = ", ".join(str(int(t_ns[item])) for item in stream.implausible[:3])
        yield Finding(
            kind="sentinel",
            severity="problem",
            stream=name,
            count=len(stream.implausible),
            text=f"{len(stream.implausible)} timestamps cannot be times and were discarded "
            f"(first: item {stream.implausible[0]}: {values})",
        )
    if len(stream.backward):
        # A discarded item has no time on the reference's clock: the time of the next item is reported.
        following = np.searchsorted(stream.items, stream.backward)
        following_ns = stream.t_ns[np.minimum(following, len(stream.t_ns) - 1)]
        yield Finding(
            kind="backward",
            severity="problem",
            stream=name,
            count=len(stream.backward),
            text=f"{len(stream.backward)} timestamps are out of order and were discarded (first: item {stream.backward[0]})",
            times_ns=limit_times(following_ns),
        )
    if len(stream.duplicate):
        duplicate_ns = timestamps_of_items(stream, stream.duplicate)
        yield Finding(
            kind="duplicate",
            severity="problem",
            stream=name,
            count=len(stream.duplicate),
            text=f"{len(stream.duplicate)} of {len(t_ns)} timestamps equal the previous one (first: item {stream.duplicate[0]})",
            times_ns=limit_times(duplicate_ns),
        )
