"""What is due when, with data sets that run out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpack.errors import ConfigError
from mmpack.mixture import SCALE, PhaseConfig, mixture_schedule, quota_curve
from tests.mixture.mixture_cases import SEED_PHASES, SIZES, MixtureCase, cases


@settings(max_examples=50)
@given(cases(), st.data())
def test_all_that_was_drawn_is_due_to_someone_and_no_one_is_due_more_than_it_has(
    case: MixtureCase, data: st.DataObject
) -> None:
    course = case.course
    end = 10**12 if course.end_tokens is None else course.end_tokens
    early, late = sorted(data.draw(st.lists(st.integers(0, end), min_size=2, max_size=2)))
    assert (course.weights.sum(axis=1) == SCALE).all()
    assert sum(course.tokens_at(late)) == late * SCALE
    for before, after, cap in zip(
        course.tokens_at(early), course.tokens_at(late), course.available.tolist(), strict=True
    ):
        assert 0 <= before <= after <= cap * SCALE
    if course.end_tokens is not None:
        assert course.tokens_at(end + 5) == course.tokens_at(end)


@settings(max_examples=50)
@given(cases(), st.integers(0, 1 << 20))
def test_a_place_is_where_the_tokens_fall_due(case: MixtureCase, tokens: int) -> None:
    course = case.course
    for dataset in range(len(course.available)):
        segment, whole, rest = course.inverse(dataset, tokens)
        if segment == len(course.start_tokens):
            assert course.tokens_at(int(course.segment_edges[-1]))[dataset] < tokens * SCALE
        else:
            assert course.tokens_at(whole)[dataset] + rest == tokens * SCALE
            assert rest == 0 or rest < course.weights[segment, dataset]


@settings(max_examples=50)
@given(cases())
def test_a_data_set_that_has_run_out_has_had_all_of_it(case: MixtureCase) -> None:
    course = case.course
    for dataset, tokens in course.exhausted:
        assert course.tokens_at(tokens)[dataset] == int(course.available[dataset]) * SCALE
        later = course.start_tokens >= tokens
        assert not course.weights[later, dataset].any()


def test_the_others_share_the_part_in_proportion() -> None:
    phase = PhaseConfig(name="a", shares={"x": 2, "y": 1, "z": 1})
    course = quota_curve(mixture_schedule([phase], {"x": 1, "y": 1, "z": 1}), [None, None, 50])
    assert course.exhausted == ((2, 200),)
    assert course.start_tokens.tolist() == [0, 200]
    assert course.weights.tolist()[0] == [SCALE // 2, SCALE // 4, SCALE // 4]
    assert course.weights[1].tolist() == pytest.approx([SCALE * 2 / 3, SCALE / 3, 0], abs=1)
    assert course.ends_by == "never"


def test_a_data_set_may_run_out_within_a_token() -> None:
    phase = PhaseConfig(name="a", shares={"x": 2, "y": 1}, tokens=100)
    course = quota_curve(mixture_schedule([phase], {"x": 1, "y": 1}), [None, 5])
    ((dataset, tokens),) = course.exhausted
    assert (dataset, tokens) in ((1, 15), (1, 16))
    assert course.tokens_at(100) == [95 * SCALE, 5 * SCALE]


def test_the_run_ends_where_all_data_of_a_phase_have_run_out() -> None:
    phases = [
        PhaseConfig(name="a", tokens=100, datasets=("x", "y")),
        PhaseConfig(name="b", tokens=100, datasets=("x",)),
    ]
    course = quota_curve(mixture_schedule(phases, {"x": 50, "y": 50}), [70, 1000])
    assert (course.ends_by, course.end_tokens, course.exhausted) == ("data", 120, ((0, 120),))
    both = quota_curve(mixture_schedule([PhaseConfig(name="a")], {"x": 50, "y": 70}), [50, 70])
    assert (both.ends_by, both.end_tokens) == ("data", 120)
    assert both.tokens_at(120) == [50 * SCALE, 70 * SCALE]


def test_without_caps_it_is_the_schedule() -> None:
    schedule = mixture_schedule(SEED_PHASES, SIZES)
    course = quota_curve(schedule, [None] * 5)
    assert course.weights.tolist() == schedule.weights.tolist()
    assert course.segment_edges.tolist() == [*schedule.start_tokens.tolist(), schedule.end_tokens]
    assert course.ends_by == "schedule"


def test_caps_that_are_not_those_of_the_data_sets() -> None:
    with pytest.raises(ConfigError, match="1 caps for 5"):
        quota_curve(mixture_schedule(SEED_PHASES, SIZES), [None])
    with pytest.raises(ConfigError, match="less than no tokens"):
        quota_curve(mixture_schedule(SEED_PHASES, SIZES), [-1] * 5)
    with pytest.raises(ConfigError, match=r"phases\.cold: none of its data sets"):
        quota_curve(mixture_schedule(SEED_PHASES, SIZES), [0] * 5)


def test_a_data_set_that_may_give_nothing_has_no_share() -> None:
    course = quota_curve(mixture_schedule([PhaseConfig(name="a")], {"x": 1, "y": 1}), [0, None])
    assert course.weights.tolist() == [[0, SCALE]]
