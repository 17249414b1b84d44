"""Values at the ticks: linear interpolation of rows and spherical interpolation of rotations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmpack.errors import ConfigError
from mmpack.sync import interpolate_rows, slerp
from mmpack.sync.policies.registry import match_stream
from tests.sync.listed_streams import BOOT_NS, MS, align, make_rule, regular_ns, stream

components = st.floats(-1, 1)
quaternions = (
    st.tuples(components, components, components, components)
    .map(np.array)
    .filter(lambda q: np.linalg.norm(q) > 0.1)
)
shares = st.floats(0, 1)


def rotation(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the rotation matrix of (w, x, y, z), shape (3, 3)."""
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def rotate_by_share(
    start: NDArray[np.float64], stop: NDArray[np.float64], share: float
) -> NDArray[np.float64]:
    """Returns the rotation `share` of the angle from `start` to `stop` (formula of Rodrigues)."""
    difference = start.T @ stop
    angle = np.arccos(np.clip((np.trace(difference) - 1) / 2, -1, 1))
    skew = (difference - difference.T) / (2 * np.sin(angle))
    turn = share * angle
    return start @ (np.eye(3) + np.sin(turn) * skew + (1 - np.cos(turn)) * (skew @ skew))


@given(quaternions, quaternions, shares)
def test_slerp_returns_unit_quaternions_and_meets_both_ends(
    start: NDArray[np.float64], stop: NDArray[np.float64], share: float
) -> None:
    assert np.linalg.norm(slerp(start, stop, share)) == pytest.approx(1)
    # If the rotations are half a turn apart, both arcs are equally short, but the end points are the same.
    assert rotation(slerp(start, stop, 0.0)) == pytest.approx(rotation(start), abs=1e-6)
    assert rotation(slerp(start, stop, 1.0)) == pytest.approx(rotation(stop), abs=1e-6)


@given(quaternions, quaternions, shares)
def test_slerp_rotates_by_a_share_of_the_angle(
    start: NDArray[np.float64], stop: NDArray[np.float64], share: float
) -> None:
    difference = rotation(start).T @ rotation(stop)
    angle = np.arccos(np.clip((np.trace(difference) - 1) / 2, -1, 1))
    assume(0.01 < angle < 3.1)  # the reference divides by sin(angle)
    expected = rotate_by_share(rotation(start), rotation(stop), share)
    assert rotation(slerp(start, stop, share)) == pytest.approx(expected, abs=1e-6)


@given(quaternions, shares, st.floats(-1e-6, 1e-6))
def test_slerp_between_almost_equal_rotations_is_finite_and_close(
    start: NDArray[np.float64], share: float, change: float
) -> None:
    result = slerp(start, start + change, share)
    assert rotation(result) == pytest.approx(rotation(start), abs=1e-4)


@given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4), st.integers(0, 10 * MS))
def test_interpolated_rows_are_linear_in_time(values: list[float], after_ns: int) -> None:
    aligned = align(stream(regular_ns(2, 10 * MS)))
    tick = BOOT_NS + after_ns
    match = match_stream(aligned, make_rule(aligned, 10 * MS), np.array([tick]), 10 * MS)
    rows, timestamps = interpolate_rows(match, 0, tick, np.reshape(values, (2, 2)), ("a", "b"))
    share = after_ns / (10 * MS)
    expected = [values[0] * (1 - share) + values[2] * share, values[1] * (1 - share) + values[3] * share]
    assert rows[0] == pytest.approx(expected, abs=1e-6)
    assert timestamps.tolist() == [tick]


def test_discarded_rows_are_not_used_for_interpolation() -> None:
    timestamps = regular_ns(5, 10 * MS)
    timestamps[2] -= 25 * MS
    aligned = align(stream(timestamps))
    tick = BOOT_NS + 20 * MS
    match = match_stream(aligned, make_rule(aligned, 10 * MS), np.array([tick]), 10 * MS)
    rows, _ = interpolate_rows(match, 0, tick, np.array([[0.0], [1.0], [1000.0], [3.0], [4.0]]), ("a",))
    assert rows.tolist() == [[2.0]]


def test_quaternion_columns_are_interpolated_on_the_sphere_and_others_linearly() -> None:
    half = np.sqrt(0.5)
    values = np.array([[0.0, 1.0, 0.0, 0.0, 0.0], [10.0, half, 0.0, 0.0, half]])  # a quarter turn about z
    aligned = align(stream(regular_ns(2, 10 * MS)))
    match_rule = make_rule(aligned, 10 * MS, quaternion=("w", "x", "y", "z"))
    tick = BOOT_NS + 5 * MS
    match = match_stream(aligned, match_rule, np.array([tick]), 10 * MS)
    rows, _ = interpolate_rows(match, 0, tick, values, ("speed", "w", "x", "y", "z"))
    assert rows[0] == pytest.approx([5.0, np.cos(np.pi / 8), 0, 0, np.sin(np.pi / 8)])
    with pytest.raises(ConfigError, match="'w'") as caught:
        interpolate_rows(match, 0, tick, values, ("speed", "q0", "q1", "q2", "q3"))
    assert "q0" in caught.value.hint


def test_a_held_value_keeps_its_timestamp_and_a_tick_without_items_has_no_row() -> None:
    aligned = align(stream([BOOT_NS, BOOT_NS, BOOT_NS + 10 * MS], "radar"))
    ticks = np.array([BOOT_NS - 1, BOOT_NS + 5 * MS])
    match = match_stream(aligned, make_rule(aligned, 10 * MS), ticks, 10 * MS)
    values = np.array([[1.0], [2.0], [3.0]])
    rows, timestamps = interpolate_rows(match, 0, int(ticks[0]), values, ("a",))
    assert (rows.shape, timestamps.shape) == ((0, 1), (0,))
    rows, timestamps = interpolate_rows(match, 1, int(ticks[1]), values, ("a",))
    assert rows.tolist() == [[1.0], [2.0]]
    assert timestamps.tolist() == [BOOT_NS, BOOT_NS]
