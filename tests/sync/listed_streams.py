"""Streams made of lists of stamps, for tests of sync."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from mmpack.clock import Clock, ClockMap
from mmpack.recording import AudioTimeline, Recording, Stream, Timestamps
from mmpack.recording.model import StreamKind
from mmpack.sync.alignment.align import AlignedStream, align_stream
from mmpack.sync.policies.rule import MatchRule, StreamPolicy, resolve_rule

MS = 10**6
S = 10**9
RIG = Clock("rig", "boot")
BOOT_NS = 5_000 * S


@dataclass(frozen=True)
class ListedTimestamps:
    """Stamps, and ends, as given."""

    when: Timestamps

    def timestamps(self) -> Timestamps:
        return self.when

    def files(self) -> Iterable[tuple[str, int]]:
        return ()


@dataclass(frozen=True)
class ListedTexts(ListedTimestamps):
    """Texts called '0', '1', ..."""

    def texts(self) -> list[str]:
        return [str(number) for number in range(len(self.when))]


@dataclass(frozen=True)
class CountingAudio:
    """Sound whose samples are their own numbers, modulo 2**15."""

    heard: AudioTimeline

    def timeline(self) -> AudioTimeline:
        return self.heard

    def read(self, start: int, stop: int) -> NDArray[np.int16]:
        return (np.arange(start, stop) % 2**15).astype(np.int16)[:, None]

    def files(self) -> Iterable[tuple[str, int]]:
        return ()


def stream(
    t_ns: ArrayLike,
    kind: StreamKind = "imu",
    name: str = "s",
    *,
    end_ns: ArrayLike | None = None,
    clock: Clock = RIG,
    resolution_ns: int = 1,
    unit: str = "ns",
    **more: object,
) -> Stream:
    """A stream with these stamps."""
    ends = None if end_ns is None else np.asarray(end_ns, np.int64)
    when = Timestamps(np.asarray(t_ns, np.int64), ends, resolution_ns, "list", unit)
    source = ListedTexts(when) if kind == "text" else ListedTimestamps(when)
    return Stream(name, kind, clock, source, **more)  # type: ignore[arg-type]


def audio_stream(
    rate_hz: int,
    segments: Sequence[tuple[int, int]],
    name: str = "mic",
    *,
    clock: Clock = RIG,
) -> Stream:
    """A microphone with segments (first stamp in ns, samples)."""
    lengths = np.array([samples for _, samples in segments], np.int64)
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    timeline = AudioTimeline(rate_hz, 1, first, np.array([t for t, _ in segments], np.int64), lengths)
    return Stream(name, "audio", clock, CountingAudio(timeline))


def recording(*streams: Stream, maps: tuple[ClockMap, ...] = ()) -> Recording:
    """A recording of these streams."""
    return Recording("made", {one.name: one for one in streams}, maps, "made.toml")


def aligned(one: Stream, *, target: Clock = RIG, maps: tuple[ClockMap, ...] = ()) -> AlignedStream:
    """One stream, aligned by itself."""
    return align_stream(one, recording(one, maps=maps), target, max_backward=0.01)


def rule(
    one: AlignedStream, tick_period_ns: int, *, learned_ns: int | None = None, **settings: object
) -> MatchRule:
    """The rule that these settings give for `one`."""
    return resolve_rule(
        one.stream,
        StreamPolicy(**settings),  # type: ignore[arg-type]
        period_ns=one.period_ns,
        tick_period_ns=tick_period_ns,
        learned_ns=learned_ns,
    )


def regular(count: int, period_ns: int, start_ns: int = BOOT_NS) -> NDArray[np.int64]:
    """`count` stamps, `period_ns` apart."""
    return start_ns + np.arange(count, dtype=np.int64) * period_ns


def ascending(
    low: int = 0, high: int = 400, *, least: int = 1, most: int = 30
) -> st.SearchStrategy[list[int]]:
    """Lists of different ascending small integers."""
    return st.lists(st.integers(low, high), min_size=least, max_size=most, unique=True).map(sorted)
