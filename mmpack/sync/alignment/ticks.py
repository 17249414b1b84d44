"""The reference ticks: a stream's stamps, a fixed rate, or the consensus of a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from mmpack.clock import pts_to_ns
from mmpack.errors import ConfigError, DataError
from mmpack.sync.alignment.align import AlignedStream

# A year at 3 Hz, 28 hours at 1 kHz; each tick takes some hundred bytes over all tables.
MAX_TICKS = 10**8
_NONE = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Ticks:
    """The moments that slices are made for.

    Attributes:
        t_ns: int64, shape (T,), ascending.
        description: what they are, for reports.
        members: names of the streams that they come from; empty for a fixed rate.
        period_ns: median distance.
    """

    t_ns: NDArray[np.int64]
    description: str
    members: tuple[str, ...]
    period_ns: int


def ticks_from_stream(stream: AlignedStream) -> Ticks:
    """The stamps of one stream; rows of one moment or burst are one tick. Raises DataError with fewer than
    two.
    """
    t_ns = stream.t_ns[stream.group_starts]
    if len(t_ns) < 2:
        raise DataError(
            f"the reference '{stream.name}' has fewer than two stamps", hint="Choose another reference."
        )
    return Ticks(t_ns, f"stream {stream.name}", (stream.name,), stream.period_ns)


def ticks_at_rate(rate_hz: Fraction, streams: Sequence[AlignedStream]) -> Ticks:
    """Ticks at a fixed rate over the time that all `streams` cover: start + k / rate, each rounded once.

    Raises:
        DataError: there is no such time.
        ConfigError: the rate makes more than MAX_TICKS ticks.
    """
    start = max(int(stream.t_ns[0]) for stream in streams)
    period_ns = round(10**9 / rate_hz)
    stop = min(_last_tick(stream, period_ns) for stream in streams)
    count = int(Fraction(stop - start, 10**9) * rate_hz) + 1 if stop >= start else 0
    if count < 1:
        raise DataError(
            "the streams share no time that a tick could lie in", hint="Check their clocks and units."
        )
    if count > MAX_TICKS:
        raise ConfigError(
            f"a rate of {rate_hz} Hz makes {count:,} ticks, more than {MAX_TICKS:,}",
            where="sync.reference",
            hint="Choose a lower rate.",
        )
    t_ns = pts_to_ns(np.arange(count, dtype=np.int64), 1 / rate_hz, start)
    return Ticks(t_ns, f"fixed rate of {rate_hz} Hz", (), period_ns)


def _last_tick(stream: AlignedStream, period_ns: int) -> int:
    """The last moment a tick can be served: the last stamp, or for audio one tick period before the samples
    end.
    """
    last = stream.span_ns[1]
    return last - period_ns if stream.stream.kind == "audio" else last


def consensus_ticks(group: Sequence[AlignedStream], offsets_ns: Sequence[int]) -> Ticks:
    """The consensus of a group: at each event the median of its members' stamps less their offsets.

    One bad member accuses itself and not the others: the median does not follow it. Stamps less their offsets
    are clustered in time, a gap of a third of the period parts two events; an event seen by fewer than half
    of the members is no tick.

    Args:
        group: the members, all at the same rate.
        offsets_ns: nominal offset of each.

    Raises:
        DataError: fewer than two events.
    """
    period_ns = int(np.median([member.period_ns for member in group]))
    shifted = [member.t_ns - offset for member, offset in zip(group, offsets_ns, strict=True)]
    merged = np.sort(np.concatenate(shifted))
    heads = np.concatenate([[0], np.flatnonzero(np.diff(merged) > period_ns // 3) + 1])
    tails = np.concatenate([heads[1:], [len(merged)]])
    centre = merged[(heads + tails - 1) // 2]
    table = np.full((len(heads), len(group)), _NONE, np.int64)
    for column, stamps in enumerate(shifted):
        event = np.searchsorted(merged[heads], stamps, side="right") - 1
        # Of several stamps of one member in an event the one nearest to its centre stands for it: written
        # last.
        order = np.argsort(-np.abs(stamps - centre[event]), kind="stable")
        table[event[order], column] = stamps[order]
    table.sort(axis=1)
    seen = (table != _NONE).sum(axis=1)
    low = table[np.arange(len(table)), (seen - 1) // 2]
    high = table[np.arange(len(table)), seen // 2]
    t_ns = (low + (high - low) // 2)[2 * seen >= len(group)]
    if len(t_ns) < 2:
        raise DataError("fewer than two moments that half of the group saw", hint="Choose another reference.")
    names = tuple(member.name for member in group)
    return Ticks(t_ns, f"consensus of {', '.join(names)}", names, int(np.median(np.diff(t_ns))))
