"""The TOML table `[sync]`."""

from __future__ import annotations

import fnmatch

from mmpack.errors import ConfigError
from mmpack.settings import Settings, suggest_choice
from mmpack.sync.policies.registry import POLICIES
from mmpack.sync.policies.rule import IGNORE, StreamPolicy


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
        self._check_policies()

    def _check_policies(self) -> None:
        """Raises ConfigError for a name that is no policy."""
        names = (*POLICIES, IGNORE)
        for pattern, settings in self.streams.items():
            if settings.policy is not None and settings.policy not in names:
                raise ConfigError(
                    f"'{settings.policy}' is not a valid value of 'sync.streams.{pattern}.policy'",
                    hint=suggest_choice(settings.policy, names),
                )

    def policy_for(self, name: str) -> StreamPolicy:
        """Returns the policy of the first pattern that matches the stream `name`, else the default policy."""
        for pattern, policy in self.streams.items():
            if fnmatch.fnmatchcase(name, pattern.lower()):
                return policy
        return StreamPolicy()
