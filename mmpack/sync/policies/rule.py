"""Settings of one stream in the table `[sync.streams]`, and the match rule in which every default is resolved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmpack.clock import format_ns, parse_duration
from mmpack.errors import ConfigError
from mmpack.recording import Stream
from mmpack.recording.sources.images import ImageFiles
from mmpack.settings import Settings

Policy = Literal["exact", "nearest", "interpolate", "window", "hold", "overlap", "ignore"]

#: Default policy by kind of stream. Only cameras, lidars and events are instants with a nearest item.
DEFAULT_POLICY: dict[str, Policy] = {
    "camera": "nearest",
    "lidar": "nearest",
    "event": "nearest",
    "audio": "window",
    "imu": "interpolate",
    "numeric": "interpolate",
    "can": "hold",
    "action": "hold",
    "radar": "hold",
    "text": "overlap",
}
#: Kinds that are required by default: a slice without them is quarantined. A slice without subtitles is no fault.
DEFAULT_REQUIRED = frozenset({"camera", "audio", "imu", "can", "action", "numeric"})
#: Default tolerance in ns for the residual of streams at the rate of the ticks, such as hardware-triggered cameras.
TRIGGERED_TOLERANCE_NS = 1_000_000


class StreamPolicy(Settings, frozen=True, kw_only=True):
    """The table `[sync.streams."PATTERN"]`: how streams whose names match the pattern are matched to the ticks.

    Fields:
        policy: exact, nearest, interpolate, window, hold, overlap or ignore; default by kind of stream.
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
        once: true if a text belongs only to the slice in which it starts, false if it belongs to every slice that it
            overlaps.
        quaternion: four columns (w, x, y, z) that are interpolated on the sphere.
    """

    policy: Policy | None = None
    tolerance: str = ""
    offset: str = ""
    max_gap: str = ""
    max_age: str = ""
    before: str = "0s"
    after: str = ""
    required: bool | None = None
    once: bool = True
    quaternion: tuple[str, str, str, str] | None = None


@dataclass(frozen=True)
class MatchRule:
    """The settings of a stream with every default resolved.

    Attributes:
        policy: policy of the stream.
        tolerance_ns: largest |residual|.
        offset_ns: nominal offset: designed time of an item minus time of its tick.
        offset_source: 'given' in the settings or the recording, 'learned', or 'none' for an offset of 0.
        limit_ns: max_gap for the policy interpolate, max_age for all others.
        before_ns, after_ns: time window around the tick.
        required: True if a slice without this stream is quarantined.
        once: True if a text belongs only to the first slice that it overlaps.
        quaternion: four columns (w, x, y, z) that are interpolated on the sphere, or None.
    """

    policy: Policy
    tolerance_ns: int
    offset_ns: int
    offset_source: Literal["given", "learned", "none"]
    limit_ns: int
    before_ns: int
    after_ns: int
    required: bool
    once: bool
    quaternion: tuple[str, str, str, str] | None


#: Largest relative difference of two periods that count as the same rate.
SAME_RATE_TOLERANCE = 0.02


def resolve_rule(
    stream: Stream, settings: StreamPolicy, *, period_ns: int, tick_period_ns: int, learned_ns: int | None
) -> MatchRule:
    """Returns the match rule of one stream.

    Args:
        stream: the stream.
        settings: settings of the stream in the table [sync].
        period_ns: median distance of the items; 0 with fewer than two.
        tick_period_ns: median distance of the ticks.
        learned_ns: offset learned from the recording; None if none was learned.

    Raises:
        ConfigError: the policy does not suit the kind of the stream, the window is empty, a limit is negative, or a
            duration cannot be parsed.
    """
    policy = settings.policy or DEFAULT_POLICY[stream.kind]
    _check_policy(stream, policy)
    tolerance_ns, gap_ns, age_ns = (
        _parse_non_negative(getattr(settings, key), stream, key)
        for key in ("tolerance", "max_gap", "max_age")
    )
    before_ns = _parse_duration(settings.before, stream, "before")
    after_ns = _parse_duration(settings.after, stream, "after") if settings.after else tick_period_ns
    if policy in ("window", "overlap") and before_ns + after_ns <= 0:
        raise ConfigError(
            f"before + after is {format_ns(before_ns + after_ns)}: the window [t - before, t + after) is empty",
            where=f'sync.streams."{stream.name}"',
            hint="Make before + after longer than 0.",
        )
    if tolerance_ns is None:
        by_rate = (
            TRIGGERED_TOLERANCE_NS if is_same_rate(period_ns, tick_period_ns) else max(period_ns, 1) // 2
        )
        tolerance_ns = 0 if policy == "exact" else by_rate
    if learned_ns is not None:
        offset_ns, source = learned_ns, "learned"
    elif settings.offset and settings.offset != "learn":
        offset_ns, source = _parse_duration(settings.offset, stream, "offset"), "given"
    elif stream.nominal_offset_ns is not None and settings.offset != "learn":
        offset_ns, source = stream.nominal_offset_ns, "given"
    else:
        offset_ns, source = 0, "none"
    limit_ns = gap_ns if policy == "interpolate" else age_ns
    return MatchRule(
        policy,
        tolerance_ns,
        offset_ns,
        source,  # pyright: ignore[reportArgumentType]
        3 * max(period_ns, 1) if limit_ns is None else limit_ns,
        before_ns,
        after_ns,
        stream.kind in DEFAULT_REQUIRED if settings.required is None else settings.required,
        settings.once,
        settings.quaternion,
    )


def is_same_rate(period_ns: int, other_ns: int) -> bool:
    """Returns True if two positive periods differ by at most SAME_RATE_TOLERANCE."""
    return period_ns > 0 and other_ns > 0 and abs(period_ns - other_ns) <= SAME_RATE_TOLERANCE * other_ns


def learns_offset(stream: Stream, settings: StreamPolicy, *, period_ns: int, tick_period_ns: int) -> bool:
    """Returns True if the offset of `stream` is learned from the recording.

    It is learned if the settings say 'learn', or without any stated offset for a camera or lidar at the rate of the
    ticks.
    """
    if settings.offset:
        return settings.offset == "learn"
    is_triggered = stream.kind in ("camera", "lidar") and is_same_rate(period_ns, tick_period_ns)
    return stream.nominal_offset_ns is None and is_triggered


def _check_policy(stream: Stream, policy: Policy) -> None:
    """Raises ConfigError if `policy` cannot be used for the kind or source of `stream`."""
    where = f'sync.streams."{stream.name}"'
    if stream.kind == "audio" and policy not in ("window", "ignore"):
        raise ConfigError(
            f"an audio stream cannot have policy = '{policy}'", where=where, hint="Use policy = 'window'."
        )
    if stream.kind == "text" and policy not in ("overlap", "ignore"):
        raise ConfigError(
            f"a text stream cannot have policy = '{policy}'", where=where, hint="Use policy = 'overlap'."
        )
    if stream.kind != "text" and policy == "overlap":
        raise ConfigError(
            "policy = 'overlap' is only valid for text streams", where=where, hint="Use 'window' or 'hold'."
        )
    if stream.kind in ("camera", "lidar", "radar", "event") and policy == "interpolate":
        raise ConfigError(
            f"a {stream.kind} stream has no values to interpolate", where=where, hint="Use 'nearest'."
        )
    if stream.kind == "camera" and policy == "hold":
        raise ConfigError("a camera stream cannot have policy = 'hold'", where=where, hint="Use 'nearest'.")
    if policy == "window" and isinstance(stream.source, ImageFiles):
        raise ConfigError(
            "policy = 'window' builds tubelets from a video, but this camera is a folder of images",
            where=where,
            hint="Use policy = 'nearest'.",
        )


def _parse_non_negative(text: str, stream: Stream, key: str) -> int | None:
    """Returns a duration in ns, or None for an empty text. Raises ConfigError if it is negative."""
    duration_ns = _parse_duration(text, stream, key) if text else None
    if duration_ns is not None and duration_ns < 0:
        raise ConfigError(
            f"{key} = '{text}' is negative",
            where=f'sync.streams."{stream.name}".{key}',
            hint="Write a duration of 0 or more.",
        )
    return duration_ns


def _parse_duration(text: str, stream: Stream, key: str) -> int:
    """Returns a duration in ns. Raises ConfigError that names the stream and the key."""
    try:
        return parse_duration(text)
    except ConfigError as error:
        raise ConfigError(
            error.message, where=f'sync.streams."{stream.name}".{key}', hint=error.hint
        ) from None
