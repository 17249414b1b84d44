"""Detectors of problems in the timestamps of a recording, one file per family of findings.

A new detector is a function in a file of this folder and a line in one of the three registries. It decides itself
whether it applies to a stream. Reports list findings in the order of the registries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mmpack.sync.alignment.align import AlignedStream
from mmpack.sync.alignment.ticks import Ticks
from mmpack.sync.detectors.finding import Finding
from mmpack.sync.detectors.order import detect_discarded
from mmpack.sync.detectors.quality import (
    detect_float_quantisation,
    detect_frame_period,
    detect_receive_latency,
)
from mmpack.sync.detectors.residuals import (
    detect_clock_drift,
    detect_missing_sensor,
    detect_no_overlap,
    detect_out_of_tolerance,
    detect_truncated_edge,
    detect_unstable_reference,
)
from mmpack.sync.detectors.spacing import detect_audio_gaps, detect_spacing
from mmpack.sync.policies.match import StreamMatch

#: Detectors that look at the timestamps of one stream.
STREAM_DETECTORS: tuple[Callable[[AlignedStream], Iterator[Finding]], ...] = (
    detect_discarded,
    detect_float_quantisation,
    detect_audio_gaps,
    detect_spacing,
    detect_receive_latency,
    detect_frame_period,
)
#: Detectors that look at the match of one stream to the ticks.
MATCH_DETECTORS: tuple[Callable[[StreamMatch, Ticks], Iterator[Finding]], ...] = (
    detect_no_overlap,
    detect_missing_sensor,
    detect_truncated_edge,
    detect_out_of_tolerance,
    detect_clock_drift,
)
#: Detectors that look at the matches of all streams together.
GROUP_DETECTORS: tuple[Callable[[Sequence[StreamMatch], Ticks], Iterator[Finding]], ...] = (
    detect_unstable_reference,
)


def detect_stream(stream: AlignedStream) -> Iterator[Finding]:
    """Yields the findings that follow from the timestamps of one stream alone."""
    for detector in STREAM_DETECTORS:
        yield from detector(stream)


def detect_all(
    streams: Sequence[AlignedStream], matches: Sequence[StreamMatch], ticks: Ticks
) -> Iterator[Finding]:
    """Yields the findings of all detectors: stream by stream, match by match, then of all matches together."""
    for stream in streams:
        yield from detect_stream(stream)
    for match in matches:
        for detector in MATCH_DETECTORS:
            yield from detector(match, ticks)
    for group_detector in GROUP_DETECTORS:
        yield from group_detector(matches, ticks)
