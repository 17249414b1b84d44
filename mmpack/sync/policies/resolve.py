"""Resolves the settings of a stream: checks them against the policies and fills in every default."""

from __future__ import annotations

from mmpack.clock import format_ns, parse_duration
from mmpack.errors import ConfigError
from mmpack.recording import Stream
from mmpack.sync.policies.policy import JudgedBy, SyncPolicy
from mmpack.sync.policies.registry import DEFAULT_POLICIES, POLICIES
from mmpack.sync.policies.rule import MatchRule, OffsetSource, StreamPolicy

#: Kinds that are required by default: a slice without them is quarantined. A slice without subtitles is no fault.
DEFAULT_REQUIRED = frozenset({"camera", "audio", "imu", "can", "action", "numeric"})
#: Default tolerance in ns for the residual of streams at the rate of the ticks, such as hardware-triggered cameras.
TRIGGERED_TOLERANCE_NS = 1_000_000
#: Largest relative difference of two periods that count as the same rate.
SAME_RATE_TOLERANCE = 0.02


def resolve_rule(
    stream: Stream, settings: StreamPolicy, *, period_ns: int, tick_period_ns: int, learned_ns: int | None
) -> MatchRule:
    """Returns the match rule of one stream.

    Args:
        stream: the stream.
        settings: settings of the stream in the table [sync]; the stream is not ignored.
        period_ns: median distance of the items; 0 with fewer than two.
        tick_period_ns: median distance of the ticks.
        learned_ns: offset learned from the recording; None if none was learned.

    Raises:
        ConfigError: the policy does not suit the kind of the stream, the window is empty, a limit is negative, or a
            duration cannot be parsed.
    """
    policy = POLICIES[settings.policy] if settings.policy else DEFAULT_POLICIES[stream.kind]
    _check_policy(stream, policy)
    tolerance_ns, gap_ns, age_ns = (
        _parse_non_negative(getattr(settings, key), stream, key)
        for key in ("tolerance", "max_gap", "max_age")
    )
    before_ns = _parse_duration(settings.before, stream, "before")
    after_ns = _parse_duration(settings.after, stream, "after") if settings.after else tick_period_ns
    if policy.judged_by.has_window and before_ns + after_ns <= 0:
        raise ConfigError(
            f"before + after is {format_ns(before_ns + after_ns)}: the window [t - before, t + after) is empty",
            where=f'sync.streams."{stream.name}"',
            hint="Make before + after longer than 0.",
        )
    if tolerance_ns is None:
        by_rate = (
            TRIGGERED_TOLERANCE_NS if is_same_rate(period_ns, tick_period_ns) else max(period_ns, 1) // 2
        )
        tolerance_ns = 0 if policy.judged_by is JudgedBy.EQUALITY else by_rate
    source: OffsetSource
    if learned_ns is not None:
        offset_ns, source = learned_ns, "learned"
    elif settings.offset and settings.offset != "learn":
        offset_ns, source = _parse_duration(settings.offset, stream, "offset"), "given"
    elif stream.nominal_offset_ns is not None and settings.offset != "learn":
        offset_ns, source = stream.nominal_offset_ns, "given"
    else:
        offset_ns, source = 0, "none"
    limit_ns = gap_ns if policy.judged_by is JudgedBy.COMPUTED else age_ns
    return MatchRule(
        policy=policy.name,
        tolerance_ns=tolerance_ns,
        offset_ns=offset_ns,
        offset_source=source,
        limit_ns=3 * max(period_ns, 1) if limit_ns is None else limit_ns,
        before_ns=before_ns,
        after_ns=after_ns,
        required=stream.kind in DEFAULT_REQUIRED if settings.required is None else settings.required,
        once=settings.once,
        quaternion=settings.quaternion,
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


def _check_policy(stream: Stream, policy: SyncPolicy) -> None:
    """Raises ConfigError if `policy` cannot be used for the kind or source of `stream`."""
    if stream.kind not in policy.kinds:
        kind = f"{'an' if stream.kind[0] in 'aeiou' else 'a'} {stream.kind}"
        message = policy.kinds_message or f"{{kind}} stream cannot have policy = '{policy.name}'"
        raise ConfigError(
            message.format(kind=kind),
            where=f'sync.streams."{stream.name}"',
            hint=f"Use policy = '{DEFAULT_POLICIES[stream.kind].name}'.",
        )
    if policy.check_stream is not None:
        policy.check_stream(stream)


def _parse_non_negative(text: str, stream: Stream, key: str) -> int | None:
    """Returns a duration in ns, or None for an empty text. Raises ConfigError if it is negative."""
    duration_ns = _parse_duration(text, stream, key) if text else None
    if duration_ns is not None and duration_ns < 0:
        raise ConfigError(
            f"{text} is not at least 0",
            where=f'sync.streams."{stream.name}".{key}',
            hint="Write a duration of 0 or more.",
        )
    return duration_ns


def _parse_duration(text: str, stream: Stream, key: str) -> int:
    """Returns a duration in ns. Raises ConfigError that names the stream and the key."""
    return parse_duration(text, where=f'sync.streams."{stream.name}".{key}')
