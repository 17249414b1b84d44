"""Repeats the synchronisation check of a finished slice: compares the description of every stream with the match rule in
the manifest.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from mmpack.errors import IntegrityError
from mmpack.samples.description import (
    AnyStreamDescription,
    AudioDescription,
    ImageDescription,
    NumericDescription,
    SliceDescription,
    TextDescription,
)
from mmpack.shards.manifest import RecordingEntry, StreamEntry
from mmpack.sync.policies.policy import JudgedBy
from mmpack.sync.policies.registry import POLICIES

#: Largest gap in a time window, in periods of the stream, that is allowed even if it exceeds `max_age`.
_WINDOW_PERIODS = 3


def check_slice_gate(
    row: Mapping[str, Any],
    description: SliceDescription,
    streams: Mapping[str, AnyStreamDescription],
    timestamps_ns: Mapping[str, Sequence[int]],
    recording: RecordingEntry,
    expected_streams: frozenset[str],
) -> None:
    """Checks a slice against the match rules of its recording and against its index row.

    Args:
        row: index row of the slice.
        description: description of the slice.
        streams: decoded description of each stream, by name.
        timestamps_ns: timestamps of the rows of numeric streams and of the frames of tubelets, by stream.
        recording: manifest entry of the recording, with the match rules.
        expected_streams: names of the streams that every slice either contains or names as absent.

    Raises:
        IntegrityError: a condition does not hold; the message names the first one.
    """
    for name in ("run", "t_ns", "residual_ns"):
        if getattr(description, name) != row[name]:
            raise IntegrityError(f"the {name} of the description differs from the index")
    if description.clock != recording.clock:
        raise IntegrityError(f"the clock is '{description.clock}', but the manifest has '{recording.clock}'")
    drift = sum(abs(clock_map.drift_ppm) for clock_map in recording.clock_maps) * 1e-6
    for name, stream in streams.items():
        try:
            _check_stream(
                stream, timestamps_ns.get(name, ()), recording.streams[name], description.t_ns, drift
            )
        except IntegrityError as error:
            raise IntegrityError(f"'{name}' {error.message}") from None
    _check_residual(description, streams, recording)
    for name in description.absent:
        if name in streams or name not in recording.streams:
            raise IntegrityError(
                f"'{name}' is named as absent, but it is present or it is not a stream of the recording"
            )
        if recording.streams[name].required:
            raise IntegrityError(f"the required stream '{name}' is missing")
    missing = sorted(expected_streams - streams.keys() - description.absent.keys())
    if missing:
        raise IntegrityError(f"the stream '{missing[0]}' is missing, but no reason is given")


def _check_residual(
    description: SliceDescription, streams: Mapping[str, AnyStreamDescription], recording: RecordingEntry
) -> None:
    """Checks that the residual of the slice is the largest |residual| of the streams with one compared item per tick."""
    compared = {name for name, entry in recording.streams.items() if _judged_by(entry).is_compared}
    largest_ns = max(
        (abs(_stream_residual(stream)) for name, stream in streams.items() if name in compared), default=0
    )
    # A stream that is not in the slice may have a larger residual: one that has only timestamps, or one out of tolerance.
    if description.residual_ns < largest_ns or (
        compared <= streams.keys() and description.residual_ns != largest_ns
    ):
        raise IntegrityError(
            f"the residual is {description.residual_ns} ns, but the largest one of the streams is {largest_ns} ns"
        )


def _judged_by(entry: StreamEntry) -> JudgedBy:
    """Returns the quantity by which a stream is judged. Raises IntegrityError for an unknown policy."""
    if entry.policy not in POLICIES:
        raise IntegrityError(
            f"the manifest has the policy '{entry.policy}', which this version does not know"
        )
    return POLICIES[entry.policy].judged_by


def _stream_residual(stream: AnyStreamDescription) -> int:
    return 0 if isinstance(stream, TextDescription) else stream.residual_ns


def _check_stream(
    stream: AnyStreamDescription, timestamps_ns: Sequence[int], entry: StreamEntry, tick_ns: int, drift: float
) -> None:
    """Checks one stream against its match rule; the error message continues the name of the stream.

    `drift` is the sum of the drifts of all clock maps of the recording, as a fraction.
    """
    if stream.policy != entry.policy:
        raise IntegrityError(f"was matched by '{stream.policy}', but the manifest has '{entry.policy}'")
    target_ns = tick_ns + entry.offset_ns
    low_ns, high_ns = target_ns - entry.before_ns, target_ns + entry.after_ns
    if isinstance(stream, TextDescription):
        _check_texts(stream, low_ns, high_ns)
        return
    if (stream.offset_ns, stream.tolerance_ns) != (entry.offset_ns, entry.tolerance_ns):
        raise IntegrityError("has an offset or tolerance that differs from the manifest")
    judged_by, start_ns = _judged_by(entry), target_ns
    if judged_by is JudgedBy.SPAN:
        start_ns = low_ns if isinstance(stream, AudioDescription) else stream.t_ns
    if stream.residual_ns != stream.t_ns - start_ns:
        raise IntegrityError("has a residual that does not match its timestamp")
    if any(first > second for first, second in itertools.pairwise(timestamps_ns)):
        raise IntegrityError("has timestamps that go backward")
    if isinstance(stream, AudioDescription):
        _check_audio(stream, entry, drift)
    elif judged_by is JudgedBy.SPAN:
        _check_window(stream, timestamps_ns, entry, low_ns, high_ns)
    else:
        _check_instant(stream, timestamps_ns, entry, judged_by)


def _check_instant(
    stream: ImageDescription | NumericDescription,
    timestamps_ns: Sequence[int],
    entry: StreamEntry,
    judged_by: JudgedBy,
) -> None:
    """Checks a stream with one value per tick: the latest, the nearest, the equal or a computed one."""
    age_ns = -stream.residual_ns
    if judged_by is JudgedBy.AGE:
        if not 0 <= age_ns <= entry.limit_ns:
            raise IntegrityError(f"is {age_ns} ns old, but at most {entry.limit_ns} ns are allowed")
    elif judged_by is JudgedBy.RESIDUAL:
        if abs(age_ns) > entry.tolerance_ns:
            raise IntegrityError(
                f"has a residual of {stream.residual_ns} ns, but the tolerance is {entry.tolerance_ns} ns"
            )
    elif age_ns:
        raise IntegrityError(
            f"has a residual of {stream.residual_ns} ns, but '{entry.policy}' must have 0 ns"
        )
    if isinstance(stream, ImageDescription):
        if stream.timestamps_ns is not None:
            raise IntegrityError("is one image with the timestamps of a tubelet")
        return
    # Only a latest value may have several rows: those of one burst, of which the last row is the latest.
    if (
        not timestamps_ns
        or timestamps_ns[-1] != stream.t_ns
        or (judged_by is not JudgedBy.AGE and len(timestamps_ns) != 1)
    ):
        raise IntegrityError("has rows whose timestamps differ from its own")


def _check_window(
    stream: ImageDescription | NumericDescription,
    timestamps_ns: Sequence[int],
    entry: StreamEntry,
    low_ns: int,
    high_ns: int,
) -> None:
    if not timestamps_ns or timestamps_ns[0] != stream.t_ns:
        raise IntegrityError("has timestamps that do not start at its own")
    if timestamps_ns[0] < low_ns or timestamps_ns[-1] >= high_ns:
        raise IntegrityError("has timestamps outside its window")
    gap_ns = max(second - first for first, second in itertools.pairwise([low_ns, *timestamps_ns, high_ns]))
    limit_ns = max(entry.limit_ns, _WINDOW_PERIODS * entry.period_ns)
    if gap_ns > limit_ns:
        raise IntegrityError(f"has a gap of {gap_ns} ns in its window, but at most {limit_ns} ns are allowed")


def _check_audio(stream: AudioDescription, entry: StreamEntry, drift: float) -> None:
    """Checks the start and the number of audio samples.

    Samples count on the audio clock and the window on the clock of the recording, so the drift between the clocks changes
    the expected number of samples.
    """
    sample_ns = 10**9 / max(stream.rate_hz, 1)
    slack_ns = 2 + sample_ns * drift
    if not -slack_ns <= stream.residual_ns <= sample_ns + slack_ns:
        raise IntegrityError(
            f"starts {stream.residual_ns} ns after the start of its window, more than one audio sample"
        )
    expected = (entry.before_ns + entry.after_ns) * stream.rate_hz / 10**9
    if abs(stream.samples - expected) > 1 + expected * drift:
        raise IntegrityError(f"has {stream.samples} audio samples, but its window has {expected:.1f}")


def _check_texts(stream: TextDescription, low_ns: int, high_ns: int) -> None:
    if not stream.texts:
        raise IntegrityError("has no texts")
    for text in stream.texts:
        if text.t_ns >= high_ns or max(text.end_ns - 1, text.t_ns) < low_ns:
            raise IntegrityError(f"has a text at {text.t_ns} ns, which does not overlap its window")
