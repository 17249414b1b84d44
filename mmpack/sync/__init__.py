"""Synchronisation: reference ticks, six sync policies, detectors and the report. All times are integer nanoseconds."""

from mmpack.lazy import make_dir
from mmpack.sync.alignment.ticks import Ticks
from mmpack.sync.detectors.finding import Finding
from mmpack.sync.policies.match import MatchStatus, StreamMatch
from mmpack.sync.policies.rule import StreamPolicy
from mmpack.sync.sync_config import SyncConfig
from mmpack.sync.synchronise import SyncResult, synchronise
from mmpack.sync.values import interpolate_rows, slerp

__all__ = [
    "Finding",
    "MatchStatus",
    "StreamMatch",
    "StreamPolicy",
    "SyncConfig",
    "SyncResult",
    "Ticks",
    "interpolate_rows",
    "slerp",
    "synchronise",
]

__dir__ = make_dir(__all__)
