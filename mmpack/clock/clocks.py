"""What stamps count from: clock domains, plausible ranges, the check that names a wrong unit or sentinel."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmpack.clock._int64 import INT64_MAX, INT64_MIN, Int64Array, int64_array
from mmpack.clock.convert import UNIT_NS, unit_ns
from mmpack.errors import ClockError, ConfigError

_S = UNIT_NS["s"]
_DAY_NS = 24 * UNIT_NS["h"]
_POSIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_GPS_EPOCH = datetime(1980, 1, 6, tzinfo=UTC)
_STAMP_UNITS = ("s", "ms", "us", "ns")

GPS_EPOCH_NS = int((_GPS_EPOCH - _POSIX_EPOCH).total_seconds()) * _S
"""POSIX nanoseconds of the GPS epoch, 1980-01-06T00:00:00 UTC."""


@dataclass(frozen=True)
class Domain:
    """What a kind of clock counts from.

    Attributes:
        name: the domain's key in :data:`DOMAINS`.
        epoch: the calendar time of stamp 0; None for a clock without a calendar.
        low_ns, high_ns: the plausible stamps, both ends included.
        sentinels: stamps inside the range that stand for "no stamp".
        about: one line for a report.
    """

    name: str
    epoch: datetime | None
    low_ns: int
    high_ns: int
    sentinels: tuple[int, ...]
    description: str


def _absolute_domain(name: str, epoch: datetime, about: str) -> Domain:
    low, high = (
        int((datetime(year, 1, 1, tzinfo=UTC) - epoch).total_seconds()) * _S for year in (1990, 2100)
    )
    return Domain(name, epoch, low, high, (), about)


def _relative_domain(name: str, sentinels: tuple[int, ...], about: str) -> Domain:
    return Domain(name, None, -_DAY_NS, 20 * 365 * _DAY_NS, sentinels, about)


DOMAINS: Mapping[str, Domain] = MappingProxyType(
    {
        domain.name: domain
        for domain in (
            _absolute_domain(
                "utc", _POSIX_EPOCH, "POSIX time: ns since 1970-01-01 UTC, leap seconds not counted"
            ),
            _absolute_domain(
                "tai", _POSIX_EPOCH, "atomic time: ns since 1970-01-01 TAI, leap seconds counted"
            ),
            _absolute_domain("gps", _GPS_EPOCH, "GPS time: ns since 1980-01-06 UTC, leap seconds counted"),
            _relative_domain("boot", (-1,), "ns since a machine started"),
            _relative_domain(
                "device", (-1,), "ns since a sensor started, or from any other start of its own"
            ),
            # A true media stamp of -1 ns exists: a pts of -1024 samples plus its start, rounded.
            _relative_domain("media", (), "ns since the start of a file; priming samples lie before 0"),
        )
    }
)
"""The clock domains by name. Plausible are 1990 .. 2100 with a calendar, -1 day .. 20 years without."""


@dataclass(frozen=True)
class Clock:
    """A clock that stamps count on.

    Attributes:
        name: what the recording calls it.
        domain: a key of :data:`DOMAINS`.
        resolution_ns: the step of its stamps, at least 1.

    Raises:
        ConfigError: unknown domain, or a resolution below 1.
    """

    name: str
    domain: str
    resolution_ns: int = 1

    def __post_init__(self) -> None:
        if self.domain not in DOMAINS:
            near = difflib.get_close_matches(self.domain, DOMAINS, n=1)
            hint = f"Did you mean '{near[0]}'? " if near else ""
            raise ConfigError(
                f"unknown clock domain {self.domain!r}",
                where=f"clock {self.name!r}",
                hint=f"{hint}Domains are {', '.join(DOMAINS)}",
            )
        if self.resolution_ns < 1:
            raise ConfigError(
                f"a resolution of {self.resolution_ns} ns is below 1", where=f"clock {self.name!r}"
            )

    def find_implausible(self, t_ns: ArrayLike) -> NDArray[np.bool_]:
        """Mask, of the shape of `t_ns`, of the stamps that cannot be true on this clock."""
        t = int64_array(t_ns)
        domain = DOMAINS[self.domain]
        return (t < domain.low_ns) | (t > domain.high_ns) | np.isin(t, domain.sentinels)

    def format(self, t_ns: int) -> str:
        """A stamp for a screen: date and time if there is a calendar (gps: no leap seconds), else seconds."""
        return _format_timestamp(DOMAINS[self.domain], t_ns)

    def check(self, t_ns: ArrayLike, *, where: str = "", unit: str = "ns") -> None:
        """Raise :class:`ClockError` if any stamp is implausible on this clock.

        The error says how many and which, and what they probably are: a sentinel (-1, 0, the ends of int64),
        the same numbers in another unit, or stamps of another domain.

        Args:
            t_ns: int64 stamps of any shape.
            where: file or stream, for the message.
            unit: the unit the numbers were read as, before they became nanoseconds.
        """
        t = int64_array(t_ns).ravel()
        bad = self.find_implausible(t)
        if not bad.any():
            return
        wrong = t[bad]
        strange = wrong[~np.isin(wrong, list(_SENTINELS))]
        if strange.size:
            what, mend = self._out_of_range(t, bad, strange, unit)
        else:
            what, mend = _find_sentinel(t, bad)
        raise ClockError(what, where=where, hint=mend)

    def _out_of_range(
        self, t: Int64Array, bad: NDArray[np.bool_], strange: Int64Array, unit: str
    ) -> tuple[str, str]:
        domain = DOMAINS[self.domain]
        index = int(np.flatnonzero(bad & (t == strange[0]))[0])
        first = int(t[index])
        what = (
            f"{_format_count(bad)} outside the plausible {_format_range(domain)} of {self.domain} clock {self.name!r}; "
            f"the one at index {index} is {first} ns, {_format_timestamp(domain, first)}"
        )
        return what, self._guess(int(np.sort(strange)[strange.size // 2]), unit)

    def _guess(self, t_ns: int, unit: str) -> str:
        domain = DOMAINS[self.domain]
        raw = t_ns // unit_ns(unit)
        for other in _STAMP_UNITS:
            read = raw * UNIT_NS[other]
            if other != unit and domain.low_ns <= read <= domain.high_ns:
                return f"Read as {other} they would be {_format_timestamp(domain, read, brief=True)}: declare that unit"
        for other in DOMAINS.values():
            if other is not domain and other.low_ns <= t_ns <= other.high_ns:
                seen = _format_timestamp(other, t_ns, brief=True)
                return f"On a {other.name} clock they would be {seen}: declare that domain"
        return "Check the unit and the clock of these stamps"


_SENTINELS: dict[int, str] = {
    INT64_MIN: "the smallest int64 (NaT)",
    INT64_MAX: "the largest int64",
    0: "0",
    **{-UNIT_NS[unit]: f"-1 {unit}" for unit in _STAMP_UNITS},
}


def _find_sentinel(t: Int64Array, bad: NDArray[np.bool_]) -> tuple[str, str]:
    index = int(np.argmax(bad))
    names = [_SENTINELS[value] for value in np.unique(t[bad]).tolist()]
    what = (
        f"{_format_count(bad)} {' or '.join(names)}, a sentinel for 'no stamp' (the first at index {index})"
    )
    return what, "Remove the rows without a time, or give them their true stamps"


def _format_count(bad: NDArray[np.bool_]) -> str:
    count = int(bad.sum())
    return f"{count:,} of {bad.size:,} stamps {'is' if count == 1 else 'are'}"


def _format_range(domain: Domain) -> str:
    return "-1 day .. 20 years" if domain.epoch is None else "1990 .. 2100"


def _format_timestamp(domain: Domain, t_ns: int, *, brief: bool = False) -> str:
    whole, part = divmod(int(t_ns), _S)
    if domain.epoch is None:
        return f"{whole:,} s" if brief else f"{Decimal(int(t_ns)).scaleb(-9):.9f} s"
    moment = domain.epoch + timedelta(seconds=whole)
    return f"{moment:%Y-%m-%d}" if brief else f"{moment:%Y-%m-%dT%H:%M:%S}.{part:09d}"
