"""The TOML table `[sync]`."""

from __future__ import annotations

import fnmatch

from mmpack.clock import parse_duration
from mmpack.errors import ConfigError
from mmpack.settings import Settings, Share, suggest_choice
from mmpack.sync.policies.registry import POLICIES
from mmpack.sync.policies.rule import IGNORE, StreamPolicy

_LIMITS = ("tolerance", "max_gap", "max_age")


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
    max_backward: Share = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_policies()
        self._check_durations()

    @property
    def _where(self) -> str:
        return "sync"

    def _check_policies(self) -> None:
        """Raises ConfigError for a name that is no policy."""
        names = (*POLICIES, IGNORE)
        for pattern, settings in self.streams.items():
            if settings.policy is not None and settings.policy not in names:
                raise ConfigError(
                    f"'{settings.policy}' is not a valid value of 'sync.streams.{pattern}.policy'",
                    hint=suggest_choice(settings.policy, names),
                )

    def _check_durations(self) -> None:
        """Raises ConfigError for a text that is no duration, and for a negative limit."""
        for pattern, settings in self.streams.items():
            for key in (*_LIMITS, "offset", "before", "after"):
                text, where = getattr(settings, key), f'sync.streams."{pattern}".{key}'
                if not text or (key == "offset" and text == "learn"):
                    continue
                if parse_duration(text, where=where) < 0 and key in _LIMITS:
                    raise ConfigError(
                        f"{text} is not at least 0", where=where, hint="Write a duration of 0 or more."
                    )

    def policy_for(self, name: str) -> StreamPolicy:
        """Returns the policy of the first pattern that matches the stream `name`, else the default policy."""
        for pattern, policy in self.streams.items():
            if fnmatch.fnmatchcase(name, pattern.lower()):
                return policy
        return StreamPolicy()
