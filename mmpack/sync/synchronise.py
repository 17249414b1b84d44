"""Synchronises a recording: finds ticks and offsets, matches every stream, and quarantines slices with a reason."""

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
from mmpack.sync.detectors import detect_all
from mmpack.sync.detectors.finding import Finding
from mmpack.sync.policies.exact import EXACT
from mmpack.sync.policies.match import MatchStatus, StreamMatch
from mmpack.sync.policies.policy import JudgedBy
from mmpack.sync.policies.registry import POLICIES, judged_by, match_stream
from mmpack.sync.policies.resolve import is_same_rate, learns_offset, resolve_rule
from mmpack.sync.policies.rule import MatchRule
from mmpack.sync.sync_config import SyncConfig


@dataclass(frozen=True, kw_only=True)
class SyncResult:
    """The result of the synchronisation of one recording.

    Attributes:
        recording: the recording.
        clock: clock of the ticks.
        ticks: the T reference ticks; the index of a tick is the ordinal of its slice.
        matches: match of each stream that is not ignored, by name, in the order of the recording.
        passed: bool, shape (T,), True for slices whose required streams all have the status OK.
        findings: findings of the detectors.
        raw_spread_ns: int64, shape (U,), latest minus earliest timestamp of the triggered group, before offsets, at
            the U ticks where every member has an item.
        group: names of the streams of the triggered group.
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
        """Returns (stream, reason) of every required stream that fails at a tick; empty for a slice that passed."""
        return [
            (name, describe_failure(match, tick))
            for name, match in self.matches.items()
            if match.rule.required and match.status[tick] != MatchStatus.OK
        ]

    def quarantined_ordinals(self) -> NDArray[np.int64]:
        """Returns the ordinals of the quarantined slices, int64, ascending."""
        return np.flatnonzero(~self.passed)


def describe_failure(match: StreamMatch, tick: int) -> str:
    """Returns the status of one stream at one tick in words; the text is stored in shards and reports."""
    status, rule = MatchStatus(int(match.status[tick])), match.rule
    judged, residual = int(match.judged_ns[tick]), int(match.residual_ns[tick])
    return {
        MatchStatus.OK: "ok",
        MatchStatus.MISSING: "no item for this tick",
        MatchStatus.OUT_OF_TOLERANCE: f"{format_ns(residual)} off, tolerance {format_ns(rule.tolerance_ns)}",
        MatchStatus.GAP: f"neighbours {format_ns(judged)} apart, allowed {format_ns(rule.limit_ns)}",
        MatchStatus.STALE: f"latest value is {format_ns(judged)} old, allowed {format_ns(rule.limit_ns)}",
        MatchStatus.COVERAGE: f"{format_ns(judged)} of the window are missing",
        MatchStatus.EDGE: "outside the stream's first and last item",
        MatchStatus.EMPTY: "nothing there",
    }[status]


def synchronise(recording: Recording, config: SyncConfig | None = None) -> SyncResult:
    """Matches every stream of `recording` to reference ticks and judges the residuals.

    Args:
        recording: the recording.
        config: the [sync] table; None for the defaults.

    Raises:
        ClockError: the timestamps of a stream have the wrong unit or epoch, or no clock map leads to the reference.
        ConfigError: the reference or a policy is invalid.
        DataError: a stream cannot be read, more of its timestamps are out of order than allowed, or a required stream
            does not overlap the ticks in time.
    """
    config = _with_recording_reference(recording, config or SyncConfig())
    _check_patterns(config, recording)
    streams = [
        stream for stream in recording.streams.values() if not config.policy_for(stream.name).is_ignored
    ]
    clock = _find_reference_clock(recording, config, streams)
    aligned = {
        stream.name: align_stream(stream, recording, clock, max_backward=config.max_backward)
        for stream in streams
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
            rule = replace(rule, policy=EXACT.name, offset_ns=0, offset_source="none", tolerance_ns=0)
        if rule.required:
            _require_time_overlap(stream, ticks, where=recording.path)
        if POLICIES[rule.policy].judged_by is JudgedBy.TEXT and not rule.required:
            # Texts are matched to slices that will exist: a text that starts in a quarantined slice moves to the
            # next slice that passes.
            matches[name] = _match_passed_ticks(stream, rule, ticks, _find_passed(matches, len(ticks.t_ns)))
        else:
            matches[name] = match_stream(stream, rule, ticks.t_ns, ticks.period_ns)
    matches = {name: matches[name] for name in aligned}
    group, spread = _compute_raw_spread(matches, ticks)
    findings = tuple(detect_all(list(aligned.values()), list(matches.values()), ticks))
    passed = _find_passed(matches, len(ticks.t_ns))
    return SyncResult(
        recording=recording,
        clock=clock,
        ticks=ticks,
        matches=matches,
        passed=passed,
        findings=findings,
        raw_spread_ns=spread,
        group=group,
    )


def _find_passed(matches: dict[str, StreamMatch], num_ticks: int) -> NDArray[np.bool_]:
    passed = np.ones(num_ticks, np.bool_)
    for match in matches.values():
        if match.rule.required:
            passed &= match.status == MatchStatus.OK
    return passed


def _require_time_overlap(stream: AlignedStream, ticks: Ticks, *, where: str) -> None:
    """Raises DataError if `stream` and the ticks do not overlap in time.

    A required stream without overlap would quarantine every slice, although the slices themselves are intact.
    """
    first_ns, last_ns = stream.span_ns
    if last_ns < ticks.t_ns[0] or first_ns > ticks.t_ns[-1] + ticks.period_ns:
        raise DataError(
            f"spans {first_ns / 1e9:.3f} to {last_ns / 1e9:.3f} s and the ticks {ticks.t_ns[0] / 1e9:.3f} to "
            f"{ticks.t_ns[-1] / 1e9:.3f} s: they do not overlap",
            where=f"{where}, stream '{stream.name}'",
            hint="Correct the unit, start or clock of the stream in its description, or set required = false for it.",
        )


def _match_passed_ticks(
    stream: AlignedStream, rule: MatchRule, ticks: Ticks, passed: NDArray[np.bool_]
) -> StreamMatch:
    """Returns the match of `stream` to the ticks that passed; all other ticks have the status EMPTY."""
    num_ticks = len(ticks.t_ns)
    if not passed.any():
        return match_stream(stream, rule, ticks.t_ns, ticks.period_ns)
    part = match_stream(stream, rule, ticks.t_ns[passed], ticks.period_ns)

    def expand(values: NDArray, fill: NDArray | int) -> NDArray:
        full = np.empty(num_ticks, values.dtype)
        full[:] = fill
        full[passed] = values
        return full

    return replace(
        part,
        first=expand(part.first, 0),
        count=expand(part.count, 0),
        aligned_ns=expand(part.aligned_ns, ticks.t_ns),
        residual_ns=expand(part.residual_ns, 0),
        status=expand(part.status, MatchStatus.EMPTY),
        judged_ns=expand(part.judged_ns, 0),
    )


def _with_recording_reference(recording: Recording, config: SyncConfig) -> SyncConfig:
    """Returns `config` with the reference that the recording states, if the config says 'auto'.

    A build may mix drives, episodes and films, and no single rate suits them all.
    """
    if config.reference != "auto" or not recording.reference:
        return config
    return msgspec.structs.replace(config, reference=recording.reference)


def _check_patterns(config: SyncConfig, recording: Recording) -> None:
    """Raises ConfigError if a plain name is not a stream, or if a quaternion is set without interpolation."""
    computing = [policy.name for policy in POLICIES.values() if policy.judged_by is JudgedBy.COMPUTED]
    for pattern, settings in config.streams.items():
        is_plain = not set(pattern) & set("*?[")
        if is_plain and pattern.lower() not in recording.streams:
            raise ConfigError(
                f'sync.streams."{pattern}" matches no stream of {recording.name}',
                hint=suggest(pattern, recording.streams),
            )
        if settings.quaternion and settings.policy not in (None, *computing):
            raise ConfigError(f'sync.streams."{pattern}": quaternion requires policy = "{computing[0]}"')


def _find_reference_clock(recording: Recording, config: SyncConfig, streams: Sequence[Stream]) -> Clock:
    """Returns the clock of the reference; without a reference stream, of the first camera, else the first stream."""
    if not streams:
        raise DataError("the recording has no stream to synchronise", where=recording.path)
    kind, _, name = config.reference.partition(":")
    if kind == "auto" or kind == "rate" or (kind == "consensus" and not name):
        cameras = [stream for stream in streams if stream.kind == "camera"]
        return (cameras or list(streams))[0].clock
    if kind == "consensus":
        return _consensus_members(name, recording)[0].clock
    return recording.stream(config.reference).clock


def _consensus_members(pattern: str, recording: Recording) -> list[Stream]:
    """Returns the streams that match a consensus pattern; without a pattern, all cameras."""
    if not pattern:
        members = recording.streams_of_kind("camera")
    else:
        members = [
            stream for name, stream in recording.streams.items() if fnmatch.fnmatchcase(name, pattern.lower())
        ]
    if len(members) < 2:
        raise ConfigError(
            f"reference 'consensus:{pattern}' matches {len(members)} streams, but a consensus needs two",
            where=recording.path,
            hint=f"Use a pattern that matches two of the streams: {', '.join(recording.streams)}.",
        )
    return members


def _find_ticks(
    config: SyncConfig, recording: Recording, aligned: dict[str, AlignedStream]
) -> tuple[Ticks, dict[str, int]]:
    """Returns the ticks, and the offsets in ns that were learned with them, by name (members of a consensus)."""
    kind, _, rest = config.reference.partition(":")
    if kind == "rate":
        rate_hz = _parse_rate(rest)
        continuous = [
            stream
            for stream in aligned.values()
            if stream.stream.kind not in ("text", "lidar", "radar", "event")
        ]
        return ticks_at_rate(rate_hz, continuous or list(aligned.values())), {}
    if kind == "consensus":
        members = [
            aligned[stream.name] for stream in _consensus_members(rest, recording) if stream.name in aligned
        ]
        return _find_consensus(members, config)
    if kind != "auto":
        name = recording.stream(config.reference).name
        if name not in aligned:
            raise ConfigError(f"the reference '{name}' has policy = 'ignore'", where=recording.path)
        if aligned[name].stream.kind in ("audio", "text"):
            raise ConfigError(
                f"the reference '{name}' is {aligned[name].stream.kind}, which has no ticks",
                where=recording.path,
                hint="Use a fixed rate in Hz, as in reference = 'rate:10'.",
            )
        return ticks_from_stream(aligned[name]), {}
    cameras = [stream for stream in aligned.values() if stream.stream.kind == "camera"]
    groups = [
        [other for other in cameras if is_same_rate(other.period_ns, camera.period_ns)] for camera in cameras
    ]
    best = max(groups, key=len, default=[])
    if len(best) >= 2:
        return _find_consensus(best, config)
    instants = cameras or [stream for stream in aligned.values() if stream.stream.kind in ("event", "lidar")]
    if not instants:
        raise ConfigError(
            "the recording has no camera to take the ticks from",
            where=recording.path,
            hint="Set reference to the name of a stream, or to a rate in Hz as in 'rate:10'.",
        )
    return ticks_from_stream(instants[0]), {}


def _parse_rate(text: str) -> Fraction:
    """Returns the exact rate in Hz of 'rate:TEXT'. Raises ConfigError if `text` is not a rate in the allowed range."""
    try:
        # Fraction expands an exponent: "1e999999999" would become an integer of a billion digits.
        rate_hz = Fraction(0) if "e" in text.lower() or len(text) > 40 else Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate_hz = Fraction(0)
    if not Fraction(1, 10**6) <= rate_hz <= 10**9:
        raise ConfigError(
            f"reference 'rate:{text[:40]}' is not a rate from 0.000001 to 1000000000 Hz",
            where="sync.reference",
            hint="Write the rate in Hz as a decimal number without exponent or as a fraction, as in rate:12.5 or rate:30000/1001.",
        )
    return rate_hz


def _find_consensus(members: Sequence[AlignedStream], config: SyncConfig) -> tuple[Ticks, dict[str, int]]:
    """Returns the consensus ticks of a group and the offsets in ns learned for members without an explicit one."""
    explicit_ns: list[int | None] = []
    for member in members:
        settings = config.policy_for(member.name)
        rule = resolve_rule(
            member.stream,
            settings,
            period_ns=member.period_ns,
            tick_period_ns=member.period_ns,
            learned_ns=None,
        )
        explicit_ns.append(rule.offset_ns if rule.offset_source == "given" else None)
    if all(offset is not None for offset in explicit_ns):
        return consensus_ticks(members, [offset for offset in explicit_ns if offset is not None]), {}
    offsets, ticks = learn_group_offsets(members, explicit_ns)
    rows = zip(members, offsets, explicit_ns, strict=True)
    return ticks, {member.name: offset for member, offset, explicit in rows if explicit is None}


def _compute_raw_spread(
    matches: dict[str, StreamMatch], ticks: Ticks
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Returns the names of the triggered group and its raw spread: latest minus earliest timestamp of the group at
    each tick, before any offset is subtracted.
    """
    group = [
        match
        for match in matches.values()
        if match.name in ticks.members
        or (
            judged_by(match) is JudgedBy.RESIDUAL
            and match.stream.stream.kind == "camera"
            and is_same_rate(match.stream.period_ns, ticks.period_ns)
        )
    ]
    cameras = [match for match in group if match.stream.stream.kind == "camera"]
    group = cameras if len(cameras) >= 2 else group
    if len(group) < 2:
        return tuple(match.name for match in group), np.empty(0, np.int64)
    is_complete = np.all([match.has_item for match in group], axis=0)
    timestamps = np.stack([match.aligned_ns[is_complete] for match in group])
    return tuple(match.name for match in group), np.ptp(timestamps, axis=0)
