"""Sync: reference ticks, the six policies, detectors, slices and the report. All in integer nanoseconds."""

from mmpack.sync.config import StreamPolicy, SyncConfig
from mmpack.sync.detect import Finding
from mmpack.sync.match import Match, Status
from mmpack.sync.slicer import SyncResult, synchronise
from mmpack.sync.ticks import Ticks
from mmpack.sync.values import slerp, table_rows

__all__ = [
    "Finding",
    "Match",
    "Status",
    "StreamPolicy",
    "SyncConfig",
    "SyncResult",
    "Ticks",
    "slerp",
    "synchronise",
    "table_rows",
]
