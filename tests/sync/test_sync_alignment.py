"""Stamps made fit for matching: order, duplicates, sentinels, and the way from one clock to another."""

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
from tests.sync.listed_streams import BOOT_NS, MS, RIG, S, aligned, audio_stream, recording, regular, stream

GPS = Clock("gps", "gps")
BASE = Clock("base", "device")
UTC_NS = 1_700_000_000 * S


@given(st.lists(st.integers(0, 12), max_size=9))
def test_longest_ascending_leaves_out_as_few_as_any_choice_could(values: list[int]) -> None:
    kept = longest_non_descending(np.array(values, np.int64)).tolist()
    assert kept == sorted(set(kept))
    assert [values[at] for at in kept] == sorted(values[at] for at in kept)
    longest = max(
        length
        for length in range(len(values) + 1)
        for chosen in combinations(values, length)
        if list(chosen) == sorted(chosen)
    )
    assert len(kept) == longest


@given(st.integers(0, 2**32), st.integers(200, 400), st.integers(1, 2))
def test_stamps_that_jump_back_are_set_aside_and_the_rest_stays(seed: int, count: int, broken: int) -> None:
    rng = np.random.default_rng(seed)
    stamps = regular(count, 10 * MS)
    at = np.sort(rng.choice(np.arange(10, count - 10, 5), broken, replace=False))
    stamps[at] -= 25 * MS
    one = aligned(stream(stamps))
    assert one.backward.tolist() == at.tolist()
    assert one.t_ns.tolist() == np.delete(stamps, at).tolist()
    assert one.items.tolist() == np.delete(np.arange(count), at).tolist()


def test_more_stamps_out_of_order_than_allowed_refuse_the_stream() -> None:
    stamps = regular(200, 10 * MS)
    stamps[50:150:10] -= 357 * MS
    made = recording(stream(stamps, name="imu"))
    with pytest.raises(DataError, match="10 of 200 stamps are out of order") as caught:
        align_stream(made.streams["imu"], made, RIG, max_backward=0.01)
    assert "imu" in caught.value.where
    assert "max_backward" in caught.value.hint
    assert len(align_stream(made.streams["imu"], made, RIG, max_backward=0.05).t_ns) == 190


@pytest.mark.parametrize("kind", ["camera", "lidar", "event"])
def test_of_two_pictures_at_one_stamp_the_first_is_kept(kind: str) -> None:
    one = aligned(stream([BOOT_NS, BOOT_NS + S, BOOT_NS + S, BOOT_NS + 2 * S], kind))  # type: ignore[arg-type]
    assert one.items.tolist() == [0, 1, 3]
    assert one.duplicate.tolist() == [2]


@pytest.mark.parametrize("kind", ["radar", "can", "imu"])
def test_rows_of_one_stamp_are_all_kept_and_counted(kind: str) -> None:
    one = aligned(stream([BOOT_NS, BOOT_NS + S, BOOT_NS + S, BOOT_NS + 2 * S], kind))  # type: ignore[arg-type]
    assert one.items.tolist() == [0, 1, 2, 3]
    assert one.duplicate.tolist() == [2]


def test_two_people_who_begin_to_speak_at_once_are_no_duplicate() -> None:
    one = aligned(stream([BOOT_NS] * 2, "text", end_ns=[BOOT_NS + S, BOOT_NS + 2 * S]))
    assert one.items.tolist() == [0, 1]
    assert not len(one.duplicate)


def test_texts_are_put_in_order_of_time() -> None:
    one = aligned(stream([BOOT_NS + S, BOOT_NS], "text", end_ns=[BOOT_NS + 3 * S, BOOT_NS + 2 * S]))
    assert one.items.tolist() == [1, 0]
    assert one.end_ns is not None
    assert one.end_ns.tolist() == [BOOT_NS + 2 * S, BOOT_NS + 3 * S]
    assert not len(one.backward)


def test_a_few_stamps_that_are_no_times_are_set_aside() -> None:
    stamps = regular(50, 10 * MS)
    stamps[[7, 20]] = -1, np.iinfo(np.int64).max
    one = aligned(stream(stamps))
    assert one.implausible.tolist() == [7, 20]
    assert len(one.t_ns) == 48


def test_an_empty_stream_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="no items") as caught:
        aligned(stream([], name="imu"))
    assert "imu" in caught.value.where


@pytest.mark.parametrize("target", [Clock("gps", "gps"), Clock("other", "boot"), Clock("media", "media")])
def test_clocks_are_not_mixed_without_a_map(target: Clock) -> None:
    one = stream(regular(5, S), name="imu")
    with pytest.raises(ClockError, match="'rig'") as caught:
        align_stream(one, recording(one), target, max_backward=0.01)
    assert "imu" in caught.value.where
    assert f'target = "{target.name}"' in caught.value.hint


def test_a_map_is_used_in_either_direction() -> None:
    known = ClockMap("rig", "base", BOOT_NS, 77 * S, 50.0)
    there = aligned(stream(regular(100, S)), target=BASE, maps=(known,))
    assert there.t_ns.tolist() == known.apply(regular(100, S)).tolist()
    back = aligned(stream(there.t_ns, clock=BASE), target=RIG, maps=(known,))
    assert np.abs(back.t_ns - regular(100, S)).max() <= 1


def test_maps_are_chained_where_there_is_no_direct_one() -> None:
    first, second = ClockMap("rig", "base", 0, 5 * S), ClockMap("gps", "base", 0, -UTC_NS)
    one = aligned(stream([BOOT_NS]), target=GPS, maps=(first, second))
    assert one.t_ns.tolist() == [BOOT_NS + 5 * S + UTC_NS]
    assert one.to_own_clock(one.t_ns).tolist() == [BOOT_NS]


def test_utc_and_gps_need_no_map() -> None:
    utc = Clock("wall", "utc")
    one = aligned(stream([UTC_NS], clock=utc), target=GPS)
    assert one.t_ns.tolist() == [UTC_NS - 315_964_800 * S + 18 * S]


def test_ends_and_segments_go_over_the_map_too() -> None:
    known = ClockMap("base", "rig", 0, BOOT_NS)
    said = aligned(stream([0], "text", end_ns=[3 * S], clock=BASE), maps=(known,))
    assert said.end_ns is not None
    assert said.end_ns.tolist() == [BOOT_NS + 3 * S]
    heard = aligned(audio_stream(8_000, [(2 * S, 8_000)], clock=BASE), maps=(known,))
    assert heard.span_ns == (BOOT_NS + 2 * S, BOOT_NS + 3 * S)


@pytest.mark.parametrize(
    ("unit", "scale", "advice"),
    [("us", 1000, "Read as ms they would be 2023-11-14"), ("ns", 1, "Read as us they would be 2023-11-14")],
)
def test_stamps_in_the_wrong_unit_are_refused_with_the_right_one(unit: str, scale: int, advice: str) -> None:
    true_ns = UTC_NS + np.arange(20) * 100 * MS
    read_as = true_ns // (10**6 if unit == "us" else 10**3) * scale
    wall = Clock("wall", "utc")
    with pytest.raises(ClockError, match=advice) as caught:
        aligned(stream(read_as, name="imu", clock=wall, unit=unit), target=wall)
    assert "imu" in caught.value.where


def test_a_stream_on_another_epoch() -> None:
    """Required, it would quarantine everything and is refused; optional, it is reported."""
    made = recording(
        stream(regular(50, 100 * MS), "camera", "cam"),
        stream(regular(500, 10 * MS, BOOT_NS * 1000), "imu", "imu"),
    )
    with pytest.raises(DataError, match="they share no moment") as caught:
        synchronise(made, SyncConfig(reference="cam"))
    assert "imu" in caught.value.where
    optional = SyncConfig(reference="cam", streams={"imu": StreamPolicy(required=False)})
    result = synchronise(made, optional)
    assert result.passed.all()
    assert ("no_overlap", "imu") in {(finding.kind, finding.stream) for finding in result.findings}
