"""Time tokens: names, and the token of a time."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpack.errors import ConfigError, DataError
from mmpack.layout import TimeLayout


def test_names_run_from_zero_to_the_span() -> None:
    names = TimeLayout().token_names()
    assert len(names) == 601
    assert names[:2] == ("<|t_0.0s|>", "<|t_0.1s|>")
    assert names[-1] == "<|t_60.0s|>"
    assert TimeLayout(step="1s", span="2s").token_names() == ("<|t_0.0s|>", "<|t_1.0s|>", "<|t_2.0s|>")
    assert TimeLayout(step="1050ms", span="2.1s").token_names() == (
        "<|t_0.00s|>",
        "<|t_1.05s|>",
        "<|t_2.10s|>",
    )


@given(st.integers(1, 10**10), st.integers(0, 200))
def test_each_name_is_a_different_exact_time(step_ns: int, steps: int) -> None:
    layout = TimeLayout(step=f"{step_ns}ns", span=f"{step_ns * steps}ns")
    names = layout.token_names()
    assert len(set(names)) == steps + 1
    for index, name in enumerate(names):
        match = re.fullmatch(r"<\|t_(\d+\.\d+)s\|>", name)
        assert match
        assert Fraction(match[1]) * 10**9 == index * step_ns


@given(st.lists(st.integers(0, 2**63 - 1), max_size=20), st.integers(1, 10**9), st.integers(0, 500))
def test_a_time_gets_the_nearest_token_and_at_most_the_last(times: list[int], step: int, steps: int) -> None:
    layout = TimeLayout(step=f"{step}ns", span=f"{step * steps}ns")
    indices = layout.token_indices(np.array(times, dtype=np.int64))
    assert indices.dtype == np.int32
    for time, index in zip(times, indices.tolist(), strict=True):
        assert index == min(steps, int(Fraction(time, step) + Fraction(1, 2)))


def test_a_time_before_the_start_or_in_float_is_an_error() -> None:
    with pytest.raises(DataError, match="-1 ns"):
        TimeLayout().token_indices([5, -1])
    with pytest.raises(DataError, match="float64"):
        TimeLayout().token_indices(0.5)


@pytest.mark.parametrize(
    ("step", "span"),
    [
        ("0s", "1s"),
        ("-1s", "1s"),
        ("1s", "-1s"),
        ("1s", "1500ms"),
        ("1ns", "1s"),
        ("10000h", "20000h"),
        ("soon", "1s"),
    ],
)
def test_invalid_steps_and_spans_are_errors(step: str, span: str) -> None:
    with pytest.raises(ConfigError):
        TimeLayout(step=step, span=span)
