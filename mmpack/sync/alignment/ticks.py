"""Reference ticks: the timestamps of a stream, a fixed rate, or the consensus of a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from mmpack.clock import pts_to_ns
from mmpack.errors import ConfigError, DataError
from mmpack.sync.alignment.align import AlignedStream

# A year at 3 Hz, or 28 hours at 1 kHz. Each tick takes some hundred bytes over all tables.
MAX_TICKS = 10**8
_ABSENT = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Ticks:
    """The reference times for which slices are built.

    Attributes:
        t_ns: int64, shape (T,), times on the reference's clock, ascending.
        description: source of the ticks in words, for reports.
        members: names of the streams that the ticks come from; empty for a fixed rate.
        period_ns: median distance of the ticks.
    """

    t_ns: NDArray[np.int64]
    description: str
    members: tuple[str, ...]
    period_ns: int


def ticks_from_stream(stream: AlignedStream) -> Ticks:
    """Returns the timestamps of one stream as ticks; rows with one timestamp or of one burst are one tick.

    Raises:
        DataError: the stream gives fewer than two ticks.
    """
    t_ns = stream.t_ns[stream.group_starts]
    if len(t_ns) < 2:
        raise DataError(
            f"the reference '{stream.name}' has fewer than two timestamps", hint="Choose another reference."
        )
    return Ticks(t_ns, f"stream {stream.name}", (stream.name,), stream.period_ns)


def ticks_at_rate(rate_hz: Fraction, streams: Sequence[AlignedStream]) -> Ticks:
    """Returns ticks at a fixed rate over the time that all `streams` cover: start + k / rate, each rounded once.

    Raises:
        DataError: no time is covered by all streams.
        ConfigError: the rate gives more than MAX_TICKS ticks.
    """
    start = max(int(stream.t_ns[0]) for stream in streams)
    period_ns = round(10**9 / rate_hz)
    stop = min(_last_tick(stream, period_ns) for stream in streams)
    count = int(Fraction(stop - start, 10**9) * rate_hz) + 1 if stop >= start else 0
    if count < 1:
        raise DataError(
            "the streams share no time in which a tick could be placed", hint="Check their clocks and units."
        )
    if count > MAX_TICKS:
        raise ConfigError(
            f"a rate of {rate_hz} Hz gives {count:,} ticks, more than {MAX_TICKS:,}",
            where="sync.reference",
            hint="Choose a lower rate.",
        )
    t_ns = pts_to_ns(np.arange(count, dtype=np.int64), 1 / rate_hz, start)
    return Ticks(t_ns, f"fixed rate of {rate_hz} Hz", (), period_ns)


def _last_tick(stream: AlignedStream, period_ns: int) -> int:
    """Returns the latest time of a tick for which the stream has data: the last timestamp, or for audio one tick
    period before the end of the samples.
    """
    last = stream.span_ns[1]
    return last - period_ns if stream.stream.kind == "audio" else last


def consensus_ticks(group: Sequence[AlignedStream], offsets_ns: Sequence[int]) -> Ticks:
    """Returns the consensus of a group: at each event the median of the members' timestamps minus their offsets.

    The median does not follow a single bad member, so only that member gets a large residual. Timestamps minus offsets
    are clustered in time: a gap of a third of the period separates two events. An event with items of fewer than half
    of the members is no tick.

    Args:
        group: members, all with the same rate.
        offsets_ns: nominal offset of each member in ns.

    Raises:
        DataError: the group has fewer than two events.
    """
    period_ns = int(np.median([member.period_ns for member in group]))
    shifted = [member.t_ns - offset for member, offset in zip(group, offsets_ns, strict=True)]
    merged = np.sort(np.concatenate(shifted))
    heads = np.concatenate([[0], np.flatnonzero(np.diff(merged) > period_ns // 3) + 1])
    tails = np.concatenate([heads[1:], [len(merged)]])
    centre = merged[(heads + tails - 1) // 2]
    table = np.full((len(heads), len(group)), _ABSENT, np.int64)
    for column, member_ns in enumerate(shifted):
        event = np.searchsorted(merged[heads], member_ns, side="right") - 1
        # If one member has several timestamps in an event, the one nearest to the centre counts: it is written last.
        order = np.argsort(-np.abs(member_ns - centre[event]), kind="stable")
        table[event[order], column] = member_ns[order]
    table.sort(axis=1)
    num_present = (table != _ABSENT).sum(axis=1)
    low = table[np.arange(len(table)), (num_present - 1) // 2]
    high = table[np.arange(len(table)), num_present // 2]
    t_ns = (low + (high - low) // 2)[2 * num_present >= len(group)]
    if len(t_ns) < 2:
        raise DataError(
            "fewer than two events have an item of at least half of the group",
            hint="Choose another reference.",
        )
    names = tuple(member.name for member in group)
    return Ticks(t_ns, f"consensus of {', '.join(names)}", names, int(np.median(np.diff(t_ns))))
