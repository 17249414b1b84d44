"""What every reader gives: a recording of streams, each with stamps that cost little and media read only when
asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mmpack.clock import Clock, ClockMap
from mmpack.errors import DataError

if TYPE_CHECKING:
    import av

StreamKind = Literal["camera", "audio", "imu", "can", "action", "numeric", "text", "lidar", "radar", "event"]
TimestampSemantics = Literal["start", "mid", "end", "receive"]

#: Kinds whose items are rows of numbers.
TABLE_KINDS = frozenset({"imu", "can", "action", "numeric"})


@dataclass(frozen=True)
class Timestamps:
    """The stamps of a stream exactly as recorded: in file order, nothing sorted, nothing left out.

    Attributes:
        t_ns: int64, shape (n,), on the stream's clock.
        end_ns: int64, shape (n,), exclusive ends of items that last (subtitles); None for instants.
        resolution_ns: the smallest step the source can express (238 for float64 epoch seconds, 10**6 for
            Matroska).
        origin: where the stamps come from ("pts", "file name", "column t_ns", ...), for the report.
        unit: the unit the source's numbers were read in, for the message where they cannot be true.
    """

    t_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64] | None = None
    resolution_ns: int = 1
    origin: str = "pts"
    unit: str = "ns"

    def __len__(self) -> int:
        return len(self.t_ns)

    def shift(self, by_ns: int) -> Timestamps:
        """The same stamps `by_ns` later."""
        if by_ns == 0:
            return self
        end_ns = None if self.end_ns is None else self.end_ns + by_ns
        return Timestamps(self.t_ns + by_ns, end_ns, self.resolution_ns, self.origin, self.unit)


@dataclass(frozen=True)
class AudioTimeline:
    """Where samples lie in time: contiguous segments, split where the source has a hole.

    Attributes:
        rate_hz: samples per second, an integer.
        channels: number of channels.
        first_sample: int64, shape (k,), index of each segment's first sample in what `read` addresses.
        t_ns: int64, shape (k,), stamp of that sample.
        samples: int64, shape (k,), samples in the segment.
        origin: where the stamps come from.
    """

    rate_hz: int
    channels: int
    first_sample: NDArray[np.int64]
    t_ns: NDArray[np.int64]
    samples: NDArray[np.int64]
    origin: str = "pts"

    def shift(self, by_ns: int) -> AudioTimeline:
        """The same timeline `by_ns` later."""
        return AudioTimeline(
            self.rate_hz, self.channels, self.first_sample, self.t_ns + by_ns, self.samples, self.origin
        )


@dataclass(frozen=True)
class Frame:
    """One picture: either its encoded bytes as recorded, or a decoded frame still to be encoded.

    Attributes:
        index: number of the item in its stream, in file order.
        encoded: JPEG or PNG bytes; None for a frame that came out of a video decoder.
        extension: "jpg" or "png" where `encoded` is given.
        decoded: the decoder's frame where `encoded` is None.
    """

    index: int
    encoded: bytes | None = None
    extension: str = ""
    decoded: av.VideoFrame | None = None


@runtime_checkable
class FrameSource(Protocol):
    """Pictures of one camera."""

    def timestamps(self) -> Timestamps:
        """Stamps of all pictures, without decoding any. Raises DataError."""
        ...

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """The pictures with these item numbers, which ascend. One forward pass. Raises DataError."""
        ...

    def files(self) -> Iterable[tuple[str, int]]:
        """(name, bytes) of what is read, for the recording's fingerprint."""
        ...


@runtime_checkable
class AudioSource(Protocol):
    """Samples of one microphone or track."""

    def timeline(self) -> AudioTimeline:
        """Where the samples lie in time, without decoding all of them. Raises DataError."""
        ...

    def read(self, start: int, stop: int) -> NDArray[np.int16]:
        """Samples [start, stop), int16, shape (stop - start, channels). Cheapest when called in ascending
        order.
        """
        ...

    def files(self) -> Iterable[tuple[str, int]]:
        """(name, bytes) of what is read, for the recording's fingerprint."""
        ...


@runtime_checkable
class TableSource(Protocol):
    """Rows of numbers with a stamp each."""

    def timestamps(self) -> Timestamps:
        """Stamps of all rows. Raises DataError."""
        ...

    def columns(self) -> tuple[str, ...]:
        """Names of the value columns."""
        ...

    def values(self) -> NDArray[np.float64]:
        """All values, float64, shape (n, columns), in file order. Raises DataError."""
        ...

    def files(self) -> Iterable[tuple[str, int]]:
        """(name, bytes) of what is read, for the recording's fingerprint."""
        ...


@runtime_checkable
class TextSource(Protocol):
    """Texts that hold for an interval."""

    def timestamps(self) -> Timestamps:
        """Starts and ends of all texts. Raises DataError."""
        ...

    def texts(self) -> list[str]:
        """All texts, in file order. Raises DataError."""
        ...

    def files(self) -> Iterable[tuple[str, int]]:
        """(name, bytes) of what is read, for the recording's fingerprint."""
        ...


class TimestampSource(Protocol):
    """Stamps without content (a trigger log, frame times whose video is elsewhere)."""

    def timestamps(self) -> Timestamps:
        """All stamps. Raises DataError."""
        ...

    def files(self) -> Iterable[tuple[str, int]]:
        """(name, bytes) of what is read, for the recording's fingerprint."""
        ...


Source = FrameSource | AudioSource | TableSource | TextSource | TimestampSource


@dataclass(frozen=True)
class Stream:
    """One sensor or track of a recording.

    Attributes:
        name: lower-case name, unique in the recording.
        kind: what its items are.
        clock: what its stamps count from.
        source: where stamps and media come from; nothing is read before it is asked for.
        semantics: which moment of the item the stamp names.
        nominal_offset_ns: by how much its items are *meant* to lie after the reference tick; None if not
            stated.
        latency_ns: known delay between event and stamp; taken off every stamp.
        nominal_period_ns: intended distance of items; None if not stated.
    """

    name: str
    kind: StreamKind
    clock: Clock
    source: Source
    semantics: TimestampSemantics = "start"
    nominal_offset_ns: int | None = None
    latency_ns: int = 0
    nominal_period_ns: int | None = None

    @cached_property
    def timestamps(self) -> Timestamps:
        """Stamps less the stated latency, on the stream's clock. For audio: the starts of its segments."""
        if isinstance(self.source, AudioSource):
            timeline = self.audio_timeline
            return Timestamps(timeline.t_ns, origin=timeline.origin)
        return self.source.timestamps().shift(-self.latency_ns)

    @cached_property
    def audio_timeline(self) -> AudioTimeline:
        """The audio timeline less the stated latency. Raises DataError for a stream that is not audio."""
        if not isinstance(self.source, AudioSource):
            raise DataError("has no audio samples", where=self.name)
        return self.source.timeline().shift(-self.latency_ns)


@dataclass(frozen=True)
class Recording:
    """One capture: several streams and their clocks.

    Attributes:
        name: unique name, characters [A-Za-z0-9_+-], used in keys and shard names.
        streams: by name, in a fixed order.
        maps: what is known between clocks.
        where: path, for messages.
        reference: the ticks that suit it, as `sync.reference` says them; empty if it states none.
    """

    name: str
    streams: dict[str, Stream]
    maps: tuple[ClockMap, ...] = field(default=())
    path: str = ""
    reference: str = ""

    def stream(self, name: str) -> Stream:
        """The stream called `name`. Raises DataError with the names there are."""
        try:
            return self.streams[name.lower()]
        except KeyError:
            known = ", ".join(self.streams) or "none"
            raise DataError(f"no stream '{name}'", where=self.path, hint=f"It has: {known}.") from None

    def streams_of_kind(self, *kinds: StreamKind) -> list[Stream]:
        """Streams of these kinds, in order."""
        return [stream for stream in self.streams.values() if stream.kind in kinds]
