"""[sync]."""

from __future__ import annotations

import fnmatch

from mmpack.settings import Settings
from mmpack.sync.policies.rule import StreamPolicy


class SyncConfig(Settings, frozen=True, kw_only=True):
    """`[sync]`.

    Fields:
        reference: 'auto'; a stream's name; 'consensus' or 'consensus:PATTERN'; 'rate:10' or 'rate:30000/1001'
            in Hz.
        streams: settings by name pattern; the first pattern that matches holds.
        max_backward: largest share of a stream's stamps that may be out of order before the recording is
            refused.
    """

    reference: str = "auto"
    streams: dict[str, StreamPolicy] = {}
    max_backward: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.max_backward <= 1:
            raise ValueError("max_backward is a share from 0 to 1")

    def policy_for(self, name: str) -> StreamPolicy:
        """Settings of the stream `name`: the first matching pattern's, else the defaults."""
        for pattern, policy in self.streams.items():
            if fnmatch.fnmatchcase(name, pattern.lower()):
                return policy
        return StreamPolicy()
