"""Exact relations between UTC, TAI and GPS time, leap seconds included."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime

from numpy.typing import ArrayLike

from mmpack.clock._int64 import int64_array
from mmpack.clock.clocks import DOMAINS, GPS_EPOCH_NS
from mmpack.clock.convert import UNIT_NS
from mmpack.clock.maps import ClockMap
from mmpack.errors import ClockError

_S = UNIT_NS["s"]
_TAI_MINUS_GPS_S = 19  # constant, because GPS time has had no leap seconds since its epoch in 1980

# Year, month (day 1), and TAI - UTC in seconds from this day on: IERS Bulletin C. Add an entry for each new leap second.
_LEAP_SECONDS = (
    (1972, 1, 10), (1972, 7, 11), (1973, 1, 12), (1974, 1, 13), (1975, 1, 14), (1976, 1, 15), (1977, 1, 16),
    (1978, 1, 17), (1979, 1, 18), (1980, 1, 19), (1981, 7, 20), (1982, 7, 21), (1983, 7, 22), (1985, 7, 23),
    (1988, 1, 24), (1990, 1, 25), (1991, 1, 26), (1992, 7, 27), (1993, 7, 28), (1994, 7, 29), (1996, 1, 30),
    (1997, 7, 31), (1999, 1, 32), (2006, 1, 33), (2009, 1, 34), (2012, 7, 35), (2015, 7, 36), (2017, 1, 37),
)  # fmt: skip
_TAI_MINUS_UTC_NS = [seconds * _S for _, _, seconds in _LEAP_SECONDS]
_FROM_UTC_NS = [
    int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * _S for year, month, _ in _LEAP_SECONDS
]
_FROM_TAI_NS = [start + offset for start, offset in zip(_FROM_UTC_NS, _TAI_MINUS_UTC_NS, strict=True)]


def leap_second_map(source_domain: str, target_domain: str, t_ns: ArrayLike) -> ClockMap:
    """Returns the exact map between two of utc, tai and gps, with the leap seconds in force at `t_ns`.

    TAI - GPS is always 19 s; GPS - UTC has been 18 s since 2017-01-01. During a leap second UTC repeats a second, as
    POSIX time does.

    Args:
        source_domain, target_domain: "utc", "tai" or "gps"; also the names of the clocks of the map.
        t_ns: one or more timestamps of the source domain; the earliest and the latest decide.

    Raises:
        ClockError: a domain is not one of the three, there is no timestamp or one before 1972, or a leap second is
            between the first and the last timestamp.
    """
    where = f"clock map {source_domain} -> {target_domain}"
    for name in (source_domain, target_domain):
        if name not in ("utc", "tai", "gps"):
            reason = "has no fixed relation to other clocks" if name in DOMAINS else "is not a clock domain"
            raise ClockError(
                f"{name!r} {reason}", where=where, hint="Give the offset, or pairs of timestamps to fit it"
            )
    t = int64_array(t_ns)
    if t.size == 0:
        raise ClockError(
            "the leap seconds in force depend on the date, but there is no timestamp", where=where
        )
    first, last = (_shift_ns(source_domain, target_domain, int(end), where) for end in (t.min(), t.max()))
    if first != last:
        raise ClockError(
            "a leap second is between the first and the last timestamp",
            where=where,
            hint="Map the timestamps before and after the leap second separately",
        )
    return ClockMap(source=source_domain, target=target_domain, anchor_source_ns=0, anchor_target_ns=first)


def _shift_ns(source: str, target: str, t_ns: int, where: str) -> int:
    to_tai = _tai_offset_ns(source, t_ns, _FROM_UTC_NS, where)
    return to_tai - _tai_offset_ns(target, t_ns + to_tai, _FROM_TAI_NS, where)


def _tai_offset_ns(domain: str, t_ns: int, leaps_ns: list[int], where: str) -> int:
    """Returns TAI minus `domain` at `t_ns`, in ns.

    Args:
        domain: "utc", "tai" or "gps".
        t_ns: time on the clock of `leaps_ns`.
        leaps_ns: times at which the entries of `_LEAP_SECONDS` begin, in UTC or TAI.
        where: clock map, for the message of an error.
    """
    if domain == "tai":
        return 0
    if domain == "gps":
        return GPS_EPOCH_NS + _TAI_MINUS_GPS_S * _S
    in_force = bisect_right(leaps_ns, t_ns) - 1
    if in_force < 0:
        raise ClockError("UTC has had whole leap seconds only since 1972", where=where, hint="Check the unit")
    return _TAI_MINUS_UTC_NS[in_force]
