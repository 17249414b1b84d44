"""The sync gate once more, from what a finished slice says of itself: every stream against the rule that the
manifest froze for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from mmpack.errors import IntegrityError
from mmpack.samples.description import (
    AudioDescription,
    ImageDescription,
    NumericDescription,
    SliceDescription,
    TextDescription,
)
from mmpack.shards.manifest import RecordingEntry, StreamEntry

AnyStreamDescription = ImageDescription | AudioDescription | NumericDescription | TextDescription
#: A window without rows for so many periods was set aside, whatever max_age says.
_WINDOW_PERIODS = 3


def check_slice_gate(
    row: Mapping[str, Any],
    description: SliceDescription,
    streams: Mapping[str, AnyStreamDescription],
    stamps_ns: Mapping[str, Sequence[int]],
    recording: RecordingEntry,
    with_content: frozenset[str],
) -> None:
    """Whether a slice passes the gate, and the index says what it says.

    Args:
        row: of the index.
        description: of the slice.
        streams: its streams, typed.
        stamps_ns: stamps of the rows and of the tubelets' frames.
        recording: the manifest's entry, with the rules.
        with_content: streams of the recording that every slice either holds or names as absent.

    Raises:
        IntegrityError: the first thing that does not hold.
    """
    for name in ("run", "t_ns", "residual_ns"):
        if getattr(description, name) != row[name]:
            raise IntegrityError(f"its {name} is not the index's")
    if description.clock != recording.clock:
        raise IntegrityError(f"its clock is '{description.clock}', the manifest's '{recording.clock}'")
    drift = sum(abs(known.drift_ppm) for known in recording.clock_maps) * 1e-6
    for name, stream in streams.items():
        try:
            _check_stream(stream, stamps_ns.get(name, ()), recording.streams[name], description.t_ns, drift)
        except IntegrityError as error:
            raise IntegrityError(f"'{name}' {error.message}") from None
    _check_residual(description, streams, recording)
    for name in description.absent:
        if name in streams or name not in recording.streams:
            raise IntegrityError(f"'{name}' is named as absent, and is there or is no stream")
        if recording.streams[name].required:
            raise IntegrityError(f"the required stream '{name}' is missing")
    missing = sorted(with_content - streams.keys() - description.absent.keys())
    if missing:
        raise IntegrityError(f"the stream '{missing[0]}' is missing, and no reason is given")


def _check_residual(
    description: SliceDescription, streams: Mapping[str, AnyStreamDescription], recording: RecordingEntry
) -> None:
    judged = {name for name, entry in recording.streams.items() if entry.policy in ("exact", "nearest")}
    worst = max(
        (abs(_stream_residual(stream)) for name, stream in streams.items() if name in judged), default=0
    )
    # Streams that are not in the slice (a lidar's stamps, one that was too far off) may have a larger one.
    if description.residual_ns < worst or (judged <= streams.keys() and description.residual_ns != worst):
        raise IntegrityError(f"the index says {description.residual_ns} ns at most, its streams {worst}")


def _stream_residual(stream: AnyStreamDescription) -> int:
    return 0 if isinstance(stream, TextDescription) else stream.residual_ns


def _check_stream(
    stream: AnyStreamDescription, stamps_ns: Sequence[int], entry: StreamEntry, tick_ns: int, drift: float
) -> None:
    if stream.policy != entry.policy:
        raise IntegrityError(f"was matched by '{stream.policy}', and the manifest says '{entry.policy}'")
    wanted_ns = tick_ns + entry.offset_ns
    low_ns, high_ns = wanted_ns - entry.before_ns, wanted_ns + entry.after_ns
    if isinstance(stream, TextDescription):
        _check_texts(stream, low_ns, high_ns)
        return
    if (stream.offset_ns, stream.tolerance_ns) != (entry.offset_ns, entry.tolerance_ns):
        raise IntegrityError("has another offset or tolerance than the manifest")
    start_ns = {"window": low_ns if isinstance(stream, AudioDescription) else stream.t_ns}.get(
        stream.policy, wanted_ns
    )
    if stream.residual_ns != stream.t_ns - start_ns:
        raise IntegrityError("has a residual that does not add up to its stamp")
    if any(before > after for before, after in itertools.pairwise(stamps_ns)):
        raise IntegrityError("has stamps that go backward")
    if isinstance(stream, AudioDescription):
        _check_audio(stream, entry, drift)
    elif entry.policy == "window":
        _check_window(stream, stamps_ns, entry, low_ns, high_ns)
    else:
        _check_instant(stream, stamps_ns, entry)


def _check_instant(
    stream: ImageDescription | NumericDescription, stamps_ns: Sequence[int], entry: StreamEntry
) -> None:
    age_ns = -stream.residual_ns
    if entry.policy == "hold":
        if not 0 <= age_ns <= entry.limit_ns:
            raise IntegrityError(f"is {age_ns} ns old, allowed {entry.limit_ns} ns")
    elif entry.policy == "nearest":
        if abs(age_ns) > entry.tolerance_ns:
            raise IntegrityError(f"is {stream.residual_ns} ns off, tolerance {entry.tolerance_ns} ns")
    elif age_ns:
        raise IntegrityError(f"is {stream.residual_ns} ns off, and '{entry.policy}' leaves nothing")
    if isinstance(stream, ImageDescription):
        if stream.stamps_ns is not None:
            raise IntegrityError("is one picture with the stamps of a tubelet")
        return
    # Only what is held may be several rows: those of one burst, the last of which is the latest.
    if not stamps_ns or stamps_ns[-1] != stream.t_ns or (entry.policy != "hold" and len(stamps_ns) != 1):
        raise IntegrityError("has rows whose stamps are not its own")


def _check_window(
    stream: ImageDescription | NumericDescription,
    stamps_ns: Sequence[int],
    entry: StreamEntry,
    low_ns: int,
    high_ns: int,
) -> None:
    if not stamps_ns or stamps_ns[0] != stream.t_ns:
        raise IntegrityError("has stamps that do not begin at its own")
    if stamps_ns[0] < low_ns or stamps_ns[-1] >= high_ns:
        raise IntegrityError("has stamps outside its window")
    gap_ns = max(after - before for before, after in itertools.pairwise([low_ns, *stamps_ns, high_ns]))
    limit_ns = max(entry.limit_ns, _WINDOW_PERIODS * entry.period_ns)
    if gap_ns > limit_ns:
        raise IntegrityError(f"has nothing for {gap_ns} ns of its window, allowed {limit_ns} ns")


def _check_audio(stream: AudioDescription, entry: StreamEntry, drift: float) -> None:
    """Samples count on their own clock, the window on the recording's: the maps between them may stretch it."""
    sample_ns = 10**9 / max(stream.rate_hz, 1)
    slack_ns = 2 + sample_ns * drift
    if not -slack_ns <= stream.residual_ns <= sample_ns + slack_ns:
        raise IntegrityError(f"begins {stream.residual_ns} ns into its window, more than one sample")
    expected = (entry.before_ns + entry.after_ns) * stream.rate_hz / 10**9
    if abs(stream.samples - expected) > 1 + expected * drift:
        raise IntegrityError(f"has {stream.samples} samples, and its window holds {expected:.1f}")


def _check_texts(stream: TextDescription, low_ns: int, high_ns: int) -> None:
    if not stream.texts:
        raise IntegrityError("has no texts")
    for text in stream.texts:
        if text.t_ns >= high_ns or max(text.end_ns - 1, text.t_ns) < low_ns:
            raise IntegrityError(f"has a text at {text.t_ns} ns, which does not meet its window")
