"""The six sync policies, compared with definitions that are evaluated tick by tick."""

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
from mmpack.sync import MatchStatus, StreamMatch, StreamPolicy, SyncConfig, synchronise
from mmpack.sync.policies.nearest import match_nearest
from mmpack.sync.policies.policy import ALL_KINDS, JudgedBy, SyncPolicy
from mmpack.sync.policies.registry import DEFAULT_POLICIES, POLICIES, match_stream
from tests.sync.listed_streams import (
    BOOT_NS,
    MS,
    RIG,
    S,
    align,
    ascending_integers,
    audio_stream,
    make_rule,
    recording,
    regular_ns,
    stream,
)

few_ns = st.integers(-50, 50)


@given(
    ascending_integers(max_size=25),
    ascending_integers(max_size=25),
    few_ns,
    st.integers(0, 60),
    st.integers(1, 80),
)
def test_nearest_is_one_to_one_and_chooses_the_nearest_item(
    items: list[int], ticks: list[int], offset: int, tolerance: int, tick_period: int
) -> None:
    aligned = align(stream(items, "camera"))
    target_ns = np.array(ticks) + offset
    match_rule = make_rule(
        aligned, tick_period, policy="nearest", offset=f"{offset}ns", tolerance=f"{tolerance}ns"
    )
    match = match_stream(aligned, match_rule, np.array(ticks), tick_period)
    used = match.first[match.has_item].tolist()
    assert len(set(used)) == len(used)
    reach = max(min(tick_period, aligned.period_ns or tick_period) // 2, tolerance)
    for tick, at in enumerate(target_ns.tolist()):
        distances = [abs(item - at) for item in items]
        best = distances.index(
            min(distances)
        )  # index() returns the first: of two equally near items the earlier
        if match.has_item[tick]:
            assert distances[best] <= reach
            assert match.first[tick] == best
            assert match.aligned_ns[tick] == items[best]
            assert match.residual_ns[tick] == items[best] - at
            inside = distances[best] <= tolerance
            assert match.status[tick] == (MatchStatus.OK if inside else MatchStatus.OUT_OF_TOLERANCE)
        else:
            outside = at < items[0] or at > items[-1]
            assert match.status[tick] == (MatchStatus.EDGE if outside else MatchStatus.MISSING)
            rivals = [
                other
                for other in range(len(ticks))
                if other != tick and match.has_item[other] and match.first[other] == best
            ]
            closer = [
                other
                for other in rivals
                if (abs(items[best] - target_ns[other]), other) < (distances[best], tick)
            ]
            assert distances[best] > reach or closer


def test_nearest_gives_a_shared_item_to_the_closer_tick_or_to_the_earlier_of_two() -> None:
    aligned = align(stream([100, 200, 300], "camera"))
    match_rule = make_rule(aligned, 100, policy="nearest", offset="0ns", tolerance="1ms")
    match = match_stream(aligned, match_rule, np.array([190, 205]), 100)
    assert match.count.tolist() == [0, 1]
    assert match.status.tolist() == [MatchStatus.MISSING, MatchStatus.OK]
    match = match_stream(aligned, match_rule, np.array([190, 210]), 100)
    assert match.count.tolist() == [1, 0]


@given(ascending_integers(max_size=25), ascending_integers(max_size=25), few_ns)
def test_exact_matches_equal_times_only(items: list[int], ticks: list[int], offset: int) -> None:
    aligned = align(stream(items, "event"))
    match = match_stream(
        aligned, make_rule(aligned, 10, policy="exact", offset=f"{offset}ns"), np.array(ticks), 10
    )
    for tick, at in enumerate(np.array(ticks) + offset):
        if at in items:
            assert match.status[tick] == MatchStatus.OK
            assert items[int(match.first[tick])] == at
        else:
            outside = at < items[0] or at > items[-1]
            assert match.count[tick] == 0
            assert match.status[tick] == (MatchStatus.EDGE if outside else MatchStatus.MISSING)


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=25).map(sorted),
    ascending_integers(),
    few_ns,
    st.integers(1, 90),
)
def test_interpolate_chooses_two_neighbours_within_max_gap(
    items: list[int], ticks: list[int], offset: int, max_gap: int
) -> None:
    aligned = align(stream(items))
    match_rule = make_rule(aligned, 10, policy="interpolate", offset=f"{offset}ns", max_gap=f"{max_gap}ns")
    match = match_stream(aligned, match_rule, np.array(ticks), 10)
    assert not match.residual_ns.any()
    for tick, at in enumerate((np.array(ticks) + offset).tolist()):
        first, count, status = int(match.first[tick]), int(match.count[tick]), match.status[tick]
        before = [item for item in items if item <= at]
        after = [item for item in items if item >= at]
        if not before or not after:
            assert (count, status) == (0, MatchStatus.EDGE)
        elif after[0] - before[-1] > max_gap:
            assert (count, status) == (0, MatchStatus.GAP)
            assert match.judged_ns[tick] == after[0] - before[-1]
        elif after[0] == at:
            assert (count, status, items[first]) == (1, MatchStatus.OK, at)
        else:
            assert (count, status) == (2, MatchStatus.OK)
            assert (items[first], items[first + 1]) == (before[-1], after[0])


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=25).map(sorted),
    ascending_integers(),
    few_ns,
    st.integers(1, 90),
)
def test_hold_chooses_all_rows_of_the_latest_timestamp_within_max_age(
    items: list[int], ticks: list[int], offset: int, max_age: int
) -> None:
    aligned = align(stream(items, "can"))
    match_rule = make_rule(aligned, 10, policy="hold", offset=f"{offset}ns", max_age=f"{max_age}ns")
    match = match_stream(aligned, match_rule, np.array(ticks), 10)
    is_bursty = len(aligned.group_starts) < len(set(items))
    for tick, at in enumerate((np.array(ticks) + offset).tolist()):
        first, count, status = int(match.first[tick]), int(match.count[tick]), match.status[tick]
        before = [item for item in items if item <= at]
        if not before:
            assert (count, status) == (0, MatchStatus.EDGE)
        elif at - before[-1] > max_age:
            ended = at > items[-1] + aligned.period_ns
            assert (count, status) == (0, MatchStatus.EDGE if ended else MatchStatus.STALE)
            assert match.judged_ns[tick] == at - before[-1]
        else:
            assert status == MatchStatus.OK
            assert match.residual_ns[tick] == before[-1] - at
            assert first + count == len(before)
            if not is_bursty:
                assert items[first : first + count] == [item for item in items if item == before[-1]]


def test_hold_chooses_the_rows_of_a_sweep_up_to_the_tick() -> None:
    sweeps = [start + row for start in range(0, 20 * 50 * MS, 50 * MS) for row in (0, MS // 2, MS)]
    aligned = align(stream(np.array(sweeps) + BOOT_NS, "radar"))
    assert aligned.period_ns == 50 * MS
    ticks = BOOT_NS + np.array([50 * MS, 50 * MS + MS // 2, 75 * MS])
    match = match_stream(aligned, make_rule(aligned, 50 * MS, policy="hold"), ticks, 50 * MS)
    assert match.first.tolist() == [3, 3, 3]
    assert match.count.tolist() == [1, 2, 3]
    assert match.residual_ns.tolist() == [0, 0, -24 * MS]


@given(
    st.lists(st.integers(0, 300), min_size=2, max_size=25).map(sorted),
    ascending_integers(),
    few_ns,
    few_ns,
    st.integers(1, 90),
)
def test_window_is_half_open_and_counts_its_items(
    items: list[int], ticks: list[int], offset: int, before: int, length: int
) -> None:
    after = length - before
    aligned = align(stream(items))
    match_rule = make_rule(
        aligned, 10, policy="window", offset=f"{offset}ns", before=f"{before}ns", after=f"{after}ns"
    )
    match = match_stream(aligned, match_rule, np.array(ticks), 10)
    for tick, at in enumerate((np.array(ticks) + offset).tolist()):
        low, high = at - before, at + after
        inside = [item for item in items if low <= item < high]
        first, count = int(match.first[tick]), int(match.count[tick])
        assert items[first : first + count] == inside
        ends = [low, *inside, high]
        assert match.judged_ns[tick] == max(right - left for left, right in pairwise(ends))
        if high <= items[0] or low > items[-1]:
            assert match.status[tick] == MatchStatus.EDGE


def test_window_over_lost_items_fails_and_window_past_the_end_is_an_edge() -> None:
    timestamps = np.delete(regular_ns(100, 10 * MS), np.s_[40:60])
    aligned = align(stream(timestamps))
    ticks = regular_ns(11, 100 * MS, BOOT_NS - 50 * MS)
    match = match_stream(aligned, make_rule(aligned, 100 * MS, policy="window"), ticks, 100 * MS)
    names = [MatchStatus(status).name for status in match.status.tolist()]
    assert names == ["EDGE", "OK", "OK", "OK", "COVERAGE", "MISSING", "COVERAGE", "OK", "OK", "OK", "EDGE"]
    assert match.count.tolist() == [5, 10, 10, 10, 5, 0, 5, 10, 10, 10, 5]


rates = st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000])


@given(
    rates,
    st.integers(0, S),
    st.integers(1, 200 * MS),
    st.lists(st.integers(0, 3 * S), min_size=1, max_size=8),
)
def test_audio_window_has_its_samples_and_the_exact_time_of_the_first(
    rate_hz: int, start_ns: int, length_ns: int, ticks: list[int]
) -> None:
    aligned = align(audio_stream(rate_hz, [(start_ns, 5 * rate_hz)]))
    ticks_ns = start_ns + np.array(sorted(ticks))
    match = match_stream(aligned, make_rule(aligned, length_ns, policy="window"), ticks_ns, length_ns)

    def sample_time_ns(sample: int) -> int:
        return start_ns + round_half_up(Fraction(sample * S, rate_hz))

    for tick, low in enumerate(ticks_ns.tolist()):
        first, count = int(match.first[tick]), int(match.count[tick])
        assert match.status[tick] == MatchStatus.OK
        assert abs(count - length_ns * rate_hz / S) <= 1
        assert sample_time_ns(first) >= low
        assert first == 0 or sample_time_ns(first - 1) < low
        assert sample_time_ns(first + count) >= low + length_ns
        assert count == 0 or sample_time_ns(first + count - 1) < low + length_ns
        assert match.aligned_ns[tick] == sample_time_ns(first)
        assert match.residual_ns[tick] == sample_time_ns(first) - low


def round_half_up(value: Fraction) -> int:
    return (2 * value + 1) // 2


def test_consecutive_audio_windows_have_no_gap() -> None:
    aligned = align(audio_stream(44_100, [(BOOT_NS, 44_100 * 20)]))
    ticks = BOOT_NS + np.array([round(Fraction(k * 1001 * S, 30_000)) for k in range(300)])
    windows = np.diff(ticks)
    match = match_stream(
        aligned,
        make_rule(aligned, int(windows[0]), policy="window", after=f"{windows.max()}ns"),
        ticks,
        int(windows[0]),
    )
    exact = match_stream(
        aligned, make_rule(aligned, 33_366_667, policy="window", after="33366667ns"), ticks[::3], 33_366_667
    )
    assert np.all(match.first[:-1] + match.count[:-1] >= match.first[1:])
    assert np.all(np.abs(exact.count - 44_100 * 1001 / 30_000) <= 1)


def test_audio_window_across_a_gap_has_no_samples() -> None:
    aligned = align(audio_stream(16_000, [(BOOT_NS, 16_000), (BOOT_NS + 1_500 * MS, 16_000)]))
    ticks = regular_ns(6, 500 * MS, BOOT_NS - 500 * MS)
    match = match_stream(aligned, make_rule(aligned, 500 * MS, policy="window"), ticks, 500 * MS)
    names = [MatchStatus(status).name for status in match.status.tolist()]
    assert names == ["EDGE", "OK", "OK", "COVERAGE", "OK", "OK"]
    assert match.first[match.has_item].tolist() == [0, 8_000, 16_000, 24_000]
    assert match.count.tolist() == [0, 8_000, 8_000, 0, 8_000, 8_000]
    assert match.judged_ns[3] == 500 * MS


def test_audio_samples_are_counted_on_the_clock_of_the_stream() -> None:
    # 100 ppm over 1,000 s are 100 ms: counting on the wrong clock would be wrong by 1,600 samples.
    recorder = Clock("recorder", "device")
    clock_map = ClockMap(
        source="recorder", target="rig", anchor_source_ns=0, anchor_target_ns=BOOT_NS, drift_ppm=100.0
    )
    aligned = align(audio_stream(16_000, [(0, 16_000 * 1_001)], clock=recorder), maps=(clock_map,))
    tick = int(clock_map.apply(1_000 * S))
    match = match_stream(aligned, make_rule(aligned, 100 * MS, policy="window"), np.array([tick]), 100 * MS)
    assert match.first.tolist() == [16_000 * 1_000]
    assert match.aligned_ns[0] == tick
    assert aligned.span_ns == (BOOT_NS, int(clock_map.apply(1_001 * S)))


texts = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 60)), min_size=1, max_size=12).map(sorted)


@given(texts, ascending_integers(0, 250, max_size=20), st.integers(0, 20), st.integers(1, 30), st.booleans())
def test_overlap_assigns_each_text_to_its_first_slice_or_to_every_slice(
    spans: list[tuple[int, int]], ticks: list[int], before: int, after: int, once: bool
) -> None:
    starts, ends = [start for start, _ in spans], [start + length for start, length in spans]
    aligned = align(stream(starts, "text", end_ns=ends))
    match_rule = make_rule(aligned, 10, before=f"{before}ns", after=f"{after}ns", once=once)
    match = match_stream(aligned, match_rule, np.array(ticks), 10)
    for text, (start, end) in enumerate(zip(starts, ends, strict=True)):
        # A text of zero length counts at its start, every other text in [start, end).
        overlapping = [
            tick
            for tick, at in enumerate(ticks)
            if (at - before <= start < at + after) or (start < at + after and end > at - before)
        ]
        assigned = [tick for tick in range(len(ticks)) if text in items_at(match, tick)]
        assert assigned == (overlapping[:1] if once else overlapping)


def items_at(match: StreamMatch, tick: int) -> list[int]:
    first, count = int(match.first[tick]), int(match.count[tick])
    return match.items[first : first + count].tolist()


def test_a_slice_without_text_fails_only_if_text_is_required() -> None:
    aligned = align(stream([BOOT_NS], "text", end_ns=[BOOT_NS + S]))
    ticks = BOOT_NS + np.array([0, 10 * S])
    assert match_stream(aligned, make_rule(aligned, S), ticks, S).status.tolist() == [
        MatchStatus.OK,
        MatchStatus.EMPTY,
    ]
    assert match_stream(aligned, make_rule(aligned, S, required=True), ticks, S).status.tolist() == [
        MatchStatus.OK,
        MatchStatus.MISSING,
    ]


def test_a_text_moves_to_the_next_passing_slice_before_its_end() -> None:
    camera = regular_ns(40, 100 * MS)
    imu = np.delete(regular_ns(600, 10 * MS, BOOT_NS - S), np.s_[195:235])  # from tick 9.5 to tick 13.5
    starts = BOOT_NS + np.array([5, 10, 11, 25]) * 100 * MS + 20 * MS
    ends = starts + np.array([900, 900, 150, 300]) * MS
    capture = recording(
        stream(camera, "camera", "cam"),
        stream(imu, "imu", "imu"),
        stream(starts, "text", "speech", end_ns=ends),
    )
    result = synchronise(capture)
    assert result.quarantined_ordinals().tolist() == [10, 11, 12, 13]
    speech = result.matches["speech"]
    tick_of_text = {item: tick for tick in range(40) for item in items_at(speech, tick)}
    # Text 2 ends before the next slice that passes, so no slice has it.
    assert tick_of_text == {0: 5, 1: 14, 3: 25}


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
def test_a_policy_that_does_not_suit_the_kind_is_an_error(kind: str, policy: str) -> None:
    camera = stream(regular_ns(20, 100 * MS), "camera", "cam")
    if kind == "audio":
        other = audio_stream(16_000, [(BOOT_NS, 32_000)], "other")
    elif kind == "text":
        other = stream([BOOT_NS], "text", "other", end_ns=[BOOT_NS + S])
    else:
        other = stream(regular_ns(20, 100 * MS), kind, "other")  # type: ignore[arg-type]
    config = SyncConfig(reference="cam", streams={"other": StreamPolicy(policy=policy)})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r'sync\.streams\."other"') as caught:
        synchronise(recording(camera, other), config)
    assert caught.value.hint


def test_every_kind_has_exactly_one_default_policy_that_can_match_it() -> None:
    defaults = [kind for policy in POLICIES.values() for kind in policy.default_kinds]
    assert sorted(defaults) == sorted(ALL_KINDS)
    assert all(kind in policy.kinds for kind, policy in DEFAULT_POLICIES.items())


def test_an_unknown_policy_is_an_error_with_file_key_nearest_name_and_all_names() -> None:
    table = {"streams": {"cam*": {"policy": "nearst"}}}
    with pytest.raises(ConfigError) as caught:
        parse_settings(table, SyncConfig, where="build.toml")
    assert str(caught.value) == (
        "build.toml: 'nearst' is not a valid value of 'sync.streams.cam*.policy'. "
        "Did you mean 'nearest'? One of: exact, nearest, interpolate, window, hold, overlap, ignore."
    )
    with pytest.raises(ConfigError, match="'nearst' is not a valid value"):
        SyncConfig(streams={"cam": StreamPolicy(policy="nearst")})


def test_a_new_policy_is_one_entry_of_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    added = SyncPolicy(
        name="closest", match=match_nearest, judged_by=JudgedBy.RESIDUAL, kinds=frozenset({"camera"})
    )
    monkeypatch.setitem(POLICIES, "closest", added)
    cameras = [stream(regular_ns(20, 100 * MS), "camera", name) for name in ("a", "b")]
    results = [
        synchronise(recording(*cameras), SyncConfig(reference="a", streams={"b": StreamPolicy(policy=name)}))
        for name in ("nearest", "closest")
    ]
    assert results[1].matches["b"].rule == replace(results[0].matches["b"].rule, policy="closest")
    assert results[1].group == results[0].group == ("a", "b")
    imu = stream(regular_ns(20, 100 * MS), "imu", "b")
    with pytest.raises(ConfigError, match="an imu stream cannot have policy = 'closest'") as caught:
        make_rule(align(imu), 100 * MS, policy="closest")
    assert caught.value.hint == "Use policy = 'interpolate'."


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
def test_a_negative_limit_or_an_empty_window_is_an_error(settings: dict[str, str], key: str) -> None:
    aligned = align(stream(regular_ns(20, 100 * MS), "imu", "other"))
    with pytest.raises(ConfigError) as caught:
        make_rule(aligned, 100 * MS, **settings)
    assert key in str(caught.value)
    assert 'sync.streams."other"' in caught.value.where
    assert caught.value.hint


def test_limits_of_zero_and_windows_before_the_tick_are_valid() -> None:
    aligned = align(stream(regular_ns(20, 100 * MS), "imu", "other"))
    match_rule = make_rule(
        aligned, 100 * MS, policy="window", before="-1s", after="1001ms", tolerance="0s", max_age="0s"
    )
    assert (match_rule.before_ns, match_rule.after_ns, match_rule.tolerance_ns, match_rule.limit_ns) == (
        -S,
        1001 * MS,
        0,
        0,
    )


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_max_backward_outside_0_to_1_is_an_error(share: float) -> None:
    with pytest.raises(ConfigError, match=rf"^build\.toml \[max_backward\]: {share} is not between 0 and 1"):
        parse_settings({"max_backward": share}, SyncConfig, where="build.toml")


@pytest.mark.parametrize(
    "rate", ["0", "-5", "x", "1e400000000", "1e9", "1/0", "2000000000", "1/100000000", "nan"]
)
def test_an_invalid_rate_is_an_error(rate: str) -> None:
    with pytest.raises(ConfigError, match="is not a rate") as caught:
        synchronise(recording(stream(regular_ns(20, 100 * MS))), SyncConfig(reference=f"rate:{rate}"))
    assert "without exponent" in caught.value.hint


def test_a_rate_with_too_many_ticks_is_an_error_with_their_number() -> None:
    with pytest.raises(ConfigError, match="1,900,000,001 ticks") as caught:
        synchronise(recording(stream(regular_ns(20, 100 * MS))), SyncConfig(reference="rate:1000000000"))
    assert caught.value.hint


def test_a_window_of_image_files_is_an_error() -> None:
    images = ImageFiles(
        folder=Path("cam"),
        names=("a.jpg", "b.jpg"),
        t_ns=regular_ns(2, 100 * MS),
        origin="file name",
        stream="cam",
    )
    capture = recording(Stream("cam", "camera", RIG, images))
    config = SyncConfig(reference="rate:5", streams={"cam*": StreamPolicy(policy="window")})
    with pytest.raises(ConfigError, match="folder of images") as caught:
        synchronise(capture, config)
    assert "nearest" in caught.value.hint


def test_a_camera_window_counts_its_frames() -> None:
    # The camera runs at 10 Hz; frames 29 to 36 are lost. A window may lack up to three periods.
    aligned = align(stream(np.delete(regular_ns(60, 100 * MS), np.s_[29:37]), "camera", "cam"))
    ticks = regular_ns(17, 400 * MS, BOOT_NS - 400 * MS)
    match = match_stream(aligned, make_rule(aligned, 400 * MS, policy="window"), ticks, 400 * MS)
    names = [MatchStatus(status).name for status in match.status.tolist()]
    assert names == ["EDGE"] + 7 * ["OK"] + ["COVERAGE", "MISSING"] + 6 * ["OK"] + ["EDGE"]
    assert match.count.tolist() == [0] + 7 * [4] + [1, 0, 3] + 5 * [4] + [0]
    wide = match_stream(
        aligned, make_rule(aligned, 400 * MS, policy="window", before="200ms"), ticks, 400 * MS
    )
    assert wide.count.tolist()[2:6] == [6, 6, 6, 6]
    assert (wide.first[3], wide.first[4]) == (6, 10)
    assert wide.aligned_ns[3] == BOOT_NS + 600 * MS


def test_the_reference_of_the_recording_applies_unless_the_config_sets_one() -> None:
    capture = recording(
        stream(regular_ns(40, 25 * MS), "camera", "cam"), stream(regular_ns(100, 10 * MS), name="imu")
    )
    with_reference = replace(capture, reference="rate:10")

    def period_ns(reference: str, source: Recording = with_reference) -> int:
        return synchronise(source, SyncConfig(reference=reference)).ticks.period_ns

    assert period_ns("auto", capture) == period_ns("cam") == 25 * MS
    assert period_ns("auto") == 100 * MS
    assert period_ns("rate:5") == 200 * MS
    with pytest.raises(DataError, match="no stream 'lidar'"):
        synchronise(replace(capture, reference="lidar"))
