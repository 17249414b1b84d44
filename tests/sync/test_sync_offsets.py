"""Ticks, offsets learned from a recording, and the consensus of a group with faulty members."""

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
from tests.sync.listed_streams import BOOT_NS, MS, S, align, audio_stream, recording, regular_ns, stream

PERIOD_NS = 100 * MS


def wrap_to_period(distance_ns: int, period_ns: int = PERIOD_NS) -> int:
    return (distance_ns + period_ns // 2) % period_ns - period_ns // 2


def jittered_ns(
    rng: np.random.Generator, count: int, offset_ns: int, jitter_ns: int = 20_000
) -> NDArray[np.int64]:
    return regular_ns(count, PERIOD_NS) + offset_ns + rng.integers(-jitter_ns, jitter_ns + 1, count)


@given(
    st.lists(st.integers(-100, 100), min_size=1, max_size=20).map(sorted), st.lists(st.integers(-120, 120))
)
def test_nearest_index_finds_the_nearest_item_and_the_earlier_of_two(
    items: list[int], times: list[int]
) -> None:
    indices = nearest_index(np.array(items), np.array(times, np.int64))
    for time, index in zip(times, indices.tolist(), strict=True):
        assert abs(items[index] - time) == min(abs(item - time) for item in items)
        assert items[index] == min(item for item in items if abs(item - time) == abs(items[index] - time))


@given(
    st.integers(0, 2**32),
    st.integers(4, 60),
    st.integers(-PERIOD_NS // 2, PERIOD_NS // 2),
    st.integers(0, 200_000),
)
@example(0, 4, -PERIOD_NS // 2, 1)
@example(0, 50, PERIOD_NS // 2, 20_000)
def test_learned_offset_is_exact_within_the_jitter_even_at_half_a_period(
    seed: int, count: int, offset_ns: int, jitter_ns: int
) -> None:
    aligned = align(stream(jittered_ns(np.random.default_rng(seed), count, offset_ns, jitter_ns), "camera"))
    learned = learn_offset(regular_ns(count, PERIOD_NS), aligned, PERIOD_NS)
    assert -PERIOD_NS // 2 <= learned < PERIOD_NS // 2
    assert abs(wrap_to_period(learned - offset_ns)) <= jitter_ns + 1


def test_half_early_and_half_late_items_give_an_offset_of_half_a_period() -> None:
    late = regular_ns(10, PERIOD_NS) + PERIOD_NS // 2 + np.array([-1_000, 1_000] * 5)
    learned = learn_offset(regular_ns(12, PERIOD_NS), align(stream(late, "camera")), PERIOD_NS)
    assert abs(wrap_to_period(learned - PERIOD_NS // 2)) <= 1_000


@given(
    st.integers(0, 2**32),
    st.lists(st.integers(-PERIOD_NS // 2, PERIOD_NS // 2), min_size=2, max_size=7),
    st.integers(0, 20),
    st.integers(0, 3),
)
def test_group_offsets_are_learned_up_to_a_common_shift(
    seed: int, offsets: list[int], lost_percent: int, outliers: int
) -> None:
    rng = np.random.default_rng(seed)
    members = []
    for index, offset in enumerate(offsets):
        timestamps = jittered_ns(rng, 60, offset)
        timestamps[rng.choice(60, outliers, replace=False)] += 7 * MS
        keep = rng.random(60) * 100 >= lost_percent
        keep[:2] = True
        members.append(align(stream(timestamps[keep], "camera", f"cam_{index}")))
    learned, _ = learn_group_offsets(members, [None] * len(members))
    for offset, true in zip(learned, offsets, strict=True):
        assert abs(wrap_to_period((offset - learned[0]) - (true - offsets[0]))) <= 60_000


def test_explicit_offsets_are_kept_and_the_others_are_relative_to_them() -> None:
    rng = np.random.default_rng(5)
    members = [align(stream(jittered_ns(rng, 50, offset), "camera")) for offset in (0, 10 * MS, -20 * MS)]
    learned, ticks = learn_group_offsets(members, [30 * MS, None, None])
    assert learned[0] == 30 * MS
    assert abs(learned[1] - 40 * MS) < 50_000
    assert abs(learned[2] - 10 * MS) < 50_000
    assert np.all(np.abs(ticks.t_ns - (regular_ns(50, PERIOD_NS) - 30 * MS)) < 50_000)


def test_learned_offsets_have_the_median_zero() -> None:
    members = [
        align(stream(regular_ns(20, PERIOD_NS) + offset, "camera")) for offset in (0, 10 * MS, 40 * MS)
    ]
    learned, ticks = learn_group_offsets(members, [None] * 3)
    assert sorted(learned) == [-10 * MS, 0, 30 * MS]
    assert ticks.t_ns.tolist() == (regular_ns(20, PERIOD_NS) + 10 * MS).tolist()


@given(st.integers(0, 2**32), st.integers(3, 8), st.integers(2 * MS, 30 * MS), st.booleans())
def test_one_bad_member_fails_alone(seed: int, size: int, error_ns: int, early: bool) -> None:
    rng = np.random.default_rng(seed)
    bad, tick = int(rng.integers(size)), int(rng.integers(2, 38))
    cameras = []
    for index in range(size):
        timestamps = jittered_ns(rng, 40, int(rng.integers(-20 * MS, 20 * MS)))
        if index == bad:
            timestamps[tick] += -error_ns if early else error_ns
        cameras.append(stream(timestamps, "camera", f"cam_{index}"))
    result = synchronise(recording(*cameras))
    assert result.quarantined_ordinals().tolist() == [tick]
    assert [name for name, _ in result.failure_reasons(tick)] == [f"cam_{bad}"]
    faults = [(finding.kind, finding.stream) for finding in result.findings if finding.severity == "problem"]
    assert faults == [("out_of_tolerance", f"cam_{bad}")]


@given(
    st.integers(2, 6),
    st.lists(st.lists(st.integers(-1000, 1000), min_size=6, max_size=6), min_size=1, max_size=12),
)
def test_the_tick_is_the_median_of_timestamps_minus_offsets(size: int, jitter: list[list[int]]) -> None:
    offsets = [-20 * MS, 0, 3 * MS, 8 * MS, 11 * MS, 15 * MS][:size]
    events = regular_ns(len(jitter) + 2, PERIOD_NS)
    table = np.array([[0] * 6, *jitter, [0] * 6])[:, :size] + events[:, None]
    members = [align(stream(table[:, k] + offsets[k], "camera", f"cam_{k}")) for k in range(size)]
    ordered = np.sort(table, axis=1)
    low, high = ordered[:, (size - 1) // 2], ordered[:, size // 2]
    assert consensus_ticks(members, offsets).t_ns.tolist() == ((low + high) // 2).tolist()


@pytest.mark.parametrize(("size", "num_present"), [(6, 6), (6, 3), (6, 2), (5, 3), (5, 2), (2, 1)])
def test_an_event_with_items_of_fewer_than_half_the_members_is_no_tick(size: int, num_present: int) -> None:
    events = regular_ns(20, PERIOD_NS)
    members = [
        align(stream(np.delete(events, 10) if k >= num_present else events, "camera", f"cam_{k}"))
        for k in range(size)
    ]
    ticks = consensus_ticks(members, [0] * size)
    assert (int(events[10]) in ticks.t_ns.tolist()) == (2 * num_present >= size)
    assert len(ticks.t_ns) == (20 if 2 * num_present >= size else 19)


def test_a_group_with_fewer_than_two_common_events_is_an_error() -> None:
    members = [align(stream(regular_ns(2, PERIOD_NS, k * S), "camera", f"cam_{k}")) for k in range(5)]
    with pytest.raises(DataError, match="half of the group") as caught:
        consensus_ticks(members, [0] * 5)
    assert caught.value.hint


def test_table_rows_with_one_timestamp_are_one_tick() -> None:
    ticks = ticks_from_stream(align(stream(np.repeat(regular_ns(10, PERIOD_NS), 3), "radar")))
    assert ticks.t_ns.tolist() == regular_ns(10, PERIOD_NS).tolist()
    assert ticks.period_ns == PERIOD_NS


@given(st.sampled_from([Fraction(10), Fraction(30000, 1001), Fraction(7, 3), Fraction(1)]), st.integers(0, S))
def test_ticks_at_a_rate_are_rounded_once_and_cover_the_common_time(rate_hz: Fraction, late_ns: int) -> None:
    imu = align(stream(regular_ns(1_001, 10 * MS, BOOT_NS + late_ns)))
    mic = align(audio_stream(16_000, [(BOOT_NS, 9 * 16_000)]))
    ticks = ticks_at_rate(rate_hz, [imu, mic])
    start = BOOT_NS + late_ns
    expected = [start + (2 * k * S / rate_hz + 1) // 2 for k in range(len(ticks.t_ns))]
    assert ticks.t_ns.tolist() == expected
    last = BOOT_NS + 9 * S - round(S / rate_hz)  # the audio must cover one more period
    assert expected[-1] <= last + 1 < start + (len(expected) + Fraction(1, 1000)) * S / rate_hz + 1


def test_streams_without_common_time_are_an_error() -> None:
    streams = [stream(regular_ns(50, MS, 0), name="a"), stream(regular_ns(50, MS, S), name="b")]
    with pytest.raises(DataError, match="share no time"):
        synchronise(recording(*streams), SyncConfig(reference="rate:10"))


@pytest.mark.parametrize("reference", ["rate:0", "rate:fast", "rate:1/0", "consensus:cam_*", "mic", "speech"])
def test_an_invalid_reference_is_an_error_with_a_hint(reference: str) -> None:
    capture = recording(
        stream(regular_ns(20, PERIOD_NS), "camera", "cam_a"),
        audio_stream(16_000, [(BOOT_NS, 16_000)]),
        stream([BOOT_NS], "text", "speech", end_ns=[BOOT_NS + S]),
    )
    with pytest.raises(ConfigError) as caught:
        synchronise(capture, SyncConfig(reference=reference))
    assert caught.value.hint


def test_a_pattern_without_a_stream_is_an_error_that_suggests_the_nearest_name() -> None:
    capture = recording(stream(regular_ns(20, PERIOD_NS), "camera", "cam_front"))
    with pytest.raises(ConfigError, match="cam_frnt") as caught:
        synchronise(capture, SyncConfig(streams={"cam_frnt": StreamPolicy(tolerance="2ms")}))
    assert "'cam_front'" in caught.value.hint


def test_a_recording_without_a_camera_needs_an_explicit_reference() -> None:
    with pytest.raises(ConfigError, match="no camera") as caught:
        synchronise(recording(stream(regular_ns(20, PERIOD_NS), "imu", "imu")))
    assert "reference" in caught.value.hint
