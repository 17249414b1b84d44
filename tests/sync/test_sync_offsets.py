"""Ticks, and offsets learned from a recording: the consensus of a group and what cannot mislead it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmpack.errors import ConfigError, DataError
from mmpack.sync import StreamPolicy, SyncConfig, synchronise
from mmpack.sync.alignment.offsets import learn_group_offsets, learn_offset, nearest_index
from mmpack.sync.alignment.ticks import consensus_ticks, ticks_at_rate, ticks_from_stream
from tests.sync.listed_streams import BOOT_NS, MS, S, aligned, audio_stream, recording, regular, stream

PERIOD_NS = 100 * MS


def wrapped(distance_ns: int, period_ns: int = PERIOD_NS) -> int:
    return (distance_ns + period_ns // 2) % period_ns - period_ns // 2


def shaken(
    rng: np.random.Generator, count: int, offset_ns: int, jitter_ns: int = 20_000
) -> NDArray[np.int64]:
    return regular(count, PERIOD_NS) + offset_ns + rng.integers(-jitter_ns, jitter_ns + 1, count)


@given(
    st.lists(st.integers(-100, 100), min_size=1, max_size=20).map(sorted), st.lists(st.integers(-120, 120))
)
def test_nearest_index_is_the_nearest_and_in_a_tie_the_earlier(items: list[int], asked: list[int]) -> None:
    got = nearest_index(np.array(items), np.array(asked, np.int64))
    for at, place in zip(asked, got.tolist(), strict=True):
        assert abs(items[place] - at) == min(abs(item - at) for item in items)
        assert items[place] == min(item for item in items if abs(item - at) == abs(items[place] - at))


@given(
    st.integers(0, 2**32),
    st.integers(4, 60),
    st.integers(-PERIOD_NS // 2, PERIOD_NS // 2),
    st.integers(0, 200_000),
)
@example(0, 4, -PERIOD_NS // 2, 1)
@example(0, 50, PERIOD_NS // 2, 20_000)
def test_an_offset_is_learned_to_within_the_jitter_even_half_a_period_off(
    seed: int, count: int, offset_ns: int, jitter_ns: int
) -> None:
    one = aligned(stream(shaken(np.random.default_rng(seed), count, offset_ns, jitter_ns), "camera"))
    learned = learn_offset(regular(count, PERIOD_NS), one, PERIOD_NS)
    assert -PERIOD_NS // 2 <= learned < PERIOD_NS // 2
    assert abs(wrapped(learned - offset_ns)) <= jitter_ns + 1


def test_as_many_early_as_late_is_half_a_period_off_and_not_on_time() -> None:
    late = regular(10, PERIOD_NS) + PERIOD_NS // 2 + np.array([-1_000, 1_000] * 5)
    learned = learn_offset(regular(12, PERIOD_NS), aligned(stream(late, "camera")), PERIOD_NS)
    assert abs(wrapped(learned - PERIOD_NS // 2)) <= 1_000


@given(
    st.integers(0, 2**32),
    st.lists(st.integers(-PERIOD_NS // 2, PERIOD_NS // 2), min_size=2, max_size=7),
    st.integers(0, 20),
    st.integers(0, 3),
)
def test_a_groups_offsets_are_learned_up_to_their_common_shift(
    seed: int, offsets: list[int], lost_percent: int, outliers: int
) -> None:
    rng = np.random.default_rng(seed)
    members = []
    for number, offset in enumerate(offsets):
        stamps = shaken(rng, 60, offset)
        stamps[rng.choice(60, outliers, replace=False)] += 7 * MS
        keep = rng.random(60) * 100 >= lost_percent
        keep[:2] = True
        members.append(aligned(stream(stamps[keep], "camera", f"cam_{number}")))
    learned, _ = learn_group_offsets(members, [None] * len(members))
    for mine, true in zip(learned, offsets, strict=True):
        assert abs(wrapped((mine - learned[0]) - (true - offsets[0]))) <= 60_000


def test_offsets_that_are_given_are_kept_and_the_others_follow_them() -> None:
    rng = np.random.default_rng(5)
    members = [aligned(stream(shaken(rng, 50, offset), "camera")) for offset in (0, 10 * MS, -20 * MS)]
    learned, ticks = learn_group_offsets(members, [30 * MS, None, None])
    assert learned[0] == 30 * MS
    assert abs(learned[1] - 40 * MS) < 50_000
    assert abs(learned[2] - 10 * MS) < 50_000
    assert np.all(np.abs(ticks.t_ns - (regular(50, PERIOD_NS) - 30 * MS)) < 50_000)


def test_learned_offsets_have_their_median_at_the_tick() -> None:
    members = [aligned(stream(regular(20, PERIOD_NS) + offset, "camera")) for offset in (0, 10 * MS, 40 * MS)]
    learned, ticks = learn_group_offsets(members, [None] * 3)
    assert sorted(learned) == [-10 * MS, 0, 30 * MS]
    assert ticks.t_ns.tolist() == (regular(20, PERIOD_NS) + 10 * MS).tolist()


@given(st.integers(0, 2**32), st.integers(3, 8), st.integers(2 * MS, 30 * MS), st.booleans())
def test_one_bad_member_accuses_itself_and_nobody_else(
    seed: int, size: int, error_ns: int, early: bool
) -> None:
    rng = np.random.default_rng(seed)
    bad, tick = int(rng.integers(size)), int(rng.integers(2, 38))
    cameras = []
    for number in range(size):
        stamps = shaken(rng, 40, int(rng.integers(-20 * MS, 20 * MS)))
        if number == bad:
            stamps[tick] += -error_ns if early else error_ns
        cameras.append(stream(stamps, "camera", f"cam_{number}"))
    result = synchronise(recording(*cameras))
    assert result.quarantined_ordinals().tolist() == [tick]
    assert [name for name, _ in result.failure_reasons(tick)] == [f"cam_{bad}"]
    found = [(finding.kind, finding.stream) for finding in result.findings if finding.severity == "fault"]
    assert found == [("out_of_tolerance", f"cam_{bad}")]


@given(
    st.integers(2, 6),
    st.lists(st.lists(st.integers(-1000, 1000), min_size=6, max_size=6), min_size=1, max_size=12),
)
def test_the_tick_is_the_median_of_stamps_less_offsets(size: int, jitter: list[list[int]]) -> None:
    offsets = [-20 * MS, 0, 3 * MS, 8 * MS, 11 * MS, 15 * MS][:size]
    events = regular(len(jitter) + 2, PERIOD_NS)
    table = np.array([[0] * 6, *jitter, [0] * 6])[:, :size] + events[:, None]
    members = [aligned(stream(table[:, k] + offsets[k], "camera", f"cam_{k}")) for k in range(size)]
    ordered = np.sort(table, axis=1)
    low, high = ordered[:, (size - 1) // 2], ordered[:, size // 2]
    assert consensus_ticks(members, offsets).t_ns.tolist() == ((low + high) // 2).tolist()


@pytest.mark.parametrize(("size", "alive"), [(6, 6), (6, 3), (6, 2), (5, 3), (5, 2), (2, 1)])
def test_an_event_seen_by_fewer_than_half_is_no_tick(size: int, alive: int) -> None:
    events = regular(20, PERIOD_NS)
    members = [
        aligned(stream(np.delete(events, 10) if k >= alive else events, "camera", f"cam_{k}"))
        for k in range(size)
    ]
    ticks = consensus_ticks(members, [0] * size)
    assert (int(events[10]) in ticks.t_ns.tolist()) == (2 * alive >= size)
    assert len(ticks.t_ns) == (20 if 2 * alive >= size else 19)


def test_a_group_that_shares_fewer_than_two_moments_is_refused() -> None:
    members = [aligned(stream(regular(2, PERIOD_NS, k * S), "camera", f"cam_{k}")) for k in range(5)]
    with pytest.raises(DataError, match="half of the group") as caught:
        consensus_ticks(members, [0] * 5)
    assert caught.value.hint


def test_rows_of_one_moment_are_one_tick() -> None:
    ticks = ticks_from_stream(aligned(stream(np.repeat(regular(10, PERIOD_NS), 3), "radar")))
    assert ticks.t_ns.tolist() == regular(10, PERIOD_NS).tolist()
    assert ticks.period_ns == PERIOD_NS


@given(st.sampled_from([Fraction(10), Fraction(30000, 1001), Fraction(7, 3), Fraction(1)]), st.integers(0, S))
def test_ticks_of_a_rate_are_rounded_once_and_cover_what_all_streams_cover(
    rate_hz: Fraction, late_ns: int
) -> None:
    imu = aligned(stream(regular(1_001, 10 * MS, BOOT_NS + late_ns)))
    mic = aligned(audio_stream(16_000, [(BOOT_NS, 9 * 16_000)]))
    ticks = ticks_at_rate(rate_hz, [imu, mic])
    start = BOOT_NS + late_ns
    expected = [start + (2 * k * S / rate_hz + 1) // 2 for k in range(len(ticks.t_ns))]
    assert ticks.t_ns.tolist() == expected
    last = BOOT_NS + 9 * S - round(S / rate_hz)  # the sound has to last for one more period
    assert expected[-1] <= last + 1 < start + (len(expected) + Fraction(1, 1000)) * S / rate_hz + 1


def test_streams_that_share_no_time_have_no_ticks() -> None:
    streams = [stream(regular(50, MS, 0), name="a"), stream(regular(50, MS, S), name="b")]
    with pytest.raises(DataError, match="share no time"):
        synchronise(recording(*streams), SyncConfig(reference="rate:10"))


@pytest.mark.parametrize("reference", ["rate:0", "rate:fast", "rate:1/0", "consensus:cam_*", "mic", "speech"])
def test_a_reference_that_cannot_be_is_refused_with_what_can(reference: str) -> None:
    made = recording(
        stream(regular(20, PERIOD_NS), "camera", "cam_a"),
        audio_stream(16_000, [(BOOT_NS, 16_000)]),
        stream([BOOT_NS], "text", "speech", end_ns=[BOOT_NS + S]),
    )
    with pytest.raises(ConfigError) as caught:
        synchronise(made, SyncConfig(reference=reference))
    assert caught.value.hint


def test_a_pattern_that_names_nothing_is_refused_with_the_nearest_name() -> None:
    made = recording(stream(regular(20, PERIOD_NS), "camera", "cam_front"))
    with pytest.raises(ConfigError, match="cam_frnt") as caught:
        synchronise(made, SyncConfig(streams={"cam_frnt": StreamPolicy(tolerance="2ms")}))
    assert "'cam_front'" in caught.value.hint


def test_without_a_camera_the_tick_has_to_be_named() -> None:
    with pytest.raises(ConfigError, match="no camera") as caught:
        synchronise(recording(stream(regular(20, PERIOD_NS), "imu", "imu")))
    assert "reference" in caught.value.hint
