"""The TOML table `[sync]`."""

from __future__ import annotations

import fnmatch

from mmpack.settings import Settings
from mmpack.sync.policies.rule import StreamPolicy


class SyncConfig(Settings, frozen=True, kw_only=True):
    """The settings of the table `[sync]`.

    Fields:
        reference: source of the ticks: 'auto'; the name of a stream; 'consensus' or 'consensus:PATTERN'; 'rate:10'
            or 'rate:30000/1001' in Hz.
        streams: policies by pattern of the stream name; the first pattern that matches applies.
        max_backward: largest share of a stream's timestamps that may be out of order; a larger share is an error.
    """

    reference: str = "auto"
    streams: dict[str, StreamPolicy] = {}
    max_backward: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.max_backward <= 1:
            raise ValueError("max_backward must be a share from 0 to 1")

    def policy_for(self, name: str) -> StreamPolicy:
        """Returns the policy of the first pattern that matches the stream `name`, else the default policy."""
        for pattern, policy in self.streams.items():
            if fnmatch.fnmatchcase(name, pattern.lower()):
                return policy
        return StreamPolicy()
