"""Streams built from lists of timestamps, for tests of synchronisation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from mmpack.clock import Clock, ClockMap
from mmpack.recording import AudioTimeline, Recording, Stream, Timestamps
from mmpack.recording.model import StreamKind
from mmpack.sync.alignment.align import AlignedStream, align_stream
from mmpack.sync.policies.resolve import resolve_rule
from mmpack.sync.policies.rule import MatchRule, StreamPolicy

MS = 10**6
S = 10**9
RIG = Clock("rig", "boot")
BOOT_NS = 5_000 * S


@dataclass(frozen=True)
class ListedTimestamps:
    """A source with the given timestamps and ends."""

    listed: Timestamps

    def timestamps(self) -> Timestamps:
        return self.listed

    def files(self) -> Iterable[tuple[str, int]]:
        return ()

    def identity(self) -> dict[str, Any]:
        return self.listed.identity()


@dataclass(frozen=True)
class ListedTexts(ListedTimestamps):
    """A text source whose texts are '0', '1', ..."""

    def texts(self) -> list[str]:
        return [str(index) for index in range(len(self.listed))]


@dataclass(frozen=True)
class CountingAudio:
    """An audio source whose samples are their own indices modulo 2**15."""

    listed: AudioTimeline

    def timeline(self) -> AudioTimeline:
        return self.listed

    def read(self, start: int, stop: int) -> NDArray[np.int16]:
        return (np.arange(start, stop) % 2**15).astype(np.int16)[:, None]

    def files(self) -> Iterable[tuple[str, int]]:
        return ()

    def identity(self) -> dict[str, Any]:
        return {"t_ns": self.listed.t_ns}


def stream(
    t_ns: ArrayLike,
    kind: StreamKind = "imu",
    name: str = "s",
    *,
    end_ns: ArrayLike | None = None,
    clock: Clock = RIG,
    resolution_ns: int = 1,
    unit: str = "ns",
    **fields: object,
) -> Stream:
    """Returns a stream with these timestamps."""
    ends = None if end_ns is None else np.asarray(end_ns, np.int64)
    timestamps = Timestamps(np.asarray(t_ns, np.int64), ends, resolution_ns, "list", unit)
    source = ListedTexts(timestamps) if kind == "text" else ListedTimestamps(timestamps)
    return Stream(name, kind, clock, source, **fields)  # type: ignore[arg-type]


def audio_stream(
    rate_hz: int,
    segments: Sequence[tuple[int, int]],
    name: str = "mic",
    *,
    clock: Clock = RIG,
) -> Stream:
    """Returns a microphone stream with segments (first timestamp in ns, number of samples)."""
    lengths = np.array([samples for _, samples in segments], np.int64)
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    timeline = AudioTimeline(
        rate_hz=rate_hz,
        channels=1,
        first_sample=first,
        t_ns=np.array([t for t, _ in segments], np.int64),
        samples=lengths,
    )
    return Stream(name, "audio", clock, CountingAudio(timeline))


def recording(*streams: Stream, maps: tuple[ClockMap, ...] = ()) -> Recording:
    """Returns a recording of these streams."""
    return Recording("made", {stream.name: stream for stream in streams}, maps, "made.toml")


def align(stream: Stream, *, target: Clock = RIG, maps: tuple[ClockMap, ...] = ()) -> AlignedStream:
    """Aligns a stream that is the only one of its recording."""
    return align_stream(stream, recording(stream, maps=maps), target, max_backward=0.01)


def make_rule(
    aligned: AlignedStream, tick_period_ns: int, *, learned_ns: int | None = None, **settings: object
) -> MatchRule:
    """Returns the match rule of `aligned` with these settings."""
    return resolve_rule(
        aligned.stream,
        StreamPolicy(**settings),  # type: ignore[arg-type]
        period_ns=aligned.period_ns,
        tick_period_ns=tick_period_ns,
        learned_ns=learned_ns,
    )


def regular_ns(count: int, period_ns: int, start_ns: int = BOOT_NS) -> NDArray[np.int64]:
    """Returns `count` timestamps, `period_ns` apart."""
    return start_ns + np.arange(count, dtype=np.int64) * period_ns


def ascending_integers(
    low: int = 0, high: int = 400, *, min_size: int = 1, max_size: int = 30
) -> st.SearchStrategy[list[int]]:
    """Returns a strategy for lists of different small integers, ascending."""
    return st.lists(st.integers(low, high), min_size=min_size, max_size=max_size, unique=True).map(sorted)
