"""From a recording to slices: ticks, offsets, one match per stream, and what is set aside with its reason."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmpack.clock import Clock, format_ns
from mmpack.errors import ConfigError, DataError
from mmpack.recording import Recording, Stream
from mmpack.settings import suggest
from mmpack.sync.alignment.align import AlignedStream, align_stream
from mmpack.sync.alignment.offsets import learn_group_offsets, learn_offset
from mmpack.sync.alignment.ticks import Ticks, consensus_ticks, ticks_at_rate, ticks_from_stream
from mmpack.sync.detectors import detect_stream
from mmpack.sync.detectors.finding import Finding
from mmpack.sync.detectors.residuals import detect_match, detect_unstable_reference
from mmpack.sync.policies import match_stream
from mmpack.sync.policies.match import MatchStatus, StreamMatch
from mmpack.sync.policies.rule import DEFAULT_POLICY, is_same_rate, learns_offset, resolve_rule
from mmpack.sync.sync_config import SyncConfig


@dataclass(frozen=True)
class SyncResult:
    """Everything that sync found out about one recording.

    Attributes:
        recording: the recording.
        clock: the clock that ticks are on.
        ticks: the reference ticks, T of them; a tick's number is its slice's ordinal.
        matches: one per stream that is not ignored, in the recording's order.
        passed: bool, shape (T,). Slices whose required streams are all within their rules.
        findings: what the detectors saw.
        raw_spread_ns: int64, shape (U,). Latest minus earliest raw stamp of the triggered group, at the U
            ticks where all its members are there.
        group: names of that group.
    """

    recording: Recording
    clock: Clock
    ticks: Ticks
    matches: dict[str, StreamMatch]
    passed: NDArray[np.bool_]
    findings: tuple[Finding, ...]
    raw_spread_ns: NDArray[np.int64]
    group: tuple[str, ...]

    def failure_reasons(self, tick: int) -> list[tuple[str, str]]:
        """(stream, why) of every required stream that fails at a tick; empty for a slice that passed."""
        return [
            (name, describe_failure(found, tick))
            for name, found in self.matches.items()
            if found.rule.required and found.status[tick] != MatchStatus.OK
        ]

    def quarantined_ordinals(self) -> NDArray[np.int64]:
        """Ordinals set aside, int64, ascending."""
        return np.flatnonzero(~self.passed)


def describe_failure(match: StreamMatch, tick: int) -> str:
    """Why one stream fails at one tick, in words."""
    status, rule = MatchStatus(int(match.status[tick])), match.rule
    measure, residual = int(match.judged_ns[tick]), int(match.residual_ns[tick])
    return {
        MatchStatus.OK: "ok",
        MatchStatus.MISSING: "no item for this tick",
        MatchStatus.OUT_OF_TOLERANCE: f"{format_ns(residual)} off, tolerance {format_ns(rule.tolerance_ns)}",
        MatchStatus.GAP: f"neighbours {format_ns(measure)} apart, allowed {format_ns(rule.limit_ns)}",
        MatchStatus.STALE: f"latest value is {format_ns(measure)} old, allowed {format_ns(rule.limit_ns)}",
        MatchStatus.COVERAGE: f"{format_ns(measure)} of the window are missing",
        MatchStatus.EDGE: "outside the stream's first and last item",
        MatchStatus.EMPTY: "nothing there",
    }[status]


def synchronise(recording: Recording, config: SyncConfig | None = None) -> SyncResult:
    """Matches every stream of `recording` to reference ticks and judges the residuals.

    Args:
        recording: what to check.
        config: the [sync] table; None for its defaults.

    Raises:
        ConfigError: the reference or a policy cannot be.
        DataError: a stream cannot be read, its stamps are of the wrong unit, or more of them are out of order
            than allowed.
    """
    config = _with_recording_reference(recording, config or SyncConfig())
    _check_patterns(config, recording)
    wanted = [stream for stream in recording.streams.values() if not _is_ignored(stream, config)]
    clock = _reference_clock(recording, config, wanted)
    aligned = {
        stream.name: align_stream(stream, recording, clock, max_backward=config.max_backward)
        for stream in wanted
    }
    ticks, learned = _find_ticks(config, recording, aligned)
    for name, stream in aligned.items():
        settings = config.policy_for(name)
        learns = learns_offset(
            stream.stream, settings, period_ns=stream.period_ns, tick_period_ns=ticks.period_ns
        )
        if learns and name not in ticks.members:
            learned[name] = learn_offset(ticks.t_ns, stream, ticks.period_ns)
    matches: dict[str, StreamMatch] = {}
    for name, stream in sorted(aligned.items(), key=lambda item: item[1].stream.kind == "text"):
        rule = resolve_rule(
            stream.stream,
            config.policy_for(name),
            period_ns=stream.period_ns,
            tick_period_ns=ticks.period_ns,
            learned_ns=learned.get(name),
        )
        if ticks.members == (name,):
            rule = replace(rule, policy="exact", offset_ns=0, offset_source="none", tolerance_ns=0)
        if rule.required:
            _require_time_overlap(stream, ticks, where=recording.path)
        if rule.policy == "overlap" and not rule.required:
            # Texts go to slices that will exist: one that starts in a quarantined slice moves on to the next.
            matches[name] = _match_passed_ticks(stream, rule, ticks, _find_passed(matches, len(ticks.t_ns)))
        else:
            matches[name] = match_stream(stream, rule, ticks.t_ns, ticks.period_ns)
    matches = {name: matches[name] for name in aligned}
    group, spread = _raw_spread(matches, ticks)
    findings = [finding for stream in aligned.values() for finding in detect_stream(stream)]
    findings += [finding for found in matches.values() for finding in detect_match(found, ticks)]
    findings += detect_unstable_reference(list(matches.values()), ticks)
    passed = _find_passed(matches, len(ticks.t_ns))
    return SyncResult(recording, clock, ticks, matches, passed, tuple(findings), spread, group)


def _find_passed(matches: dict[str, StreamMatch], count: int) -> NDArray[np.bool_]:
    passed = np.ones(count, np.bool_)
    for found in matches.values():
        if found.rule.required:
            passed &= found.status == MatchStatus.OK
    return passed


def _require_time_overlap(stream: AlignedStream, ticks: Ticks, *, where: str) -> None:
    """A required stream that shares no time with the ticks would quarantine everything: that is no fault of the slices."""
    first_ns, last_ns = stream.span_ns
    if last_ns < ticks.t_ns[0] or first_ns > ticks.t_ns[-1] + ticks.period_ns:
        raise DataError(
            f"spans {first_ns / 1e9:.3f} to {last_ns / 1e9:.3f} s and the ticks {ticks.t_ns[0] / 1e9:.3f} to "
            f"{ticks.t_ns[-1] / 1e9:.3f} s: they share no moment",
            where=f"{where}, stream '{stream.name}'",
            hint="Its unit, start or clock is wrong in the description; or set required = false for it.",
        )


def _match_passed_ticks(stream: AlignedStream, rule, ticks: Ticks, passed: NDArray[np.bool_]) -> StreamMatch:
    count = len(ticks.t_ns)
    if not passed.any():
        return match_stream(stream, rule, ticks.t_ns, ticks.period_ns)
    part = match_stream(stream, rule, ticks.t_ns[passed], ticks.period_ns)

    def spread(values: NDArray, fill: NDArray | int) -> NDArray:
        whole = np.empty(count, values.dtype)
        whole[:] = fill
        whole[passed] = values
        return whole

    return replace(
        part,
        first=spread(part.first, 0),
        count=spread(part.count, 0),
        aligned_ns=spread(part.aligned_ns, ticks.t_ns),
        residual_ns=spread(part.residual_ns, 0),
        status=spread(part.status, MatchStatus.EMPTY),
        judged_ns=spread(part.judged_ns, 0),
    )


def _with_recording_reference(recording: Recording, config: SyncConfig) -> SyncConfig:
    """The config with the recording's own ticks, where it asks for none by name: a build may mix drives, episodes
    and films, and no one rate suits them all.
    """
    if config.reference != "auto" or not recording.reference:
        return config
    return msgspec.structs.replace(config, reference=recording.reference)


def _is_ignored(stream: Stream, config: SyncConfig) -> bool:
    return (config.policy_for(stream.name).policy or DEFAULT_POLICY[stream.kind]) == "ignore"


def _check_patterns(config: SyncConfig, recording: Recording) -> None:
    for pattern, settings in config.streams.items():
        is_plain = not set(pattern) & set("*?[")
        if is_plain and pattern.lower() not in recording.streams:
            raise ConfigError(
                f'sync.streams."{pattern}" names no stream of {recording.name}',
                hint=suggest(pattern, recording.streams),
            )
        if settings.quaternion and settings.policy not in (None, "interpolate"):
            raise ConfigError(f'sync.streams."{pattern}": quaternion needs policy = "interpolate"')


def _reference_clock(recording: Recording, config: SyncConfig, streams: Sequence[Stream]) -> Clock:
    if not streams:
        raise DataError("no stream to synchronise", where=recording.path)
    kind, _, name = config.reference.partition(":")
    if kind == "auto" or kind == "rate" or (kind == "consensus" and not name):
        cameras = [stream for stream in streams if stream.kind == "camera"]
        return (cameras or list(streams))[0].clock
    if kind == "consensus":
        return _consensus_members(name, recording)[0].clock
    return recording.stream(config.reference).clock


def _consensus_members(pattern: str, recording: Recording) -> list[Stream]:
    """Streams that a consensus pattern names; without one, all cameras."""
    if not pattern:
        members = recording.streams_of_kind("camera")
    else:
        members = [
            stream for name, stream in recording.streams.items() if fnmatch.fnmatchcase(name, pattern.lower())
        ]
    if len(members) < 2:
        raise ConfigError(
            f"reference 'consensus:{pattern}' matches {len(members)} streams, and a consensus needs two",
            where=recording.path,
            hint=f"Streams: {', '.join(recording.streams)}.",
        )
    return members


def _find_ticks(
    config: SyncConfig, recording: Recording, aligned: dict[str, AlignedStream]
) -> tuple[Ticks, dict[str, int]]:
    """The ticks, and the offsets learned on the way (of a consensus' members)."""
    kind, _, rest = config.reference.partition(":")
    if kind == "rate":
        rate_hz = _parse_rate(rest)
        required = [
            stream
            for stream in aligned.values()
            if stream.stream.kind not in ("text", "lidar", "radar", "event")
        ]
        return ticks_at_rate(rate_hz, required or list(aligned.values())), {}
    if kind == "consensus":
        members = [
            aligned[stream.name] for stream in _consensus_members(rest, recording) if stream.name in aligned
        ]
        return _consensus(members, config)
    if kind != "auto":
        name = recording.stream(config.reference).name
        if name not in aligned:
            raise ConfigError(f"the reference '{name}' is set to be ignored", where=recording.path)
        if aligned[name].stream.kind in ("audio", "text"):
            raise ConfigError(
                f"'{name}' is {aligned[name].stream.kind}, which has no ticks",
                where=recording.path,
                hint="Use reference = 'rate:10', in Hz.",
            )
        return ticks_from_stream(aligned[name]), {}
    cameras = [stream for stream in aligned.values() if stream.stream.kind == "camera"]
    groups = [[other for other in cameras if is_same_rate(other.period_ns, one.period_ns)] for one in cameras]
    best = max(groups, key=len, default=[])
    if len(best) >= 2:
        return _consensus(best, config)
    instants = cameras or [stream for stream in aligned.values() if stream.stream.kind in ("event", "lidar")]
    if not instants:
        raise ConfigError(
            "no camera to take the tick from",
            where=recording.path,
            hint="Set reference to a stream's name, or to 'rate:10' in Hz.",
        )
    return ticks_from_stream(instants[0]), {}


def _parse_rate(text: str) -> Fraction:
    """The rate of 'rate:TEXT' in Hz, exactly. Raises ConfigError for what is none."""
    try:
        # An exponent of nine digits would be a number of as many.
        rate_hz = Fraction(0) if "e" in text.lower() or len(text) > 40 else Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate_hz = Fraction(0)
    if not Fraction(1, 10**6) <= rate_hz <= 10**9:
        raise ConfigError(
            f"reference 'rate:{text[:40]}' is no rate from 0.000001 to 1000000000 Hz",
            where="sync.reference",
            hint="Write rate:10 or rate:30000/1001, in Hz.",
        )
    return rate_hz


def _consensus(members: Sequence[AlignedStream], config: SyncConfig) -> tuple[Ticks, dict[str, int]]:
    given: list[int | None] = []
    for member in members:
        settings = config.policy_for(member.name)
        rule = resolve_rule(
            member.stream,
            settings,
            period_ns=member.period_ns,
            tick_period_ns=member.period_ns,
            learned_ns=None,
        )
        given.append(rule.offset_ns if rule.offset_source == "given" else None)
    if all(offset is not None for offset in given):
        return consensus_ticks(members, [offset for offset in given if offset is not None]), {}
    offsets, ticks = learn_group_offsets(members, given)
    pairs = zip(members, offsets, given, strict=True)
    return ticks, {member.name: offset for member, offset, stated in pairs if stated is None}


def _raw_spread(matches: dict[str, StreamMatch], ticks: Ticks) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Latest minus earliest raw stamp of the triggered group: what the spread is before any offset is taken
    off.
    """
    group = [
        found
        for found in matches.values()
        if found.name in ticks.members
        or (
            found.rule.policy == "nearest"
            and found.stream.stream.kind == "camera"
            and is_same_rate(found.stream.period_ns, ticks.period_ns)
        )
    ]
    cameras = [found for found in group if found.stream.stream.kind == "camera"]
    group = cameras if len(cameras) >= 2 else group
    if len(group) < 2:
        return tuple(found.name for found in group), np.empty(0, np.int64)
    everywhere = np.all([found.has_item for found in group], axis=0)
    stamps = np.stack([found.aligned_ns[everywhere] for found in group])
    return tuple(found.name for found in group), np.ptp(stamps, axis=0)
