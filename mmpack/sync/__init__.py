"""Sync: reference ticks, the six policies, detectors, slices and the report. All in integer nanoseconds."""

from mmpack.sync.alignment.ticks import Ticks
from mmpack.sync.detectors.finding import Finding
from mmpack.sync.policies.match import Match, Status
from mmpack.sync.policies.rule import StreamPolicy
from mmpack.sync.sync_config import SyncConfig
from mmpack.sync.synchronise import SyncResult, synchronise
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
