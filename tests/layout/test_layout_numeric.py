"""Numeric streams: bins and token counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mmpack.errors import ConfigError, DataError
from mmpack.layout import NumericLayout

LOW = (-1.0, 0.0, -180.0)
HIGH = (1.0, 1e-3, 180.0)
ACTION = NumericLayout(name="action", width=3, mode="discrete", low=LOW, high=HIGH, role="action")


@given(array_shapes(max_dims=2, max_side=20), st.integers(2, 1000), st.data())
def test_decoded_values_are_within_half_a_bin(shape: tuple[int, ...], bins: int, data: st.DataObject) -> None:
    stream = NumericLayout(name="a", width=3, mode="discrete", bins=bins, low=LOW, high=HIGH)
    unit = data.draw(arrays(np.float64, (*shape, 3), elements=st.floats(0, 1)))
    low, high = np.array(LOW), np.array(HIGH)
    values = low + unit * (high - low)
    codes = stream.encode(values)
    assert codes.dtype == np.int32
    assert codes.shape == values.shape
    half_bin = (high - low) / bins / 2
    assert (np.abs(stream.decode(codes) - values) <= half_bin * (1 + 1e-9)).all()


@given(st.integers(2, 65_536), st.data())
def test_the_middle_of_a_bin_is_in_the_bin(bins: int, data: st.DataObject) -> None:
    stream = NumericLayout(name="a", width=1, mode="discrete", bins=bins, low=-3.7, high=0.1)
    codes = data.draw(arrays(np.int32, (10, 1), elements=st.integers(0, bins - 1)))
    assert (stream.encode(stream.decode(codes)) == codes).all()


@given(st.lists(st.floats(allow_nan=False), min_size=2, max_size=2).map(sorted))
def test_bins_are_in_the_order_of_the_values_and_clamped(pair: list[float]) -> None:
    stream = NumericLayout(name="a", width=1, mode="discrete", low=-1, high=1)
    lesser, greater = stream.encode(np.array(pair)[:, None])[:, 0]
    assert 0 <= lesser <= greater <= 255
    assert stream.encode([-np.inf])[0] == 0
    assert stream.encode([np.inf])[0] == 255


def test_one_limit_applies_to_all_values() -> None:
    common = NumericLayout(name="a", width=2, mode="discrete", low=-1, high=1)
    separate = NumericLayout(name="a", width=2, mode="discrete", low=(-1, -1), high=(1, 1))
    assert common.limits() == separate.limits() == ((-1.0, -1.0), (1.0, 1.0))
    assert common.to_canonical() == separate.to_canonical()


def test_a_table_row_takes_one_token_or_one_per_value() -> None:
    assert NumericLayout(name="imu", width=6).num_tokens(10) == 10
    assert ACTION.num_tokens(10) == 30
    assert ACTION.num_tokens(0) == 0
    with pytest.raises(DataError, match="imu"):
        NumericLayout(name="imu", width=6).num_tokens(-1)


def test_nan_is_an_error_that_names_its_index() -> None:
    values = np.zeros((4, 3))
    values[2, 1] = np.nan
    with pytest.raises(DataError, match=r"\(2, 1\)"):
        ACTION.encode(values)


@pytest.mark.parametrize("shape", [(), (2,), (3, 4)])
def test_another_width_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="width 3"):
        ACTION.encode(np.zeros(shape))
    with pytest.raises(DataError, match="width 3"):
        ACTION.decode(np.zeros(shape, dtype=int))


@pytest.mark.parametrize("code", [-1, 256])
def test_a_code_that_is_not_a_bin_is_an_error(code: int) -> None:
    with pytest.raises(DataError, match="255"):
        ACTION.decode([0, code, 0])


def test_a_continuous_stream_has_no_bins() -> None:
    stream = NumericLayout(name="imu", width=1)
    with pytest.raises(ConfigError, match="imu"):
        stream.encode([0.0])
    with pytest.raises(ConfigError, match="imu"):
        stream.decode([0])


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"width": 0}, "width"),
        ({"bins": 1}, "bins"),
        ({"bins": 70_000}, "bins"),
        ({"low": None}, "low"),
        ({"high": None}, "high"),
        ({"low": (0.0,)}, "low"),
        ({"low": 1.0}, "low, high"),
        ({"high": float("inf")}, "low, high"),
        ({"high": float("nan")}, "low, high"),
        ({"low": 1e16, "high": 1e16 + 2}, "bins"),
    ],
)
def test_invalid_settings_are_errors_that_name_the_key(settings: dict, key: str) -> None:
    valid = {"name": "a", "width": 2, "mode": "discrete", "low": -1.0, "high": 1.0}
    with pytest.raises(ConfigError) as caught:
        NumericLayout(**{**valid, **settings})
    assert caught.value.where == f"layout.numeric.a.{key}"
