"""The quota curve, with data sets that are exhausted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpack.errors import ConfigError
from mmpack.mixture import SCALE, PhaseConfig, mixture_schedule, quota_curve
from tests.examples import examples
from tests.mixture.mixture_cases import SEED_PHASES, SIZES, MixtureCase, cases


@settings(max_examples=examples(50))
@given(cases(), st.data())
def test_due_tokens_sum_to_the_drawn_tokens_and_stay_below_the_caps(
    case: MixtureCase, data: st.DataObject
) -> None:
    curve = case.curve
    end = 10**12 if curve.end_tokens is None else curve.end_tokens
    early, late = sorted(data.draw(st.lists(st.integers(0, end), min_size=2, max_size=2)))
    assert (curve.weights.sum(axis=1) == SCALE).all()
    assert sum(curve.tokens_at(late)) == late * SCALE
    for before, after, cap in zip(
        curve.tokens_at(early), curve.tokens_at(late), curve.available.tolist(), strict=True
    ):
        assert 0 <= before <= after <= cap * SCALE
    if curve.end_tokens is not None:
        assert curve.tokens_at(end + 5) == curve.tokens_at(end)


@settings(max_examples=examples(50))
@given(cases(), st.integers(0, 1 << 20))
def test_inverse_returns_the_point_at_which_the_tokens_are_due(case: MixtureCase, tokens: int) -> None:
    curve = case.curve
    for dataset in range(len(curve.available)):
        segment, total, rest = curve.inverse(dataset, tokens)
        if segment == len(curve.start_tokens):
            assert curve.tokens_at(int(curve.segment_edges[-1]))[dataset] < tokens * SCALE
        else:
            assert curve.tokens_at(total)[dataset] + rest == tokens * SCALE
            assert rest == 0 or rest < curve.weights[segment, dataset]


@settings(max_examples=examples(50))
@given(cases())
def test_an_exhausted_data_set_has_contributed_all_available_tokens(case: MixtureCase) -> None:
    curve = case.curve
    for dataset, tokens in curve.exhausted:
        assert curve.tokens_at(tokens)[dataset] == int(curve.available[dataset]) * SCALE
        later = curve.start_tokens >= tokens
        assert not curve.weights[later, dataset].any()


def test_the_other_data_sets_divide_the_share_of_an_exhausted_one_in_proportion() -> None:
    phase = PhaseConfig(name="a", shares={"x": 2, "y": 1, "z": 1})
    curve = quota_curve(mixture_schedule([phase], {"x": 1, "y": 1, "z": 1}), [None, None, 50])
    assert curve.exhausted == ((2, 200),)
    assert curve.start_tokens.tolist() == [0, 200]
    assert curve.weights.tolist()[0] == [SCALE // 2, SCALE // 4, SCALE // 4]
    assert curve.weights[1].tolist() == pytest.approx([SCALE * 2 / 3, SCALE / 3, 0], abs=1)
    assert curve.ends_by == "never"


def test_a_data_set_may_be_exhausted_within_a_token() -> None:
    phase = PhaseConfig(name="a", shares={"x": 2, "y": 1}, tokens=100)
    curve = quota_curve(mixture_schedule([phase], {"x": 1, "y": 1}), [None, 5])
    ((dataset, tokens),) = curve.exhausted
    assert (dataset, tokens) in ((1, 15), (1, 16))
    assert curve.tokens_at(100) == [95 * SCALE, 5 * SCALE]


def test_the_curve_ends_where_all_data_sets_of_a_phase_are_exhausted() -> None:
    phases = [
        PhaseConfig(name="a", tokens=100, datasets=("x", "y")),
        PhaseConfig(name="b", tokens=100, datasets=("x",)),
    ]
    curve = quota_curve(mixture_schedule(phases, {"x": 50, "y": 50}), [70, 1000])
    assert (curve.ends_by, curve.end_tokens, curve.exhausted) == ("data", 120, ((0, 120),))
    both = quota_curve(mixture_schedule([PhaseConfig(name="a")], {"x": 50, "y": 70}), [50, 70])
    assert (both.ends_by, both.end_tokens) == ("data", 120)
    assert both.tokens_at(120) == [50 * SCALE, 70 * SCALE]


def test_the_curve_without_caps_equals_the_schedule() -> None:
    schedule = mixture_schedule(SEED_PHASES, SIZES)
    curve = quota_curve(schedule, [None] * 5)
    assert curve.weights.tolist() == schedule.weights.tolist()
    assert curve.segment_edges.tolist() == [*schedule.start_tokens.tolist(), schedule.end_tokens]
    assert curve.ends_by == "schedule"


def test_invalid_caps_are_an_error() -> None:
    with pytest.raises(ConfigError, match="1 caps for 5"):
        quota_curve(mixture_schedule(SEED_PHASES, SIZES), [None])
    with pytest.raises(ConfigError, match="negative number of available tokens"):
        quota_curve(mixture_schedule(SEED_PHASES, SIZES), [-1] * 5)
    with pytest.raises(ConfigError, match=r"phases\.cold: no data set of the phase may"):
        quota_curve(mixture_schedule(SEED_PHASES, SIZES), [0] * 5)


def test_a_data_set_without_available_tokens_has_no_share() -> None:
    curve = quota_curve(mixture_schedule([PhaseConfig(name="a")], {"x": 1, "y": 1}), [0, None])
    assert curve.weights.tolist() == [[0, SCALE]]
