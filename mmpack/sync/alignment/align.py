"""Stamps made fit for matching: on the reference's clock, ascending, with what had to be set aside counted
and kept.
"""

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

#: Kinds where two items at one stamp are one item twice. Tables may hold several rows of one moment (radar
# tracks).
_ONE_PER_STAMP = frozenset({"camera", "lidar", "event"})
#: Domains whose relation is a matter of definition.
_CALENDARS = frozenset({"utc", "tai", "gps"})
_BURST_FACTOR = 10
_BURST_SHARE = 0.02


@dataclass(frozen=True)
class AlignedStream:
    """One stream, ready to be matched.

    Attributes:
        stream: the stream.
        t_ns: int64, shape (m,), ascending, on the reference's clock.
        items: int64, shape (m,), item number in file order of each stamp.
        end_ns: int64, shape (m,), ends of lasting items; None for instants.
        implausible: int64, item numbers whose stamp cannot be a time on its clock.
        backward: int64, item numbers that break the order: the fewest whose removal leaves the rest
            ascending.
        duplicate: int64, item numbers whose stamp equals the one before; none for texts.
        route: the maps that led from the stream's clock to the reference's.
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
        """Moments of the reference's clock on the stream's own, int64 of the same shape."""
        return apply_clock_maps([step.inverse() for step in reversed(self.clock_maps)], t_ns)

    @cached_property
    def group_starts(self) -> NDArray[np.int64]:
        """int64: positions in `t_ns` where an instant or a burst of rows begins.

        A radar writes the tracks of one sweep within a millisecond and is silent for fifty: its rate is that
        of the sweeps. A stream is taken for such a one if more than one step in fifty is ten times the median
        step.
        """
        steps = np.diff(self.t_ns)
        positive = steps[steps > 0]
        limit = 0
        if len(positive) and self.stream.kind not in _ONE_PER_STAMP:
            long = _BURST_FACTOR * int(np.median(positive))
            limit = long if np.mean(positive > long) > _BURST_SHARE else 0
        return np.concatenate([[0], np.flatnonzero(steps > limit) + 1])

    @cached_property
    def period_ns(self) -> int:
        """Median distance of instants (or bursts); 0 with fewer than two."""
        steps = np.diff(self.t_ns[self.group_starts])
        return int(np.median(steps)) if len(steps) else 0

    @property
    def span_ns(self) -> tuple[int, int]:
        """First stamp, and where the last item ends: for audio the end of the last segment, for texts the
        latest end.
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
        """The stream's name."""
        return self.stream.name


def align_stream(
    stream: Stream, recording: Recording, target: Clock, *, max_backward: float
) -> AlignedStream:
    """`stream` on the clock `target`, cleaned.

    Args:
        stream: stream of `recording`.
        recording: holds the maps between clocks.
        target: clock of the reference.
        max_backward: largest share of stamps out of order.

    Raises:
        ClockError: all stamps are implausible (wrong unit or epoch), or no map leads to `target`.
        DataError: no items, or more stamps out of order than `max_backward`.
    """
    where = f"{recording.path}, stream '{stream.name}'"
    stamps = stream.timestamps
    if not len(stamps):
        raise DataError("has no items", where=where, hint="Remove the stream or correct its path.")
    bad = stream.clock.find_implausible(stamps.t_ns)
    if bad.mean() > 0.5:
        stream.clock.check(stamps.t_ns, where=where, unit=stamps.unit)
    items = np.flatnonzero(~bad)
    t_ns = stamps.t_ns[items]
    end_ns = None if stamps.end_ns is None else stamps.end_ns[items]
    backward = np.empty(0, np.int64)
    if stream.kind == "text":
        order = np.argsort(t_ns, kind="stable")
        t_ns, items = t_ns[order], items[order]
        end_ns = None if end_ns is None else end_ns[order]
    elif np.any(np.diff(t_ns) < 0):
        keep = longest_non_descending(t_ns)
        backward = np.delete(items, keep)
        if len(backward) > max(1, max_backward * len(items)):
            drops = np.diff(t_ns)
            worst = int(np.argmin(drops))
            raise DataError(
                f"{len(backward)} of {len(items)} stamps are out of order (worst: item {items[worst + 1]} lies "
                f"{-drops[worst] / 1e6:.3f} ms before the one ahead of it)",
                where=where,
                hint="The stamps are not of one clock: repair them, or raise sync.max_backward.",
            )
        t_ns, items = t_ns[keep], items[keep]
    # Two people may begin to speak at once: texts of one stamp are two texts.
    duplicate = items[1:][np.diff(t_ns) == 0] if stream.kind != "text" else np.empty(0, np.int64)
    if len(duplicate) and stream.kind in _ONE_PER_STAMP:
        first = np.concatenate([[True], np.diff(t_ns) > 0])
        t_ns, items = t_ns[first], items[first]
    route = _find_clock_maps(stream.clock, target, recording, t_ns, where=where)
    end_ns = None if end_ns is None else apply_clock_maps(route, end_ns)
    return AlignedStream(
        stream, apply_clock_maps(route, t_ns), items, end_ns, np.flatnonzero(bad), backward, duplicate, route
    )


def apply_clock_maps(route: Sequence[ClockMap], t_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """`t_ns` carried over all maps of `route`, int64 of the same shape."""
    for step in route:
        t_ns = step.apply(t_ns)
    return t_ns


def longest_non_descending(t_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of a longest non-descending subsequence of `t_ns` (patience sorting, O(n log n)), ascending."""
    tails: list[int] = []  # smallest value that ends a subsequence of each length
    tail_at: list[int] = []
    before = np.full(len(t_ns), -1, np.int64)
    for position, value in enumerate(t_ns.tolist()):
        length = bisect_right(tails, value)
        before[position] = tail_at[length - 1] if length else -1
        if length == len(tails):
            tails.append(value)
            tail_at.append(position)
        else:
            tails[length] = value
            tail_at[length] = position
    kept: list[int] = []
    position = tail_at[-1] if tail_at else -1
    while position >= 0:
        kept.append(position)
        position = int(before[position])
    return np.array(kept[::-1], np.int64)


def _find_clock_maps(
    source: Clock, target: Clock, recording: Recording, t_ns: NDArray[np.int64], *, where: str
) -> tuple[ClockMap, ...]:
    """The fewest maps that lead from one clock to the other. Clocks are never mixed without one."""
    given = [*recording.maps, *(known.inverse() for known in recording.maps)]
    routes: list[tuple[str, tuple[ClockMap, ...]]] = [(source.name, ())]
    seen = {source.name}
    for name, route in routes:  # breadth first: the list grows while it is walked
        if name == target.name:
            return route
        for step in given:
            if step.source == name and step.target not in seen:
                seen.add(step.target)
                routes.append((step.target, (*route, step)))
    if {source.domain, target.domain} <= _CALENDARS:
        return (leap_second_map(source.domain, target.domain, t_ns),)
    raise ClockError(
        f"is on clock '{source.name}' ({source.domain}) and the reference on '{target.name}' ({target.domain})",
        where=where,
        hint=f'Add [[clock_maps]] source = "{source.name}", target = "{target.name}", offset or pairs.',
    )
