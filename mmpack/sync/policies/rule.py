"""Settings of one stream in the table `[sync.streams]`, and the match rule in which every default is resolved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmpack.settings import Settings

#: The word that stands in place of a policy: the stream is not matched at all.
IGNORE = "ignore"

OffsetSource = Literal["given", "learned", "none"]


class StreamPolicy(Settings, frozen=True, kw_only=True):
    """The table `[sync.streams."PATTERN"]`: how streams whose names match the pattern are matched to the ticks.

    Fields:
        policy: name of a policy, or 'ignore'; default by kind of stream.
        tolerance: largest |residual|, with a unit. Default: 1 ms for streams at the rate of the ticks, half their
            own period for all others.
        offset: nominal offset with a unit, or 'learn'. Default: the offset that the recording states, else learned
            for cameras and lidars at the rate of the ticks, else 0.
        max_gap: largest distance of the two items of an interpolation, with a unit; default three periods of the
            stream.
        max_age: largest age of a held value, with a unit; default three periods of the stream.
        before, after: time window [t - before, t + after), with units; default one tick period from the tick on. The
            window of a camera becomes a tubelet, so its source must be a video.
        required: true if a slice without this stream is quarantined.
        once: true if a text belongs only to the first slice that it overlaps, false if it belongs to every slice that
            it overlaps.
        quaternion: four columns (w, x, y, z) that are interpolated on the sphere.
    """

    policy: str | None = None
    tolerance: str = ""
    offset: str = ""
    max_gap: str = ""
    max_age: str = ""
    before: str = "0s"
    after: str = ""
    required: bool | None = None
    once: bool = True
    quaternion: tuple[str, str, str, str] | None = None

    @property
    def is_ignored(self) -> bool:
        """True if the stream is not matched at all."""
        return self.policy == IGNORE


@dataclass(frozen=True, kw_only=True)
class MatchRule:
    """The settings of a stream with every default resolved.

    Attributes:
        policy: name of the policy.
        tolerance_ns: largest |residual|.
        offset_ns: nominal offset: designed time of an item minus time of its tick.
        offset_source: 'given' in the settings or the recording, 'learned', or 'none' for an offset of 0.
        limit_ns: largest gap of a policy that interpolates, max_age for all others.
        before_ns, after_ns: time window around the tick.
        required: True if a slice without this stream is quarantined.
        once: True if a text belongs only to the first slice that it overlaps.
        quaternion: four columns (w, x, y, z) that are interpolated on the sphere, or None.
    """

    policy: str
    tolerance_ns: int
    offset_ns: int
    offset_source: OffsetSource
    limit_ns: int
    before_ns: int
    after_ns: int
    required: bool
    once: bool
    quaternion: tuple[str, str, str, str] | None
