"""The [sync] table: what the tick is, and how each stream is matched to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmpack.clock import format_ns, parse_duration
from mmpack.errors import ConfigError
from mmpack.recording import Stream
from mmpack.recording.sources.images import ImageFiles
from mmpack.settings import Settings

Policy = Literal["exact", "nearest", "interpolate", "window", "hold", "overlap", "ignore"]

#: Policy by kind where none is set. Only cameras, lidars and events are instants that have a nearest one.
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
#: Kinds whose absence quarantines a slice where `required` is not set. A moment without subtitles is no
# fault.
DEFAULT_REQUIRED = frozenset({"camera", "audio", "imu", "can", "action", "numeric"})
#: Design tolerance of hardware-triggered cameras, on the residual after the nominal offset.
TRIGGERED_TOLERANCE_NS = 1_000_000


class StreamPolicy(Settings, frozen=True, kw_only=True):
    """`[sync.streams."PATTERN"]`: how the streams whose names match the pattern are matched to the tick.

    Fields:
        policy: exact, nearest, interpolate, window, hold, overlap or ignore; default by kind.
        tolerance: largest |residual|, with a unit. Default: 1 ms for streams that tick at the reference's
            rate, half their own period for free-running ones.
        offset: nominal offset with a unit, or 'learn'. Default: the recording's, else learned where the rates
            agree.
        max_gap: longest distance of the two samples interpolated between; default three of their periods.
        max_age: oldest value that is held; default three of its periods.
        before, after: the window [t - before, t + after); default one tick period from the tick on. A camera's
            window becomes a tubelet, so its source has to be a video.
        required: whether a slice without it is quarantined.
        once: a text is put into the slice it starts in, not into every slice it lasts through.
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
    """A stream's settings, resolved: nothing is left to a default.

    Attributes:
        policy: how it is matched.
        tolerance_ns: largest |residual|.
        offset_ns: nominal offset after the tick.
        offset_source: 'given', 'learned' or 'none'.
        limit_ns: max_gap or max_age.
        before_ns, after_ns: the window.
        required: whether its absence quarantines the slice.
        once: a text belongs to one slice.
        quaternion: columns that are interpolated on the sphere.
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


#: Two rates within this share of each other are the same rate.
SAME_RATE_TOLERANCE = 0.02


def resolve_rule(
    stream: Stream, settings: StreamPolicy, *, period_ns: int, tick_period_ns: int, learned_ns: int | None
) -> MatchRule:
    """The rule of one stream.

    Args:
        stream: the stream.
        settings: what the config says of it.
        period_ns: median distance of its items; 0 if it has fewer than two.
        tick_period_ns: median distance of ticks.
        learned_ns: offset learned from this recording; None if it was not learned.

    Raises:
        ConfigError: settings that its policy or kind cannot use, an empty window, a negative limit.
    """
    policy = settings.policy or DEFAULT_POLICY[stream.kind]
    _check(stream, policy)
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
        triggered = (
            TRIGGERED_TOLERANCE_NS if is_same_rate(period_ns, tick_period_ns) else max(period_ns, 1) // 2
        )
        tolerance_ns = 0 if policy == "exact" else triggered
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
    """Whether two periods differ by no more than the clocks' rates could."""
    return period_ns > 0 and other_ns > 0 and abs(period_ns - other_ns) <= SAME_RATE_TOLERANCE * other_ns


def learns_offset(stream: Stream, settings: StreamPolicy, *, period_ns: int, tick_period_ns: int) -> bool:
    """Whether the offset of `stream` is to be learned: asked for, or a camera or lidar at the tick's rate
    with none given.
    """
    if settings.offset:
        return settings.offset == "learn"
    is_triggered = stream.kind in ("camera", "lidar") and is_same_rate(period_ns, tick_period_ns)
    return stream.nominal_offset_ns is None and is_triggered


def _check(stream: Stream, policy: Policy) -> None:
    where = f'sync.streams."{stream.name}"'
    if stream.kind == "audio" and policy not in ("window", "ignore"):
        raise ConfigError(
            f"audio cannot be matched by '{policy}'", where=where, hint="Use policy = 'window'."
        )
    if stream.kind == "text" and policy not in ("overlap", "ignore"):
        raise ConfigError(
            f"text cannot be matched by '{policy}'", where=where, hint="Use policy = 'overlap'."
        )
    if stream.kind != "text" and policy == "overlap":
        raise ConfigError("only text lasts for an interval", where=where, hint="Use 'window' or 'hold'.")
    if stream.kind in ("camera", "lidar", "radar", "event") and policy == "interpolate":
        raise ConfigError(f"a {stream.kind} has no values to interpolate", where=where, hint="Use 'nearest'.")
    if stream.kind == "camera" and policy == "hold":
        raise ConfigError("a camera cannot be matched by 'hold'", where=where, hint="Use 'nearest'.")
    if policy == "window" and isinstance(stream.source, ImageFiles):
        raise ConfigError(
            "policy 'window' makes tubelets from video, and this camera is a folder of pictures",
            where=where,
            hint="Use policy = 'nearest'.",
        )


def _parse_non_negative(text: str, stream: Stream, key: str) -> int | None:
    """A duration that cannot be negative, in ns; None where it is not set."""
    span_ns = _parse_duration(text, stream, key) if text else None
    if span_ns is not None and span_ns < 0:
        raise ConfigError(
            f"{key} = '{text}' is negative",
            where=f'sync.streams."{stream.name}".{key}',
            hint="Write 0 or more.",
        )
    return span_ns


def _parse_duration(text: str, stream: Stream, key: str) -> int:
    try:
        return parse_duration(text)
    except ConfigError as error:
        raise ConfigError(
            error.message, where=f'sync.streams."{stream.name}".{key}', hint=error.hint
        ) from None
