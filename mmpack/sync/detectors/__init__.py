"""Detectors: findings about the timestamps of a recording. One file per family."""

from __future__ import annotations

from collections.abc import Iterator

from mmpack.sync.alignment.align import Aligned
from mmpack.sync.detectors.finding import _MIN_ITEMS, Finding
from mmpack.sync.detectors.order import _set_aside
from mmpack.sync.detectors.quality import _float_quantised, _frame_period, _receive_latency
from mmpack.sync.detectors.spacing import _audio_gaps, _spacing


def detect_stream(stream: Aligned) -> Iterator[Finding]:
    """What one stream's stamps show by themselves."""
    yield from _set_aside(stream)
    yield from _float_quantised(stream)
    if stream.stream.kind == "audio":
        yield from _audio_gaps(stream)
    elif stream.stream.kind != "text" and len(stream.t_ns) >= _MIN_ITEMS:
        yield from _spacing(stream)
        yield from _receive_latency(stream)
        yield from _frame_period(stream)
