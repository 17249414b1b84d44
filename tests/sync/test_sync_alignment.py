"""Alignment of timestamps: order, duplicates, implausible values, and the mapping between clocks."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpack.clock import Clock, ClockMap
from mmpack.errors import ClockError, DataError
from mmpack.sync import StreamPolicy, SyncConfig, synchronise
from mmpack.sync.alignment.align import align_stream, longest_non_descending
from tests.sync.listed_streams import BOOT_NS, MS, RIG, S, align, audio_stream, recording, regular_ns, stream

GPS = Clock("gps", "gps")
BASE = Clock("base", "device")
UTC_NS = 1_700_000_000 * S


@given(st.lists(st.integers(0, 12), max_size=9))
def test_longest_non_descending_has_the_length_of_the_best_subsequence(values: list[int]) -> None:
    indices = longest_non_descending(np.array(values, np.int64)).tolist()
    assert indices == sorted(set(indices))
    assert [values[index] for index in indices] == sorted(values[index] for index in indices)
    longest = max(
        length
        for length in range(len(values) + 1)
        for subsequence in combinations(values, length)
        if list(subsequence) == sorted(subsequence)
    )
    assert len(indices) == longest


@given(st.integers(0, 2**32), st.integers(200, 400), st.integers(1, 2))
def test_backward_timestamps_are_discarded_and_all_others_are_kept(
    seed: int, count: int, num_backward: int
) -> None:
    rng = np.random.default_rng(seed)
    timestamps = regular_ns(count, 10 * MS)
    backward = np.sort(rng.choice(np.arange(10, count - 10, 5), num_backward, replace=False))
    timestamps[backward] -= 25 * MS
    aligned = align(stream(timestamps))
    assert aligned.backward.tolist() == backward.tolist()
    assert aligned.t_ns.tolist() == np.delete(timestamps, backward).tolist()
    assert aligned.items.tolist() == np.delete(np.arange(count), backward).tolist()


def test_too_many_timestamps_out_of_order_are_an_error() -> None:
    timestamps = regular_ns(200, 10 * MS)
    timestamps[50:150:10] -= 357 * MS
    capture = recording(stream(timestamps, name="imu"))
    with pytest.raises(DataError, match="10 of 200 timestamps are out of order") as caught:
        align_stream(capture.streams["imu"], capture, RIG, max_backward=0.01)
    assert "imu" in caught.value.where
    assert "max_backward" in caught.value.hint
    assert len(align_stream(capture.streams["imu"], capture, RIG, max_backward=0.05).t_ns) == 190


@pytest.mark.parametrize("kind", ["camera", "lidar", "event"])
def test_the_first_of_two_images_with_one_timestamp_is_kept(kind: str) -> None:
    aligned = align(stream([BOOT_NS, BOOT_NS + S, BOOT_NS + S, BOOT_NS + 2 * S], kind))  # type: ignore[arg-type]
    assert aligned.items.tolist() == [0, 1, 3]
    assert aligned.duplicate.tolist() == [2]


@pytest.mark.parametrize("kind", ["radar", "can", "imu"])
def test_table_rows_with_one_timestamp_are_all_kept_and_counted_as_duplicates(kind: str) -> None:
    aligned = align(stream([BOOT_NS, BOOT_NS + S, BOOT_NS + S, BOOT_NS + 2 * S], kind))  # type: ignore[arg-type]
    assert aligned.items.tolist() == [0, 1, 2, 3]
    assert aligned.duplicate.tolist() == [2]


def test_two_texts_with_one_start_are_no_duplicate() -> None:
    aligned = align(stream([BOOT_NS] * 2, "text", end_ns=[BOOT_NS + S, BOOT_NS + 2 * S]))
    assert aligned.items.tolist() == [0, 1]
    assert not len(aligned.duplicate)


def test_texts_are_sorted_by_start() -> None:
    aligned = align(stream([BOOT_NS + S, BOOT_NS], "text", end_ns=[BOOT_NS + 3 * S, BOOT_NS + 2 * S]))
    assert aligned.items.tolist() == [1, 0]
    assert aligned.end_ns is not None
    assert aligned.end_ns.tolist() == [BOOT_NS + 2 * S, BOOT_NS + 3 * S]
    assert not len(aligned.backward)


def test_a_few_implausible_timestamps_are_discarded() -> None:
    timestamps = regular_ns(50, 10 * MS)
    timestamps[[7, 20]] = -1, np.iinfo(np.int64).max
    aligned = align(stream(timestamps))
    assert aligned.implausible.tolist() == [7, 20]
    assert len(aligned.t_ns) == 48


def test_an_empty_stream_is_an_error_that_names_the_stream() -> None:
    with pytest.raises(DataError, match="no items") as caught:
        align(stream([], name="imu"))
    assert "imu" in caught.value.where


@pytest.mark.parametrize("target", [Clock("gps", "gps"), Clock("other", "boot"), Clock("media", "media")])
def test_two_clocks_without_a_clock_map_are_an_error(target: Clock) -> None:
    with pytest.raises(ClockError, match="'rig'") as caught:
        align(stream(regular_ns(5, S), name="imu"), target=target)
    assert "imu" in caught.value.where
    assert f'target = "{target.name}"' in caught.value.hint


def test_a_clock_map_is_used_in_both_directions() -> None:
    clock_map = ClockMap(
        source="rig", target="base", anchor_source_ns=BOOT_NS, anchor_target_ns=77 * S, drift_ppm=50.0
    )
    forward = align(stream(regular_ns(100, S)), target=BASE, maps=(clock_map,))
    assert forward.t_ns.tolist() == clock_map.apply(regular_ns(100, S)).tolist()
    inverse = align(stream(forward.t_ns, clock=BASE), target=RIG, maps=(clock_map,))
    assert np.abs(inverse.t_ns - regular_ns(100, S)).max() <= 1


def test_clock_maps_are_combined_if_no_direct_map_exists() -> None:
    first, second = (
        ClockMap(source="rig", target="base", anchor_source_ns=0, anchor_target_ns=5 * S),
        ClockMap(source="gps", target="base", anchor_source_ns=0, anchor_target_ns=-UTC_NS),
    )
    aligned = align(stream([BOOT_NS]), target=GPS, maps=(first, second))
    assert aligned.t_ns.tolist() == [BOOT_NS + 5 * S + UTC_NS]
    assert aligned.to_own_clock(aligned.t_ns).tolist() == [BOOT_NS]


def test_utc_and_gps_need_no_clock_map() -> None:
    utc = Clock("wall", "utc")
    aligned = align(stream([UTC_NS], clock=utc), target=GPS)
    assert aligned.t_ns.tolist() == [UTC_NS - 315_964_800 * S + 18 * S]


def test_ends_and_audio_segments_are_mapped_too() -> None:
    clock_map = ClockMap(source="base", target="rig", anchor_source_ns=0, anchor_target_ns=BOOT_NS)
    texts = align(stream([0], "text", end_ns=[3 * S], clock=BASE), maps=(clock_map,))
    assert texts.end_ns is not None
    assert texts.end_ns.tolist() == [BOOT_NS + 3 * S]
    audio = align(audio_stream(8_000, [(2 * S, 8_000)], clock=BASE), maps=(clock_map,))
    assert audio.span_ns == (BOOT_NS + 2 * S, BOOT_NS + 3 * S)


@pytest.mark.parametrize(
    ("unit", "scale", "suggestion"),
    [("us", 1000, "Read as ms they would be 2023-11-14"), ("ns", 1, "Read as us they would be 2023-11-14")],
)
def test_timestamps_in_the_wrong_unit_are_an_error_that_suggests_the_right_unit(
    unit: str, scale: int, suggestion: str
) -> None:
    true_ns = UTC_NS + np.arange(20) * 100 * MS
    wrong_ns = true_ns // (10**6 if unit == "us" else 10**3) * scale
    wall = Clock("wall", "utc")
    with pytest.raises(ClockError, match=suggestion) as caught:
        align(stream(wrong_ns, name="imu", clock=wall, unit=unit), target=wall)
    assert "imu" in caught.value.where


def test_a_stream_on_another_epoch_is_an_error_if_required_and_a_finding_if_optional() -> None:
    capture = recording(
        stream(regular_ns(50, 100 * MS), "camera", "cam"),
        stream(regular_ns(500, 10 * MS, BOOT_NS * 1000), "imu", "imu"),
    )
    with pytest.raises(DataError, match="they do not overlap") as caught:
        synchronise(capture, SyncConfig(reference="cam"))
    assert "imu" in caught.value.where
    optional = SyncConfig(reference="cam", streams={"imu": StreamPolicy(required=False)})
    result = synchronise(capture, optional)
    assert result.passed.all()
    assert ("no_overlap", "imu") in {(finding.kind, finding.stream) for finding in result.findings}
