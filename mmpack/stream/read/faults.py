"""Samples that cannot be read: what is known of each."""

from __future__ import annotations

from mmpack.config import Settings


class Fault(Settings, frozen=True, kw_only=True):
    """One unreadable sample.

    Fields:
        row: number of the row it belongs to.
        key: of the sample.
        shard: path or URL of its shard.
        offset_bytes, size_bytes: its members there.
        reason: what is wrong, in one line.
    """

    row: int
    key: str
    shard: str
    offset_bytes: int
    size_bytes: int
    reason: str
