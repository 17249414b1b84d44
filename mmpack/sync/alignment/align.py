"""Aligns a stream: timestamps on the reference's clock, in ascending order, and a record of every discarded item."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mmpack.clock import Clock, ClockMap, leap_second_map
from mmpack.errors import ClockError, DataError
from mmpack.recording import Recording, Stream

#: Kinds for which two items with one timestamp are the same item twice. Tables may hold several rows with one
#: timestamp (radar tracks).
_UNIQUE_KINDS = frozenset({"camera", "lidar", "event"})
#: Clock domains whose relation is fixed by definition, so that no clock map is needed between them.
_CALENDAR_DOMAINS = frozenset({"utc", "tai", "gps"})
# A step above _BURST_FACTOR median steps separates two bursts, if more than a share of _BURST_SHARE of the steps is
# that long.
_BURST_FACTOR = 10
_BURST_SHARE = 0.02


@dataclass(frozen=True, kw_only=True)
class AlignedStream:
    """One stream, aligned and ready for matching.

    Attributes:
        stream: the stream.
        t_ns: int64, shape (m,), timestamps on the reference's clock, ascending.
        items: int64, shape (m,), index of each item in file order.
        end_ns: int64, shape (m,), ends of items that have a duration; None for instants.
        implausible: int64, indices of discarded items whose timestamp cannot be a time on its clock.
        backward: int64, indices of discarded items that break the order: the fewest whose removal leaves the rest
            ascending.
        duplicate: int64, indices of items whose timestamp equals the previous one; discarded for cameras, lidars and
            events only. Empty for texts.
        clock_maps: clock maps from the stream's clock to the reference's, in the order of application.
    """

    stream: Stream
    t_ns: NDArray[np.int64]
    items: NDArray[np.int64]
    end_ns: NDArray[np.int64] | None = None
    implausible: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    backward: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    duplicate: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    clock_maps: tuple[ClockMap, ...] = ()

    def to_own_clock(self, t_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Converts times of the reference's clock to the stream's own clock; int64 of the same shape."""
        return apply_clock_maps([clock_map.inverse() for clock_map in reversed(self.clock_maps)], t_ns)

    @cached_property
    def group_starts(self) -> NDArray[np.int64]:
        """The indices in `t_ns` at which an instant or a burst of rows begins, int64.

        A radar writes the tracks of one sweep within a millisecond and then nothing for fifty milliseconds: its rate
        is the rate of the sweeps. A stream is treated as such if more than one step in fifty exceeds ten median steps.
        """
        steps = np.diff(self.t_ns)
        positive = steps[steps > 0]
        limit = 0
        if len(positive) and self.stream.kind not in _UNIQUE_KINDS:
            long = _BURST_FACTOR * int(np.median(positive))
            limit = long if np.mean(positive > long) > _BURST_SHARE else 0
        return np.concatenate([[0], np.flatnonzero(steps > limit) + 1])

    @cached_property
    def period_ns(self) -> int:
        """The median distance of instants (or bursts) in ns; 0 with fewer than two."""
        steps = np.diff(self.t_ns[self.group_starts])
        return int(np.median(steps)) if len(steps) else 0

    @property
    def span_ns(self) -> tuple[int, int]:
        """The first timestamp and the end of the last item: the end of the last segment for audio, the latest end
        for texts, the last timestamp otherwise.
        """
        last = int(self.t_ns[-1])
        if self.stream.kind == "audio":
            timeline = self.stream.audio_timeline
            end_ns = timeline.t_ns[-1:] + int(timeline.samples[-1]) * 10**9 // timeline.rate_hz
            last = int(apply_clock_maps(self.clock_maps, end_ns)[0])
        if self.end_ns is not None:
            last = max(last, int(self.end_ns.max()))
        return int(self.t_ns[0]), last

    @property
    def name(self) -> str:
        """The name of the stream."""
        return self.stream.name


def align_stream(
    stream: Stream, recording: Recording, target: Clock, *, max_backward: float
) -> AlignedStream:
    """Maps `stream` to the clock `target` and discards implausible, backward and duplicate timestamps.

    Args:
        stream: stream of `recording`.
        recording: recording with the clock maps.
        target: clock of the reference.
        max_backward: largest share of timestamps that may be out of order.

    Raises:
        ClockError: more than half of the timestamps are implausible (wrong unit or epoch), or no clock map leads to
            `target`.
        DataError: the stream has no items, or more timestamps than `max_backward` are out of order.
    """
    where = f"{recording.path}, stream '{stream.name}'"
    timestamps = stream.timestamps
    if not len(timestamps):
        raise DataError("the stream has no items", where=where, hint="Remove the stream or correct its path.")
    implausible = stream.clock.find_implausible(timestamps.t_ns)
    if implausible.mean() > 0.5:
        stream.clock.check(timestamps.t_ns, where=where, unit=timestamps.unit)
    items = np.flatnonzero(~implausible)
    t_ns = timestamps.t_ns[items]
    end_ns = None if timestamps.end_ns is None else timestamps.end_ns[items]
    backward = np.empty(0, np.int64)
    if stream.kind == "text":
        order = np.argsort(t_ns, kind="stable")
        t_ns, items = t_ns[order], items[order]
        end_ns = None if end_ns is None else end_ns[order]
    elif np.any(np.diff(t_ns) < 0):
        keep = longest_non_descending(t_ns)
        backward = np.delete(items, keep)
        if len(backward) > max(1, max_backward * len(items)):
            steps = np.diff(t_ns)
            worst = int(np.argmin(steps))
            raise DataError(
                f"{len(backward)} of {len(items)} timestamps are out of order (worst: item {items[worst + 1]} is "
                f"{-steps[worst] / 1e6:.3f} ms earlier than the previous item)",
                where=where,
                hint="Repair the timestamps, which may come from several clocks, or raise sync.max_backward.",
            )
        t_ns, items = t_ns[keep], items[keep]
    # Two people may begin to speak at the same time: two texts with one timestamp are no duplicate.
    duplicate = items[1:][np.diff(t_ns) == 0] if stream.kind != "text" else np.empty(0, np.int64)
    if len(duplicate) and stream.kind in _UNIQUE_KINDS:
        first = np.concatenate([[True], np.diff(t_ns) > 0])
        t_ns, items = t_ns[first], items[first]
    clock_maps = _find_clock_maps(stream.clock, target, recording, t_ns, where=where)
    return AlignedStream(
        stream=stream,
        t_ns=apply_clock_maps(clock_maps, t_ns),
        items=items,
        end_ns=None if end_ns is None else apply_clock_maps(clock_maps, end_ns),
        implausible=np.flatnonzero(implausible),
        backward=backward,
        duplicate=duplicate,
        clock_maps=clock_maps,
    )


def apply_clock_maps(clock_maps: Sequence[ClockMap], t_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Applies all `clock_maps` to `t_ns`, in order; int64 of the same shape."""
    for clock_map in clock_maps:
        t_ns = clock_map.apply(t_ns)
    return t_ns


def longest_non_descending(t_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the indices of a longest non-descending subsequence of `t_ns`, ascending, int64.

    Patience sorting, O(n log n).
    """
    tails: list[int] = []  # smallest value that ends a subsequence of each length
    tail_indices: list[int] = []
    previous = np.full(len(t_ns), -1, np.int64)
    for index, value in enumerate(t_ns.tolist()):
        length = bisect_right(tails, value)
        previous[index] = tail_indices[length - 1] if length else -1
        if length == len(tails):
            tails.append(value)
            tail_indices.append(index)
        else:
            tails[length] = value
            tail_indices[length] = index
    subsequence: list[int] = []
    index = tail_indices[-1] if tail_indices else -1
    while index >= 0:
        subsequence.append(index)
        index = int(previous[index])
    return np.array(subsequence[::-1], np.int64)


def _find_clock_maps(
    source: Clock, target: Clock, recording: Recording, t_ns: NDArray[np.int64], *, where: str
) -> tuple[ClockMap, ...]:
    """Returns the shortest sequence of clock maps from `source` to `target`.

    Raises:
        ClockError: no sequence leads to `target`. Clocks are never mixed without a map.
    """
    available = [*recording.maps, *(clock_map.inverse() for clock_map in recording.maps)]
    paths: list[tuple[str, tuple[ClockMap, ...]]] = [(source.name, ())]
    visited = {source.name}
    for name, path in paths:  # breadth-first search: the list grows during the iteration
        if name == target.name:
            return path
        for clock_map in available:
            if clock_map.source == name and clock_map.target not in visited:
                visited.add(clock_map.target)
                paths.append((clock_map.target, (*path, clock_map)))
    if {source.domain, target.domain} <= _CALENDAR_DOMAINS:
        return (leap_second_map(source.domain, target.domain, t_ns),)
    raise ClockError(
        f"the stream is on clock '{source.name}' ({source.domain}), the reference on clock '{target.name}' "
        f"({target.domain}), and no clock map connects them",
        where=where,
        hint=f'Add [[clock_maps]] with source = "{source.name}", target = "{target.name}", and offset or pairs.',
    )
