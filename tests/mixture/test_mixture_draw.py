"""The order of documents: within one document of what is due, and the same however it is broken off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpack.errors import DataError
from mmpack.mixture import (
    SCALE,
    PhaseConfig,
    draw_documents,
    mixture_schedule,
    quota_curve,
    quota_lag,
    tokens_after,
)
from tests.mixture.mixture_cases import MixtureCase, cases, reference_draw

FAR = 1 << 40


def zeros(case: MixtureCase) -> np.ndarray:
    return np.zeros(len(case.documents), np.int64)


def worst_after_every_draw(case: MixtureCase, chosen: np.ndarray) -> float:
    """The largest |due − drawn| of any data set after any draw, in longest documents."""
    drawn, taken, worst = zeros(case), [0] * len(case.documents), 0
    for dataset in chosen.tolist():
        drawn[dataset] += case.documents[dataset][taken[dataset]]
        taken[dataset] += 1
        worst = max(worst, *(abs(part) for part in quota_lag(case.course, drawn)))
    return worst / SCALE / case.longest


@settings(max_examples=150)
@given(cases())
def test_every_data_set_is_within_one_document_after_every_draw(case: MixtureCase) -> None:
    drawn = draw_documents(case.course, zeros(case), *case.buffers(), until_tokens=FAR)
    assert worst_after_every_draw(case, drawn.chosen) <= 1


@settings(max_examples=25)
@given(cases(most_datasets=50))
def test_so_are_fifty(case: MixtureCase) -> None:
    drawn = draw_documents(case.course, zeros(case), *case.buffers(), until_tokens=FAR)
    assert worst_after_every_draw(case, drawn.chosen) <= 1


@pytest.mark.parametrize("count", [2, 3, 10, 50])
def test_a_phase_that_drops_all_data_sets_which_are_ahead(count: int) -> None:
    # Half way through a round of equal shares, the data sets that have not had their turn get everything: without
    # looking ahead, the last of them would wait for a document and a half.
    names = [f"d{i}" for i in range(count)]
    late = dict.fromkeys(names[count // 2 :], 1.0)
    for boundary in range(1, 3 * count, max(1, count // 8)):
        phases = [
            PhaseConfig(name="all", tokens=1000 * boundary, shares=dict.fromkeys(names, 1.0)),
            PhaseConfig(name="late", shares=late),
        ]
        course = quota_curve(mixture_schedule(phases, dict.fromkeys(names, 1)), [None] * count)
        case = MixtureCase(course, [[1000] * 40] * count)
        drawn = draw_documents(course, zeros(case), *case.buffers(), until_tokens=1000 * 6 * count)
        assert worst_after_every_draw(case, drawn.chosen) <= 1


def test_half_of_the_data_sets_run_out_after_a_document() -> None:
    names = [f"d{i}" for i in range(20)]
    phase = PhaseConfig(name="all", shares=dict.fromkeys(names, 1.0))
    course = quota_curve(mixture_schedule([phase], dict.fromkeys(names, 1)), [1000] * 10 + [None] * 10)
    case = MixtureCase(course, [[1000] * 60] * 20)
    drawn = draw_documents(course, zeros(case), *case.buffers(), until_tokens=200_000)
    assert worst_after_every_draw(case, drawn.chosen) <= 1
    assert np.bincount(drawn.chosen)[:10].tolist() == [1] * 10


@settings(max_examples=80)
@given(cases())
def test_it_is_the_rule_as_it_is_written(case: MixtureCase) -> None:
    drawn = draw_documents(case.course, zeros(case), *case.buffers(), until_tokens=FAR)
    assert drawn.chosen.tolist() == reference_draw(case, len(drawn.chosen) + 1)


@settings(max_examples=80)
@given(cases(), st.integers(1, 9), st.integers(1, 200))
def test_small_buffers_and_stops_on_the_way_change_nothing(case: MixtureCase, most: int, steps: int) -> None:
    whole = draw_documents(case.course, zeros(case), *case.buffers(), until_tokens=FAR)
    drawn, taken, chosen = zeros(case), [0] * len(case.documents), []
    target = stride = max(1, case.longest * steps // 10)
    while True:
        part = draw_documents(case.course, drawn, *case.buffers(taken, most), until_tokens=target)
        drawn = part.tokens
        chosen += part.chosen.tolist()
        taken = [
            n + more for n, more in zip(taken, np.bincount(part.chosen, minlength=len(taken)), strict=True)
        ]
        if part.stop == "end" or (
            part.stop == "dry"
            and taken[part.exhausted_dataset] == len(case.documents[part.exhausted_dataset])
        ):
            break
        if part.stop == "enough":
            assert drawn.sum() >= target
            target = int(drawn.sum()) + stride
    assert chosen == whole.chosen.tolist()
    assert drawn.tolist() == whole.tokens.tolist()
    assert part.stop == whole.stop


@settings(max_examples=50)
@given(cases(), st.data())
def test_draws_taken_back_are_drawn_again(case: MixtureCase, data: st.DataObject) -> None:
    lengths, offsets = case.buffers()
    whole = draw_documents(case.course, zeros(case), lengths, offsets, until_tokens=FAR)
    keep = data.draw(st.integers(0, len(whole.chosen)))
    drawn = tokens_after(case.course, zeros(case), whole.chosen[:keep], lengths, offsets)
    taken = np.bincount(whole.chosen[:keep], minlength=len(case.documents)).tolist()
    again = draw_documents(case.course, drawn, *case.buffers(taken), until_tokens=FAR)
    assert again.chosen.tolist() == whole.chosen[keep:].tolist()
    assert again.tokens.tolist() == whole.tokens.tolist()
    assert (
        tokens_after(case.course, zeros(case), whole.chosen, lengths, offsets).tolist()
        == whole.tokens.tolist()
    )


@settings(max_examples=50)
@given(cases())
def test_a_cap_is_met_within_the_document_that_crosses_it(case: MixtureCase) -> None:
    drawn = draw_documents(case.course, zeros(case), *case.buffers(), until_tokens=FAR)
    assert (drawn.tokens < case.course.available.astype(float) + case.longest).all()


def test_it_stops_with_the_document_that_reaches_the_tokens() -> None:
    course = quota_curve(mixture_schedule([PhaseConfig(name="a")], {"x": 1}), [None])
    drawn = draw_documents(
        course, np.zeros(1, np.int64), np.array([5, 5, 5], np.int32), np.array([0, 3]), until_tokens=6
    )
    assert (drawn.chosen.tolist(), drawn.tokens.tolist(), drawn.stop, drawn.exhausted_dataset) == (
        [0, 0],
        [10],
        "enough",
        -1,
    )


def test_a_data_set_comes_no_earlier_than_its_first_phase() -> None:
    phases = [
        PhaseConfig(name="a", tokens=1000, shares={"x": 1, "y": 2}),
        PhaseConfig(name="b", shares={"z": 1}),
    ]
    course = quota_curve(mixture_schedule(phases, {"x": 1, "y": 1, "z": 1}), [None] * 3)
    case = MixtureCase(course, [[9] * 200, [7] * 200, [8] * 200])
    chosen = draw_documents(course, zeros(case), *case.buffers(), until_tokens=1500).chosen.tolist()
    lengths = np.array([9, 7, 8])[chosen]
    first = chosen.index(2)
    assert lengths[:first].sum() >= 1000
    # What was behind at the boundary is made up for by one document at most.
    assert chosen[first:].count(0) <= 1
    assert chosen[first:].count(1) <= 1


def test_far_into_a_run_it_goes_on_exactly() -> None:
    # Where 2**24 times the tokens are far beyond 64 bits.
    course = quota_curve(
        mixture_schedule([PhaseConfig(name="a", shares={"x": 1, "y": 2})], {"x": 1, "y": 1}), [None] * 2
    )
    start = course.tokens_at(3 * 10**17)
    drawn = np.array([part // SCALE for part in start])
    lengths = np.full(3000, 4000, np.int32)
    found = draw_documents(
        course, drawn, lengths, np.array([0, 1000, 3000]), until_tokens=int(drawn.sum()) + 4_000_000
    )
    assert found.stop == "enough"
    assert np.bincount(found.chosen).tolist() == pytest.approx([1000 / 3, 2000 / 3], abs=1)


def test_what_is_no_length_is_refused() -> None:
    course = quota_curve(mixture_schedule([PhaseConfig(name="a")], {"x": 1, "y": 1}), [None] * 2)
    none, offsets = np.zeros(2, np.int64), np.array([0, 1, 3])
    with pytest.raises(DataError, match="data set 'y': a document has 0 tokens"):
        draw_documents(course, none, np.array([1, 1, 0], np.int32), offsets, until_tokens=5)
    with pytest.raises(DataError, match="data set 'x': a document has 16777217"):
        draw_documents(course, none, np.array([(1 << 24) + 1, 1, 0], np.int32), offsets, until_tokens=5)
    with pytest.raises(DataError, match="not those of 2 data sets"):
        draw_documents(course, none, np.array([1], np.int32), offsets, until_tokens=5)
