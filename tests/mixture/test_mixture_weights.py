"""Shares as integers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpack.mixture.weights import (
    SCALE,
    integer_weights,
    share_weights,
    split_proportionally,
    temperature_weights,
)

PARTS = st.lists(st.integers(0, 10**30), min_size=1, max_size=60).filter(any)
SIZES = st.lists(st.integers(1, 10**15), min_size=1, max_size=60)


@given(st.integers(0, 1 << 40), PARTS)
def test_a_split_is_complete_and_within_one_of_the_proportion(total: int, parts: list[int]) -> None:
    shares = split_proportionally(total, parts)
    assert sum(shares) == total
    for share, part in zip(shares, parts, strict=True):
        assert abs(share * sum(parts) - total * part) < sum(parts)


def test_ties_go_to_the_lower_index() -> None:
    assert split_proportionally(5, [1, 1, 1]) == [2, 2, 1]
    assert integer_weights([7, 7, 7]) == [SCALE // 3 + 1, SCALE // 3, SCALE // 3]


@given(PARTS)
def test_weights_sum_to_the_scale_and_every_positive_part_has_one(parts: list[int]) -> None:
    weights = integer_weights(parts)
    assert sum(weights) == SCALE
    assert all((weight > 0) == (part > 0) for weight, part in zip(weights, parts, strict=True))


@given(SIZES, st.floats(0.3, 20), st.data())
def test_temperature_weights_follow_the_formula(
    sizes: list[int], temperature: float, data: st.DataObject
) -> None:
    factors = data.draw(st.lists(st.floats(0.01, 100), min_size=len(sizes), max_size=len(sizes)))
    weights = temperature_weights(sizes, temperature, factors)
    logs = [math.log(w) + math.log(n) / temperature for n, w in zip(sizes, factors, strict=True)]
    parts = [math.exp(log - max(logs)) for log in logs]
    for weight, part in zip(weights, parts, strict=True):
        # Tiny shares are raised to a weight of 1, which lowers the largest weights.
        assert weight / SCALE == pytest.approx(part / sum(parts), abs=(len(sizes) + 1) / SCALE)
    assert sum(weights) == SCALE


def test_temperature_above_one_flattens_and_below_one_amplifies() -> None:
    sizes = [10**12, 10**9]
    at = {t: temperature_weights(sizes, t, [1, 1])[0] / SCALE for t in (0.5, 1.0, 1.2, 3.0, 5.0, 1e300)}
    assert at[1.0] == pytest.approx(1000 / 1001, abs=1e-7)
    assert at[0.5] > at[1.0] > at[1.2] > at[3.0] > at[5.0]
    assert at[1e300] == 0.5


@pytest.mark.parametrize("temperature", [1e-300, 1e-3, 0.1])
def test_a_tiny_temperature_gives_all_data_sets_but_one_the_smallest_weight(temperature: float) -> None:
    assert temperature_weights([10**15, 10**14, 1], temperature, [1, 1, 1])[1:] <= [SCALE // 10**9 + 1, 1]
    assert sum(temperature_weights([10**15, 10**14, 1], temperature, [1, 1, 1])) == SCALE


def test_weights_are_the_same_on_every_machine() -> None:
    sizes = [9 * 10**12, 2 * 10**12, 4 * 10**11, 6 * 10**10, 5 * 10**9]
    assert temperature_weights(sizes, 1.2, [1] * 5) == [12179346, 3477605, 909505, 187161, 23599]
    assert temperature_weights(sizes, 5.0, [1, 1, 2, 0, 0.5]) == temperature_weights(
        sizes, 5.0, [2, 2, 4, 0, 1]
    )


def test_shares_are_exact_decimals() -> None:
    assert share_weights([0.1, 0.2, 0.1]) == [SCALE // 4, SCALE // 2, SCALE // 4]
    assert share_weights([1, 0, 3]) == [SCALE // 4, 0, SCALE * 3 // 4]
    assert share_weights([1e300, 5e-324]) == [SCALE - 1, 1]
