"""Discarded timestamps: implausible, backward, duplicate."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.detectors.finding import Finding, limit_times, timestamps_of_items


def detect_discarded(stream: AlignedStream) -> Iterator[Finding]:
    name, stamps = stream.name, stream.stream.timestamps.t_ns
    if len(stream.implausible):
        values = ", ".join(str(int(stamps[item])) for item in stream.implausible[:3])
        yield Finding(
            "sentinel",
            "fault",
            name,
            len(stream.implausible),
            f"{len(stream.implausible)} stamps are no times (item {stream.implausible[0]}: {values}); set aside",
        )
    if len(stream.backward):
        around = np.searchsorted(stream.items, stream.backward)
        near = stream.t_ns[np.minimum(around, len(stream.t_ns) - 1)]
        yield Finding(
            "backward",
            "fault",
            name,
            len(stream.backward),
            f"{len(stream.backward)} stamps out of order (first: item {stream.backward[0]}); set aside",
            limit_times(near),
        )
    if len(stream.duplicate):
        # Several rows of one moment are how radars and CAN write; a camera has one picture at a time.
        places = timestamps_of_items(stream, stream.duplicate)
        yield Finding(
            "duplicate",
            "fault",
            name,
            len(stream.duplicate),
            f"{len(stream.duplicate)} of {len(stamps)} stamps equal the one before (first: item {stream.duplicate[0]})",
            limit_times(places),
        )
