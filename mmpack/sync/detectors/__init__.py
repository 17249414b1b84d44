"""Detectors: one file per family of findings about the timestamps of a recording. The registry lists them."""

from mmpack.lazy import make_dir
from mmpack.sync.detectors.registry import (
    GROUP_DETECTORS,
    MATCH_DETECTORS,
    STREAM_DETECTORS,
    detect_all,
    detect_stream,
)

__all__ = ["GROUP_DETECTORS", "MATCH_DETECTORS", "STREAM_DETECTORS", "detect_all", "detect_stream"]

__dir__ = make_dir(__all__)
