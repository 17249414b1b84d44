"""Clocks: their domains, the plausible ranges of timestamps, and a check that names a wrong unit or sentinel."""

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
_TIMESTAMP_UNITS = ("s", "ms", "us", "ns")

GPS_EPOCH_NS = int((_GPS_EPOCH - _POSIX_EPOCH).total_seconds()) * _S
"""POSIX nanoseconds of the GPS epoch, 1980-01-06T00:00:00 UTC."""


@dataclass(frozen=True)
class Domain:
    """A kind of clock, defined by the time from which it counts.

    Attributes:
        name: key of the domain in :data:`DOMAINS`.
        epoch: calendar time of timestamp 0; None for a clock without a calendar.
        low_ns, high_ns: smallest and largest plausible timestamp, both included.
        sentinels: timestamps inside the range that mean "no timestamp".
        description: meaning of the timestamps, one line for a report.
    """

    name: str
    epoch: datetime | None
    low_ns: int
    high_ns: int
    sentinels: tuple[int, ...]
    description: str


def _absolute_domain(name: str, epoch: datetime, description: str) -> Domain:
    low, high = (
        int((datetime(year, 1, 1, tzinfo=UTC) - epoch).total_seconds()) * _S for year in (1990, 2100)
    )
    return Domain(name, epoch, low, high, (), description)


def _relative_domain(name: str, sentinels: tuple[int, ...], description: str) -> Domain:
    return Domain(name, None, -_DAY_NS, 20 * 365 * _DAY_NS, sentinels, description)


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
            _relative_domain("device", (-1,), "ns since a sensor started, or since another start of its own"),
            # -1 ns is a possible media timestamp: a pts of -1024 samples plus the start time, rounded.
            _relative_domain("media", (), "ns since the start of a file; priming samples are before 0"),
        )
    }
)
"""Clock domains by name. The plausible range is 1990 .. 2100 with a calendar, -1 day .. 20 years without."""


@dataclass(frozen=True)
class Clock:
    """A clock of a recording.

    Attributes:
        name: name of the clock in the recording.
        domain: key of :data:`DOMAINS`.
        resolution_ns: smallest step of the timestamps, at least 1.

    Raises:
        ConfigError: the domain is unknown, or the resolution is below 1.
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
        """Returns a mask, bool, shape of `t_ns`: True for timestamps that cannot be true on this clock."""
        t = int64_array(t_ns)
        domain = DOMAINS[self.domain]
        return (t < domain.low_ns) | (t > domain.high_ns) | np.isin(t, domain.sentinels)

    def format(self, t_ns: int) -> str:
        """Formats a timestamp: date and time for a calendar clock (gps: without leap seconds), else seconds."""
        return _format_timestamp(DOMAINS[self.domain], t_ns)

    def check(self, t_ns: ArrayLike, *, where: str = "", unit: str = "ns") -> None:
        """Checks that every timestamp is plausible on this clock.

        The error names the number and the first of the implausible timestamps, and their probable cause: a sentinel
        (-1, 0, the ends of int64), numbers in another unit, or timestamps of another domain.

        Args:
            t_ns: int64 timestamps of any shape.
            where: file or stream, for the message.
            unit: unit from which the numbers were converted to nanoseconds.

        Raises:
            ClockError: a timestamp is implausible.
        """
        t = int64_array(t_ns).ravel()
        implausible = self.find_implausible(t)
        if not implausible.any():
            return
        rejected = t[implausible]
        out_of_range = rejected[~np.isin(rejected, list(_SENTINELS))]
        if out_of_range.size:
            message, hint = self._describe_out_of_range(t, implausible, out_of_range, unit)
        else:
            message, hint = _describe_sentinels(t, implausible)
        raise ClockError(message, where=where, hint=hint)

    def _describe_out_of_range(
        self, t: Int64Array, implausible: NDArray[np.bool_], out_of_range: Int64Array, unit: str
    ) -> tuple[str, str]:
        domain = DOMAINS[self.domain]
        index = int(np.flatnonzero(implausible & (t == out_of_range[0]))[0])
        first = int(t[index])
        message = (
            f"{_format_count(implausible)} outside the plausible {_format_range(domain)} of {self.domain} clock {self.name!r}; "
            f"the one at index {index} is {first} ns, {_format_timestamp(domain, first)}"
        )
        return message, self._suggest_cause(int(np.sort(out_of_range)[out_of_range.size // 2]), unit)

    def _suggest_cause(self, t_ns: int, unit: str) -> str:
        domain = DOMAINS[self.domain]
        raw = t_ns // unit_ns(unit)
        for other in _TIMESTAMP_UNITS:
            other_ns = raw * UNIT_NS[other]
            if other != unit and domain.low_ns <= other_ns <= domain.high_ns:
                return f"Read as {other} they would be {_format_timestamp(domain, other_ns, brief=True)}: declare this unit"
        for other in DOMAINS.values():
            if other is not domain and other.low_ns <= t_ns <= other.high_ns:
                text = _format_timestamp(other, t_ns, brief=True)
                return f"On a {other.name} clock they would be {text}: declare this domain"
        return "Check the unit and the clock of these timestamps"


_SENTINELS: dict[int, str] = {
    INT64_MIN: "the smallest int64 (NaT)",
    INT64_MAX: "the largest int64",
    0: "0",
    **{-UNIT_NS[unit]: f"-1 {unit}" for unit in _TIMESTAMP_UNITS},
}


def _describe_sentinels(t: Int64Array, implausible: NDArray[np.bool_]) -> tuple[str, str]:
    index = int(np.argmax(implausible))
    names = " or ".join(_SENTINELS[value] for value in np.unique(t[implausible]).tolist())
    message = (
        f"{_format_count(implausible)} {names}, a sentinel for 'no timestamp' (the first at index {index})"
    )
    return message, "Remove the rows without a time, or write their true timestamps"


def _format_count(implausible: NDArray[np.bool_]) -> str:
    count = int(implausible.sum())
    return f"{count:,} of {implausible.size:,} timestamps {'is' if count == 1 else 'are'}"


def _format_range(domain: Domain) -> str:
    return "-1 day .. 20 years" if domain.epoch is None else "1990 .. 2100"


def _format_timestamp(domain: Domain, t_ns: int, *, brief: bool = False) -> str:
    seconds, rest_ns = divmod(int(t_ns), _S)
    if domain.epoch is None:
        return f"{seconds:,} s" if brief else f"{Decimal(int(t_ns)).scaleb(-9):.9f} s"
    date = domain.epoch + timedelta(seconds=seconds)
    return f"{date:%Y-%m-%d}" if brief else f"{date:%Y-%m-%dT%H:%M:%S}.{rest_ns:09d}"
