"""The six policies on arrays, against definitions written out one tick at a time."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpack.clock import Clock, ClockMap
from mmpack.errors import ConfigError, DataError
from mmpack.recording import Recording, Stream
from mmpack.recording.sources.images import ImageFiles
from mmpack.settings import parse_settings
from mmpack.sync import MatchStatus, StreamPolicy, SyncConfig, synchronise
from mmpack.sync.policies import match_stream
from tests.sync.listed_streams import (
    BOOT_NS,
    MS,
    RIG,
    S,
    aligned,
    ascending,
    audio_stream,
    recording,
    regular,
    rule,
    stream,
)

few_ns = st.integers(-50, 50)


@given(ascending(most=25), ascending(most=25), few_ns, st.integers(0, 60), st.integers(1, 80))
def test_nearest_is_one_to_one_and_takes_the_nearest(
    items: list[int], ticks: list[int], offset: int, tolerance: int, tick_period: int
) -> None:
    one = aligned(stream(items, "camera"))
    wanted = np.array(ticks) + offset
    law = rule(one, tick_period, policy="nearest", offset=f"{offset}ns", tolerance=f"{tolerance}ns")
    found = match_stream(one, law, np.array(ticks), tick_period)
    used = found.first[found.has_item].tolist()
    assert len(set(used)) == len(used)
    reach = max(min(tick_period, one.period_ns or tick_period) // 2, tolerance)
    for tick, at in enumerate(wanted.tolist()):
        distances = [abs(item - at) for item in items]
        best = distances.index(min(distances))  # index() finds the first: a tie goes to the earlier item
        if found.has_item[tick]:
            assert distances[best] <= reach
            assert found.first[tick] == best
            assert found.aligned_ns[tick] == items[best]
            assert found.residual_ns[tick] == items[best] - at
            inside = distances[best] <= tolerance
            assert found.status[tick] == (MatchStatus.OK if inside else MatchStatus.OUT_OF_TOLERANCE)
        else:
            outside = at < items[0] or at > items[-1]
            assert found.status[tick] == (MatchStatus.EDGE if outside else MatchStatus.MISSING)
            rivals = [
                other
                for other in range(len(ticks))
                if other != tick and found.has_item[other] and found.first[other] == best
            ]
            closer = [
                other
                for other in rivals
                if (abs(items[best] - wanted[other]), other) < (distances[best], tick)
            ]
            assert distances[best] > reach or closer


def test_nearest_gives_a_shared_item_to_the_closer_tick_and_in_a_tie_to_the_earlier() -> None:
    one = aligned(stream([100, 200, 300], "camera"))
    law = rule(one, 100, policy="nearest", offset="0ns", tolerance="1ms")
    found = match_stream(one, law, np.array([190, 205]), 100)
    assert found.count.tolist() == [0, 1]
    assert found.status.tolist() == [MatchStatus.MISSING, MatchStatus.OK]
    found = match_stream(one, law, np.array([190, 210]), 100)
    assert found.count.tolist() == [1, 0]


@given(ascending(most=25), ascending(most=25), few_ns)
def test_exact_is_equality(items: list[int], ticks: list[int], offset: int) -> None:
    one = aligned(stream(items, "event"))
    found = match_stream(one, rule(one, 10, policy="exact", offset=f"{offset}ns"), np.array(ticks), 10)
    for tick, at in enumerate(np.array(ticks) + offset):
        if at in items:
            assert found.status[tick] == MatchStatus.OK
            assert items[int(found.first[tick])] == at
        else:
            outside = at < items[0] or at > items[-1]
            assert found.count[tick] == 0
            assert found.status[tick] == (MatchStatus.EDGE if outside else MatchStatus.MISSING)


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=25).map(sorted),
    ascending(),
    few_ns,
    st.integers(1, 90),
)
def test_interpolate_takes_the_two_neighbours_no_further_apart_than_allowed(
    items: list[int], ticks: list[int], offset: int, max_gap: int
) -> None:
    one = aligned(stream(items))
    law = rule(one, 10, policy="interpolate", offset=f"{offset}ns", max_gap=f"{max_gap}ns")
    found = match_stream(one, law, np.array(ticks), 10)
    assert not found.residual_ns.any()
    for tick, at in enumerate((np.array(ticks) + offset).tolist()):
        first, count, status = int(found.first[tick]), int(found.count[tick]), found.status[tick]
        before = [item for item in items if item <= at]
        after = [item for item in items if item >= at]
        if not before or not after:
            assert (count, status) == (0, MatchStatus.EDGE)
        elif after[0] - before[-1] > max_gap:
            assert (count, status) == (0, MatchStatus.GAP)
            assert found.judged_ns[tick] == after[0] - before[-1]
        elif after[0] == at:
            assert (count, status, items[first]) == (1, MatchStatus.OK, at)
        else:
            assert (count, status) == (2, MatchStatus.OK)
            assert (items[first], items[first + 1]) == (before[-1], after[0])


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=25).map(sorted),
    ascending(),
    few_ns,
    st.integers(1, 90),
)
def test_hold_takes_all_rows_of_the_latest_stamp_unless_it_is_too_old(
    items: list[int], ticks: list[int], offset: int, max_age: int
) -> None:
    one = aligned(stream(items, "can"))
    law = rule(one, 10, policy="hold", offset=f"{offset}ns", max_age=f"{max_age}ns")
    found = match_stream(one, law, np.array(ticks), 10)
    is_bursty = len(one.group_starts) < len(set(items))
    for tick, at in enumerate((np.array(ticks) + offset).tolist()):
        first, count, status = int(found.first[tick]), int(found.count[tick]), found.status[tick]
        before = [item for item in items if item <= at]
        if not before:
            assert (count, status) == (0, MatchStatus.EDGE)
        elif at - before[-1] > max_age:
            ended = at > items[-1] + one.period_ns
            assert (count, status) == (0, MatchStatus.EDGE if ended else MatchStatus.STALE)
            assert found.judged_ns[tick] == at - before[-1]
        else:
            assert status == MatchStatus.OK
            assert found.residual_ns[tick] == before[-1] - at
            assert first + count == len(before)
            if not is_bursty:
                assert items[first : first + count] == [item for item in items if item == before[-1]]


def test_hold_takes_the_rows_of_a_sweep_that_are_there_by_the_tick() -> None:
    sweeps = [start + row for start in range(0, 20 * 50 * MS, 50 * MS) for row in (0, MS // 2, MS)]
    one = aligned(stream(np.array(sweeps) + BOOT_NS, "radar"))
    assert one.period_ns == 50 * MS
    ticks = BOOT_NS + np.array([50 * MS, 50 * MS + MS // 2, 75 * MS])
    found = match_stream(one, rule(one, 50 * MS, policy="hold"), ticks, 50 * MS)
    assert found.first.tolist() == [3, 3, 3]
    assert found.count.tolist() == [1, 2, 3]
    assert found.residual_ns.tolist() == [0, 0, -24 * MS]


@given(
    st.lists(st.integers(0, 300), min_size=2, max_size=25).map(sorted),
    ascending(),
    few_ns,
    few_ns,
    st.integers(1, 90),
)
def test_a_window_is_half_open_and_counts_its_rows(
    items: list[int], ticks: list[int], offset: int, before: int, length: int
) -> None:
    after = length - before
    one = aligned(stream(items))
    law = rule(one, 10, policy="window", offset=f"{offset}ns", before=f"{before}ns", after=f"{after}ns")
    found = match_stream(one, law, np.array(ticks), 10)
    for tick, at in enumerate((np.array(ticks) + offset).tolist()):
        low, high = at - before, at + after
        inside = [item for item in items if low <= item < high]
        first, count = int(found.first[tick]), int(found.count[tick])
        assert items[first : first + count] == inside
        ends = [low, *inside, high]
        assert found.judged_ns[tick] == max(right - left for left, right in pairwise(ends))
        if high <= items[0] or low > items[-1]:
            assert found.status[tick] == MatchStatus.EDGE


def test_a_window_over_lost_rows_fails_and_one_past_the_end_is_an_edge() -> None:
    stamps = np.delete(regular(100, 10 * MS), np.s_[40:60])
    one = aligned(stream(stamps))
    ticks = regular(11, 100 * MS, BOOT_NS - 50 * MS)
    found = match_stream(one, rule(one, 100 * MS, policy="window"), ticks, 100 * MS)
    names = [MatchStatus(status).name for status in found.status.tolist()]
    assert names == ["EDGE", "OK", "OK", "OK", "COVERAGE", "MISSING", "COVERAGE", "OK", "OK", "OK", "EDGE"]
    assert found.count.tolist() == [5, 10, 10, 10, 5, 0, 5, 10, 10, 10, 5]


rates = st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000])


@given(
    rates,
    st.integers(0, S),
    st.integers(1, 200 * MS),
    st.lists(st.integers(0, 3 * S), min_size=1, max_size=8),
)
def test_an_audio_window_has_its_samples_and_the_exact_stamp_of_the_first(
    rate_hz: int, start_ns: int, length_ns: int, ticks: list[int]
) -> None:
    one = aligned(audio_stream(rate_hz, [(start_ns, 5 * rate_hz)]))
    ticks_ns = start_ns + np.array(sorted(ticks))
    found = match_stream(one, rule(one, length_ns, policy="window"), ticks_ns, length_ns)

    def stamp(number: int) -> int:
        return start_ns + round_half_up(Fraction(number * S, rate_hz))

    for tick, low in enumerate(ticks_ns.tolist()):
        first, count = int(found.first[tick]), int(found.count[tick])
        assert found.status[tick] == MatchStatus.OK
        assert abs(count - length_ns * rate_hz / S) <= 1
        assert stamp(first) >= low
        assert first == 0 or stamp(first - 1) < low
        assert stamp(first + count) >= low + length_ns
        assert count == 0 or stamp(first + count - 1) < low + length_ns
        assert found.aligned_ns[tick] == stamp(first)
        assert found.residual_ns[tick] == stamp(first) - low


def round_half_up(value: Fraction) -> int:
    return (2 * value + 1) // 2


def test_audio_windows_meet_without_a_gap_or_an_overlap() -> None:
    one = aligned(audio_stream(44_100, [(BOOT_NS, 44_100 * 20)]))
    ticks = BOOT_NS + np.array([round(Fraction(k * 1001 * S, 30_000)) for k in range(300)])
    windows = np.diff(ticks)
    found = match_stream(
        one, rule(one, int(windows[0]), policy="window", after=f"{windows.max()}ns"), ticks, int(windows[0])
    )
    exact = match_stream(
        one, rule(one, 33_366_667, policy="window", after="33366667ns"), ticks[::3], 33_366_667
    )
    assert np.all(found.first[:-1] + found.count[:-1] >= found.first[1:])
    assert np.all(np.abs(exact.count - 44_100 * 1001 / 30_000) <= 1)


def test_an_audio_window_across_a_hole_is_not_filled() -> None:
    one = aligned(audio_stream(16_000, [(BOOT_NS, 16_000), (BOOT_NS + 1_500 * MS, 16_000)]))
    ticks = regular(6, 500 * MS, BOOT_NS - 500 * MS)
    found = match_stream(one, rule(one, 500 * MS, policy="window"), ticks, 500 * MS)
    names = [MatchStatus(status).name for status in found.status.tolist()]
    assert names == ["EDGE", "OK", "OK", "COVERAGE", "OK", "OK"]
    assert found.first[found.has_item].tolist() == [0, 8_000, 16_000, 24_000]
    assert found.count.tolist() == [0, 8_000, 8_000, 0, 8_000, 8_000]
    assert found.judged_ns[3] == 500 * MS


def test_audio_on_a_drifting_clock_is_counted_on_its_own_clock() -> None:
    # 100 ppm over 1,000 s are 100 ms: 1,600 samples, if one counted on the wrong clock.
    recorder = Clock("recorder", "device")
    known = ClockMap("recorder", "rig", 0, BOOT_NS, 100.0)
    one = aligned(audio_stream(16_000, [(0, 16_000 * 1_001)], clock=recorder), maps=(known,))
    tick = int(known.apply(1_000 * S))
    found = match_stream(one, rule(one, 100 * MS, policy="window"), np.array([tick]), 100 * MS)
    assert found.first.tolist() == [16_000 * 1_000]
    assert found.aligned_ns[0] == tick
    assert one.span_ns == (BOOT_NS, int(known.apply(1_001 * S)))


texts = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 60)), min_size=1, max_size=12).map(sorted)


@given(texts, ascending(0, 250, most=20), st.integers(0, 20), st.integers(1, 30), st.booleans())
def test_overlap_puts_each_text_into_the_first_slice_it_meets_or_into_all(
    spoken: list[tuple[int, int]], ticks: list[int], before: int, after: int, once: bool
) -> None:
    starts, ends = [start for start, _ in spoken], [start + length for start, length in spoken]
    one = aligned(stream(starts, "text", end_ns=ends))
    law = rule(one, 10, before=f"{before}ns", after=f"{after}ns", once=once)
    found = match_stream(one, law, np.array(ticks), 10)
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        # A text of no length is there at its start; every other one in [start, end).
        meets = [
            tick
            for tick, at in enumerate(ticks)
            if (at - before <= start < at + after) or (start < at + after and end > at - before)
        ]
        got = [tick for tick in range(len(ticks)) if number in items_of(found, tick)]
        assert got == (meets[:1] if once else meets)


def items_of(found, tick: int) -> list[int]:
    first, count = int(found.first[tick]), int(found.count[tick])
    return found.items[first : first + count].tolist()


def test_a_slice_without_text_is_no_fault_unless_text_is_required() -> None:
    one = aligned(stream([BOOT_NS], "text", end_ns=[BOOT_NS + S]))
    ticks = BOOT_NS + np.array([0, 10 * S])
    assert match_stream(one, rule(one, S), ticks, S).status.tolist() == [MatchStatus.OK, MatchStatus.EMPTY]
    assert match_stream(one, rule(one, S, required=True), ticks, S).status.tolist() == [
        MatchStatus.OK,
        MatchStatus.MISSING,
    ]


def test_a_text_moves_on_to_the_next_passing_slice_while_it_lasts() -> None:
    camera = regular(40, 100 * MS)
    imu = np.delete(regular(600, 10 * MS, BOOT_NS - S), np.s_[195:235])  # from tick 9.5 to tick 13.5
    starts = BOOT_NS + np.array([5, 10, 11, 25]) * 100 * MS + 20 * MS
    ends = starts + np.array([900, 900, 150, 300]) * MS
    made = recording(
        stream(camera, "camera", "cam"),
        stream(imu, "imu", "imu"),
        stream(starts, "text", "said", end_ns=ends),
    )
    result = synchronise(made)
    assert result.quarantined_ordinals().tolist() == [10, 11, 12, 13]
    said = result.matches["said"]
    placed = {item: tick for tick in range(40) for item in items_of(said, tick)}
    # Text 2 ends before a slice passes again: no slice holds it.
    assert placed == {0: 5, 1: 14, 3: 25}


@pytest.mark.parametrize(
    ("kind", "policy"),
    [
        ("audio", "nearest"),
        ("text", "nearest"),
        ("imu", "overlap"),
        ("camera", "interpolate"),
        ("camera", "hold"),
    ],
)
def test_a_policy_that_a_kind_cannot_have_is_refused(kind: str, policy: str) -> None:
    camera = stream(regular(20, 100 * MS), "camera", "cam")
    if kind == "audio":
        other = audio_stream(16_000, [(BOOT_NS, 32_000)], "other")
    elif kind == "text":
        other = stream([BOOT_NS], "text", "other", end_ns=[BOOT_NS + S])
    else:
        other = stream(regular(20, 100 * MS), kind, "other")  # type: ignore[arg-type]
    config = SyncConfig(reference="cam", streams={"other": StreamPolicy(policy=policy)})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r'sync\.streams\."other"') as caught:
        synchronise(recording(camera, other), config)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"tolerance": "-1ms"}, "tolerance"),
        ({"max_gap": "-1ns"}, "max_gap"),
        ({"policy": "hold", "max_age": "-1s"}, "max_age"),
        ({"policy": "window", "before": "-1s", "after": "1s"}, "before + after"),
        ({"policy": "window", "after": "0s"}, "before + after"),
        ({"policy": "window", "before": "-3s"}, "before + after"),
    ],
)
def test_a_limit_below_zero_or_an_empty_window_is_refused(settings: dict[str, str], key: str) -> None:
    one = aligned(stream(regular(20, 100 * MS), "imu", "other"))
    with pytest.raises(ConfigError) as caught:
        rule(one, 100 * MS, **settings)
    assert key in caught.value.message
    assert 'sync.streams."other"' in caught.value.where
    assert caught.value.hint


def test_limits_of_zero_and_windows_beside_the_tick_are_settings() -> None:
    one = aligned(stream(regular(20, 100 * MS), "imu", "other"))
    law = rule(one, 100 * MS, policy="window", before="-1s", after="1001ms", tolerance="0s", max_age="0s")
    assert (law.before_ns, law.after_ns, law.tolerance_ns, law.limit_ns) == (-S, 1001 * MS, 0, 0)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_max_backward_is_a_share(share: float) -> None:
    with pytest.raises(ConfigError, match="max_backward is a share"):
        parse_settings({"max_backward": share}, SyncConfig, where="build.toml")


@pytest.mark.parametrize("rate", ["0", "-5", "x", "1e400000000", "1/0", "2000000000", "1/100000000", "nan"])
def test_a_rate_that_is_none_is_refused(rate: str) -> None:
    with pytest.raises(ConfigError, match="is no rate"):
        synchronise(recording(stream(regular(20, 100 * MS))), SyncConfig(reference=f"rate:{rate}"))


def test_a_rate_of_too_many_ticks_says_how_many() -> None:
    with pytest.raises(ConfigError, match="1,900,000,001 ticks") as caught:
        synchronise(recording(stream(regular(20, 100 * MS))), SyncConfig(reference="rate:1000000000"))
    assert caught.value.hint


def test_a_window_of_pictures_in_a_folder_is_refused() -> None:
    pictures = ImageFiles(Path("cam"), ("a.jpg", "b.jpg"), regular(2, 100 * MS), "file name", "cam")
    made = recording(Stream("cam", "camera", RIG, pictures))
    config = SyncConfig(reference="rate:5", streams={"cam*": StreamPolicy(policy="window")})
    with pytest.raises(ConfigError, match="folder of pictures") as caught:
        synchronise(made, config)
    assert "nearest" in caught.value.hint


def test_a_camera_window_counts_its_frames() -> None:
    # 10 Hz, frames 29 to 36 lost. Up to three periods may be missing of a window.
    one = aligned(stream(np.delete(regular(60, 100 * MS), np.s_[29:37]), "camera", "cam"))
    ticks = regular(17, 400 * MS, BOOT_NS - 400 * MS)
    found = match_stream(one, rule(one, 400 * MS, policy="window"), ticks, 400 * MS)
    names = [MatchStatus(status).name for status in found.status.tolist()]
    assert names == ["EDGE"] + 7 * ["OK"] + ["COVERAGE", "MISSING"] + 6 * ["OK"] + ["EDGE"]
    assert found.count.tolist() == [0] + 7 * [4] + [1, 0, 3] + 5 * [4] + [0]
    wide = match_stream(one, rule(one, 400 * MS, policy="window", before="200ms"), ticks, 400 * MS)
    assert wide.count.tolist()[2:6] == [6, 6, 6, 6]
    assert (wide.first[3], wide.first[4]) == (6, 10)
    assert wide.aligned_ns[3] == BOOT_NS + 600 * MS


def test_a_recording_states_its_own_ticks_and_the_config_may_overrule_them() -> None:
    made = recording(stream(regular(40, 25 * MS), "camera", "cam"), stream(regular(100, 10 * MS), name="imu"))
    own = replace(made, reference="rate:10")

    def period_ns(reference: str, one: Recording = own) -> int:
        return synchronise(one, SyncConfig(reference=reference)).ticks.period_ns

    assert period_ns("auto", made) == period_ns("cam") == 25 * MS
    assert period_ns("auto") == 100 * MS
    assert period_ns("rate:5") == 200 * MS
    with pytest.raises(DataError, match="no stream 'lidar'"):
        synchronise(replace(made, reference="lidar"))
