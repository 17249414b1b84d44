"""Clock domains: plausible timestamps, sentinels, and the causes that an error names."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpack.clock import DOMAINS, Clock, integers_to_ns
from mmpack.errors import ClockError, ConfigError

S = 10**9
DAY = 86_400 * S
NOW = int(datetime(2018, 9, 18, 12, tzinfo=UTC).timestamp()) * S
GPS_NOW = NOW - int(datetime(1980, 1, 6, tzinfo=UTC).timestamp()) * S
PLAUSIBLE = {"utc": NOW, "tai": NOW, "gps": GPS_NOW, "boot": 46_408 * S, "device": 0, "media": -21_333_333}


@pytest.mark.parametrize("domain", DOMAINS)
def test_plausible_timestamps_pass(domain: str) -> None:
    timestamps = PLAUSIBLE[domain] + np.arange(0, 10 * S, S)
    Clock("c", domain).check(timestamps)
    assert not Clock("c", domain).find_implausible(timestamps).any()


@given(st.sampled_from(sorted(DOMAINS)), st.integers(-(2**63), 2**63 - 1))
def test_check_raises_exactly_for_the_masked_timestamps(domain: str, t_ns: int) -> None:
    clock = Clock("c", domain)
    limits = DOMAINS[domain]
    outside = not limits.low_ns <= t_ns <= limits.high_ns or t_ns in limits.sentinels
    assert clock.find_implausible(np.array([t_ns])).tolist() == [outside]
    if outside:
        with pytest.raises(ClockError):
            clock.check(t_ns)
    else:
        clock.check(t_ns)


def test_the_mask_has_the_shape_of_the_timestamps() -> None:
    timestamps = np.array([[NOW, -1], [0, NOW]])
    assert Clock("c", "utc").find_implausible(timestamps).tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize(("unit", "per_s"), [("s", 1), ("ms", 10**3), ("us", 10**6)])
def test_the_error_names_a_unit_that_was_read_as_ns(unit: str, per_s: int) -> None:
    timestamps = np.full(5, NOW // S * per_s)
    with pytest.raises(ClockError, match=f"Read as {unit} they would be 2018-09-18"):
        Clock("c", "utc").check(timestamps, where="cam.csv")


def test_the_error_names_a_unit_that_was_read_as_a_coarser_unit() -> None:
    microseconds = np.array([900_000 * 10**6])
    with pytest.raises(ClockError, match="Read as us they would be 900,000 s"):
        Clock("machine", "boot").check(integers_to_ns(microseconds, "ms"), unit="ms")


@pytest.mark.parametrize("domain", ["utc", "tai", "gps"])
@pytest.mark.parametrize(
    ("sentinel", "name"),
    [(0, "0"), (-1, "-1 ns"), (-S, "-1 s"), (-(2**63), "NaT"), (2**63 - 1, "largest int64")],
)
def test_the_error_names_sentinels(domain: str, sentinel: int, name: str) -> None:
    timestamps = np.full(9, PLAUSIBLE[domain])
    timestamps[[3, 5]] = sentinel
    with pytest.raises(ClockError, match=rf"^cam: 2 of 9 timestamps are .*{name}.*sentinel.*index 3"):
        Clock("c", domain).check(timestamps, where="cam")


def test_minus_one_is_a_sentinel_of_a_boot_clock_but_a_time_of_a_media_clock() -> None:
    with pytest.raises(ClockError, match="sentinel"):
        Clock("c", "boot").check([5 * S, -1])
    Clock("c", "media").check([5 * S, -1, 0])


def test_the_error_names_a_year_out_of_range() -> None:
    timestamp = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp()) * S
    with pytest.raises(
        ClockError, match=r"1 of 2 timestamps is outside the plausible 1990 \.\. 2100.*index 1.*2200-01-01"
    ):
        Clock("c", "utc").check([NOW, timestamp])


def test_the_error_names_another_domain() -> None:
    with pytest.raises(ClockError, match=r"On a utc clock they would be 2018-09-18"):
        Clock("machine", "boot").check([NOW])
    with pytest.raises(ClockError, match=r"On a boot clock they would be 46,408 s"):
        Clock("machine", "utc").check([46_408 * S])


def test_timestamps_are_formatted_by_domain() -> None:
    assert Clock("c", "utc").format(NOW + 5) == "2018-09-18T12:00:00.000000005"
    assert Clock("c", "gps").format(GPS_NOW) == "2018-09-18T12:00:00.000000000"
    assert Clock("c", "boot").format(-1_500_000_000) == "-1.500000000 s"
    assert Clock("c", "boot").format(2**62) == "4611686018.427387904 s"


def test_an_unknown_domain_or_a_resolution_below_one_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"clock 'machine': unknown clock domain 'uct'.*Did you mean 'utc'"):
        Clock("machine", "uct")
    with pytest.raises(ConfigError, match="below 1"):
        Clock("machine", "utc", resolution_ns=0)
