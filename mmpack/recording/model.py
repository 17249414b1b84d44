"""The model of a recording that every reader produces: streams with timestamps and lazily read media.

Timestamps are cheap to read; media are read only on request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mmpack.clock import Clock, ClockMap
from mmpack.errors import DataError

if TYPE_CHECKING:
    import av

StreamKind = Literal["camera", "audio", "imu", "can", "action", "numeric", "text", "lidar", "radar", "event"]
TimestampSemantics = Literal["start", "mid", "end", "receive"]

#: Stream kinds whose items are table rows of numbers.
TABLE_KINDS = frozenset({"imu", "can", "action", "numeric"})


@dataclass(frozen=True)
class Timestamps:
    """The timestamps of a stream exactly as recorded: all of them, unsorted, in file order.

    Attributes:
        t_ns: int64, shape (n,), timestamps on the stream's clock.
        end_ns: int64, shape (n,), exclusive ends of items that have a duration (subtitles); None for instants.
        resolution_ns: smallest step that the source can express (238 for float64 epoch seconds, 10**6 for
            Matroska).
        origin: origin of the timestamps ("pts", "file name", "column t_ns", ...), for the report.
        unit: unit in which the source's numbers were read, for the message about implausible values.
    """

    t_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64] | None = None
    resolution_ns: int = 1
    origin: str = "pts"
    unit: str = "ns"

    def __len__(self) -> int:
        return len(self.t_ns)

    def identity(self) -> dict[str, Any]:
        """Returns these values for a fingerprint, as in :meth:`FrameSource.identity`."""
        return {
            "t_ns": self.t_ns,
            "end_ns": self.end_ns,
            "resolution_ns": self.resolution_ns,
            "origin": self.origin,
            "unit": self.unit,
        }

    def shift(self, by_ns: int) -> Timestamps:
        """Returns these timestamps with `by_ns` added to starts and ends."""
        if by_ns == 0:
            return self
        end_ns = None if self.end_ns is None else self.end_ns + by_ns
        return Timestamps(self.t_ns + by_ns, end_ns, self.resolution_ns, self.origin, self.unit)


@dataclass(frozen=True, kw_only=True)
class AudioTimeline:
    """The times of all audio samples: contiguous segments, split where the source has a gap.

    Attributes:
        rate_hz: audio samples per second, an integer.
        channels: number of channels.
        first_sample: int64, shape (k,), index of each segment's first audio sample, as `AudioSource.read` counts.
        t_ns: int64, shape (k,), timestamp of each segment's first audio sample.
        samples: int64, shape (k,), number of audio samples in each segment.
        origin: origin of the timestamps, as in :class:`Timestamps`.
    """

    rate_hz: int
    channels: int
    first_sample: NDArray[np.int64]
    t_ns: NDArray[np.int64]
    samples: NDArray[np.int64]
    origin: str = "pts"

    def shift(self, by_ns: int) -> AudioTimeline:
        """Returns this timeline with `by_ns` added to all timestamps."""
        return AudioTimeline(
            rate_hz=self.rate_hz,
            channels=self.channels,
            first_sample=self.first_sample,
            t_ns=self.t_ns + by_ns,
            samples=self.samples,
            origin=self.origin,
        )


@dataclass(frozen=True)
class Frame:
    """One image of a camera stream: encoded bytes as recorded, or a decoded frame that is still to be encoded.

    Attributes:
        index: index of the item in its stream, in file order.
        encoded: JPEG or PNG bytes; None for a frame from a video decoder.
        extension: "jpg" or "png" if `encoded` is set, else empty.
        decoded: the video decoder's frame; None if `encoded` is set.
    """

    index: int
    encoded: bytes | None = None
    extension: str = ""
    decoded: av.VideoFrame | None = None


@runtime_checkable
class FrameSource(Protocol):
    """A source of the frames of one camera."""

    def timestamps(self) -> Timestamps:
        """Returns the timestamps of all frames without decoding any. Raises DataError."""
        ...

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """Yields the frames with these item indices, which ascend, in one forward pass. Raises DataError."""
        ...

    def files(self) -> Iterable[tuple[str, int]]:
        """Returns the name and size in bytes of every file read, for the recording's fingerprint."""
        ...

    def identity(self) -> dict[str, Any]:
        """Returns what determines the content besides the files, for the recording's fingerprint.

        The keys are fixed texts, also where the names in the code change. A value is a JSON value, a path or an array.
        """
        ...


@runtime_checkable
class AudioSource(Protocol):
    """A source of the audio samples of one microphone or track."""

    def timeline(self) -> AudioTimeline:
        """Returns the times of the audio samples without decoding all of them. Raises DataError."""
        ...

    def read(self, start: int, stop: int) -> NDArray[np.int16]:
        """Returns the audio samples [start, stop), int16, shape (stop - start, channels).

        Calls with ascending ranges are cheapest. Raises DataError.
        """
        ...

    def files(self) -> Iterable[tuple[str, int]]:
        """Returns the name and size in bytes of every file read, for the recording's fingerprint."""
        ...

    def identity(self) -> dict[str, Any]:
        """Returns what determines the content besides the files, for the recording's fingerprint.

        The keys are fixed texts, also where the names in the code change. A value is a JSON value, a path or an array.
        """
        ...


@runtime_checkable
class TableSource(Protocol):
    """A source of table rows of numbers, each with a timestamp."""

    def timestamps(self) -> Timestamps:
        """Returns the timestamps of all table rows. Raises DataError."""
        ...

    def columns(self) -> tuple[str, ...]:
        """Returns the names of the value columns. Raises DataError."""
        ...

    def values(self) -> NDArray[np.float64]:
        """Returns all values, float64, shape (n, columns), in file order. Raises DataError."""
        ...

    def files(self) -> Iterable[tuple[str, int]]:
        """Returns the name and size in bytes of every file read, for the recording's fingerprint."""
        ...

    def identity(self) -> dict[str, Any]:
        """Returns what determines the content besides the files, for the recording's fingerprint.

        The keys are fixed texts, also where the names in the code change. A value is a JSON value, a path or an array.
        """
        ...


@runtime_checkable
class TextSource(Protocol):
    """A source of texts, each valid for an interval."""

    def timestamps(self) -> Timestamps:
        """Returns the starts and ends of all texts. Raises DataError."""
        ...

    def texts(self) -> list[str]:
        """Returns all texts, in file order. Raises DataError."""
        ...

    def files(self) -> Iterable[tuple[str, int]]:
        """Returns the name and size in bytes of every file read, for the recording's fingerprint."""
        ...

    def identity(self) -> dict[str, Any]:
        """Returns what determines the content besides the files, for the recording's fingerprint.

        The keys are fixed texts, also where the names in the code change. A value is a JSON value, a path or an array.
        """
        ...


class TimestampSource(Protocol):
    """A source of timestamps without content, such as a trigger log or the frame times of an absent video."""

    def timestamps(self) -> Timestamps:
        """Returns all timestamps. Raises DataError."""
        ...

    def files(self) -> Iterable[tuple[str, int]]:
        """Returns the name and size in bytes of every file read, for the recording's fingerprint."""
        ...

    def identity(self) -> dict[str, Any]:
        """Returns what determines the content besides the files, for the recording's fingerprint.

        The keys are fixed texts, also where the names in the code change. A value is a JSON value, a path or an array.
        """
        ...


Source = FrameSource | AudioSource | TableSource | TextSource | TimestampSource


@dataclass(frozen=True)
class Stream:
    """One sensor or track of a recording.

    Attributes:
        name: lower-case name, unique in the recording.
        kind: kind of the items.
        clock: clock of the timestamps.
        source: reader of timestamps and media; it reads nothing before a method is called.
        semantics: point of an item's duration that its timestamp marks.
        nominal_offset_ns: intended distance of the items from the reference tick, positive for later items;
            None if not stated.
        latency_ns: known delay between event and timestamp; subtracted from every timestamp.
        nominal_period_ns: intended distance between consecutive items; None if not stated.
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
        """The timestamps minus the stated latency, on the stream's clock; for audio, the segment starts."""
        if isinstance(self.source, AudioSource):
            timeline = self.audio_timeline
            return Timestamps(timeline.t_ns, origin=timeline.origin)
        return self.source.timestamps().shift(-self.latency_ns)

    @cached_property
    def audio_timeline(self) -> AudioTimeline:
        """The audio timeline minus the stated latency. Raises DataError for a stream that is not audio."""
        if not isinstance(self.source, AudioSource):
            raise DataError("the stream has no audio samples", where=self.name)
        return self.source.timeline().shift(-self.latency_ns)


@dataclass(frozen=True)
class Recording:
    """One capture: several streams and their clocks.

    Attributes:
        name: unique name of characters [A-Za-z0-9_+-], used in keys and shard names.
        streams: streams by name, in a fixed order.
        maps: known relations between clocks.
        path: path of the recording, for messages.
        reference: preferred ticks, in the syntax of `sync.reference`; empty if the recording states none.
    """

    name: str
    streams: dict[str, Stream]
    maps: tuple[ClockMap, ...] = field(default=())
    path: str = ""
    reference: str = ""

    def stream(self, name: str) -> Stream:
        """Returns the stream called `name`. Raises DataError, which lists the existing names."""
        try:
            return self.streams[name.lower()]
        except KeyError:
            hint = f"Choose one of: {', '.join(self.streams)}." if self.streams else ""
            raise DataError(f"no stream '{name}'", where=self.path, hint=hint) from None

    def streams_of_kind(self, *kinds: StreamKind) -> list[Stream]:
        """Returns the streams of these kinds, in the order of `streams`."""
        return [stream for stream in self.streams.values() if stream.kind in kinds]
