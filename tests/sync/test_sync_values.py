"""Values at the ticks: lines between rows, arcs between rotations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmpack.errors import ConfigError
from mmpack.sync import interpolate_rows, slerp
from mmpack.sync.policies import match_stream
from tests.sync.listed_streams import BOOT_NS, MS, aligned, regular, rule, stream

parts = st.floats(-1, 1)
quaternions = st.tuples(parts, parts, parts, parts).map(np.array).filter(lambda q: np.linalg.norm(q) > 0.1)
shares = st.floats(0, 1)


def rotation(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation matrix of (w, x, y, z)."""
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def turned(start: NDArray[np.float64], stop: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """`start` turned by `share` of the way to `stop`, about the axis of that way (Rodrigues)."""
    way = start.T @ stop
    angle = np.arccos(np.clip((np.trace(way) - 1) / 2, -1, 1))
    skew = (way - way.T) / (2 * np.sin(angle))
    part = share * angle
    return start @ (np.eye(3) + np.sin(part) * skew + (1 - np.cos(part)) * (skew @ skew))


@given(quaternions, quaternions, shares)
def test_slerp_stays_on_the_sphere_and_meets_its_ends(
    start: NDArray[np.float64], stop: NDArray[np.float64], share: float
) -> None:
    assert np.linalg.norm(slerp(start, stop, share)) == pytest.approx(1)
    # Where the two are half a turn apart both ways are equally short, but the ends are the ends.
    assert rotation(slerp(start, stop, 0.0)) == pytest.approx(rotation(start), abs=1e-6)
    assert rotation(slerp(start, stop, 1.0)) == pytest.approx(rotation(stop), abs=1e-6)


@given(quaternions, quaternions, shares)
def test_slerp_is_the_rotation_by_a_share_of_the_angle(
    start: NDArray[np.float64], stop: NDArray[np.float64], share: float
) -> None:
    way = rotation(start).T @ rotation(stop)
    angle = np.arccos(np.clip((np.trace(way) - 1) / 2, -1, 1))
    assume(0.01 < angle < 3.1)  # the reference divides by sin(angle)
    expected = turned(rotation(start), rotation(stop), share)
    assert rotation(slerp(start, stop, share)) == pytest.approx(expected, abs=1e-6)


@given(quaternions, shares, st.floats(-1e-6, 1e-6))
def test_slerp_between_almost_equal_rotations_is_finite_and_close(
    start: NDArray[np.float64], share: float, by: float
) -> None:
    got = slerp(start, start + by, share)
    assert rotation(got) == pytest.approx(rotation(start), abs=1e-4)


@given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4), st.integers(0, 10 * MS))
def test_interpolated_rows_lie_on_the_line(values: list[float], into_ns: int) -> None:
    one = aligned(stream(regular(2, 10 * MS)))
    tick = BOOT_NS + into_ns
    found = match_stream(one, rule(one, 10 * MS), np.array([tick]), 10 * MS)
    rows, stamps = interpolate_rows(found, 0, tick, np.reshape(values, (2, 2)), ("a", "b"))
    share = into_ns / (10 * MS)
    expected = [values[0] * (1 - share) + values[2] * share, values[1] * (1 - share) + values[3] * share]
    assert rows[0] == pytest.approx(expected, abs=1e-6)
    assert stamps.tolist() == [tick]


def test_rows_set_aside_are_not_interpolated_with() -> None:
    stamps = regular(5, 10 * MS)
    stamps[2] -= 25 * MS
    one = aligned(stream(stamps))
    tick = BOOT_NS + 20 * MS
    found = match_stream(one, rule(one, 10 * MS), np.array([tick]), 10 * MS)
    rows, _ = interpolate_rows(found, 0, tick, np.array([[0.0], [1.0], [1000.0], [3.0], [4.0]]), ("a",))
    assert rows.tolist() == [[2.0]]


def test_quaternion_columns_go_round_and_the_others_straight() -> None:
    half = np.sqrt(0.5)
    values = np.array([[0.0, 1.0, 0.0, 0.0, 0.0], [10.0, half, 0.0, 0.0, half]])  # a quarter turn about z
    one = aligned(stream(regular(2, 10 * MS)))
    law = rule(one, 10 * MS, quaternion=("w", "x", "y", "z"))
    tick = BOOT_NS + 5 * MS
    found = match_stream(one, law, np.array([tick]), 10 * MS)
    rows, _ = interpolate_rows(found, 0, tick, values, ("speed", "w", "x", "y", "z"))
    assert rows[0] == pytest.approx([5.0, np.cos(np.pi / 8), 0, 0, np.sin(np.pi / 8)])
    with pytest.raises(ConfigError, match="'w'") as caught:
        interpolate_rows(found, 0, tick, values, ("speed", "q0", "q1", "q2", "q3"))
    assert "q0" in caught.value.hint


def test_a_held_value_keeps_its_own_stamp_and_nothing_gives_no_row() -> None:
    one = aligned(stream([BOOT_NS, BOOT_NS, BOOT_NS + 10 * MS], "radar"))
    ticks = np.array([BOOT_NS - 1, BOOT_NS + 5 * MS])
    found = match_stream(one, rule(one, 10 * MS), ticks, 10 * MS)
    values = np.array([[1.0], [2.0], [3.0]])
    rows, stamps = interpolate_rows(found, 0, int(ticks[0]), values, ("a",))
    assert (rows.shape, stamps.shape) == ((0, 1), (0,))
    rows, stamps = interpolate_rows(found, 1, int(ticks[1]), values, ("a",))
    assert rows.tolist() == [[1.0], [2.0]]
    assert stamps.tolist() == [BOOT_NS, BOOT_NS]
