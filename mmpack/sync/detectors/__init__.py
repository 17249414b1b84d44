"""Detectors of faults in the timestamps of a recording, one file per family of findings."""

from __future__ import annotations

from collections.abc import Iterator

from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.detectors.finding import MIN_ITEMS, Finding
from mmpack.sync.detectors.order import detect_discarded
from mmpack.sync.detectors.quality import (
    detect_float_quantisation,
    detect_frame_period,
    detect_receive_latency,
)
from mmpack.sync.detectors.spacing import detect_audio_gaps, detect_spacing


def detect_stream(stream: AlignedStream) -> Iterator[Finding]:
    """Yields the findings that follow from the timestamps of one stream alone."""
    yield from detect_discarded(stream)
    yield from detect_float_quantisation(stream)
    if stream.stream.kind == "audio":
        yield from detect_audio_gaps(stream)
    elif stream.stream.kind != "text" and len(stream.t_ns) >= MIN_ITEMS:
        yield from detect_spacing(stream)
        yield from detect_receive_latency(stream)
        yield from detect_frame_period(stream)
