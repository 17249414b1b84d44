"""The order of documents: it stays within one document of the quota, and does not depend on where calls stop."""

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
from tests.examples import examples
from tests.mixture.mixture_cases import MixtureCase, cases, reference_draw

FAR = 1 << 40


def zeros(case: MixtureCase) -> np.ndarray:
    return np.zeros(len(case.documents), np.int64)


def max_quota_lag(case: MixtureCase, chosen: np.ndarray) -> float:
    """Returns the largest |due − drawn| of any data set after any draw, in units of the longest document."""
    drawn, num_drawn, max_lag = zeros(case), [0] * len(case.documents), 0
    for dataset in chosen.tolist():
        drawn[dataset] += case.documents[dataset][num_drawn[dataset]]
        num_drawn[dataset] += 1
        max_lag = max(max_lag, *(abs(lag) for lag in quota_lag(case.curve, drawn)))
    return max_lag / SCALE / case.max_length


@settings(max_examples=examples(150))
@given(cases())
def test_every_data_set_is_within_one_document_of_its_quota_after_every_draw(case: MixtureCase) -> None:
    result = draw_documents(case.curve, zeros(case), *case.buffers(), until_tokens=FAR)
    assert max_quota_lag(case, result.chosen) <= 1


@settings(max_examples=examples(25))
@given(cases(max_datasets=50))
def test_up_to_fifty_data_sets_are_within_one_document_of_their_quota(case: MixtureCase) -> None:
    result = draw_documents(case.curve, zeros(case), *case.buffers(), until_tokens=FAR)
    assert max_quota_lag(case, result.chosen) <= 1


@pytest.mark.parametrize("num_datasets", [2, 3, 10, 50])
def test_a_phase_without_the_data_sets_that_are_ahead_keeps_the_bound(num_datasets: int) -> None:
    # In the middle of a round of equal shares, the data sets that were not drawn yet get all shares. Without deadlines,
    # the last of them would be late by one and a half documents.
    names = [f"d{i}" for i in range(num_datasets)]
    late = dict.fromkeys(names[num_datasets // 2 :], 1.0)
    for boundary in range(1, 3 * num_datasets, max(1, num_datasets // 8)):
        phases = [
            PhaseConfig(name="all", tokens=1000 * boundary, shares=dict.fromkeys(names, 1.0)),
            PhaseConfig(name="late", shares=late),
        ]
        curve = quota_curve(mixture_schedule(phases, dict.fromkeys(names, 1)), [None] * num_datasets)
        case = MixtureCase(curve, [[1000] * 40] * num_datasets)
        result = draw_documents(curve, zeros(case), *case.buffers(), until_tokens=1000 * 6 * num_datasets)
        assert max_quota_lag(case, result.chosen) <= 1


def test_half_of_the_data_sets_are_exhausted_after_one_document() -> None:
    names = [f"d{i}" for i in range(20)]
    phase = PhaseConfig(name="all", shares=dict.fromkeys(names, 1.0))
    curve = quota_curve(mixture_schedule([phase], dict.fromkeys(names, 1)), [1000] * 10 + [None] * 10)
    case = MixtureCase(curve, [[1000] * 60] * 20)
    result = draw_documents(curve, zeros(case), *case.buffers(), until_tokens=200_000)
    assert max_quota_lag(case, result.chosen) <= 1
    assert np.bincount(result.chosen)[:10].tolist() == [1] * 10


@settings(max_examples=examples(80))
@given(cases())
def test_draws_equal_those_of_the_reference_implementation(case: MixtureCase) -> None:
    result = draw_documents(case.curve, zeros(case), *case.buffers(), until_tokens=FAR)
    assert result.chosen.tolist() == reference_draw(case, len(result.chosen) + 1)


@settings(max_examples=examples(80))
@given(cases(), st.integers(1, 9), st.integers(1, 200))
def test_small_buffers_and_many_calls_do_not_change_the_order(
    case: MixtureCase, max_documents: int, tenths: int
) -> None:
    full = draw_documents(case.curve, zeros(case), *case.buffers(), until_tokens=FAR)
    drawn, num_drawn, chosen = zeros(case), [0] * len(case.documents), []
    target = stride = max(1, case.max_length * tenths // 10)
    while True:
        part = draw_documents(case.curve, drawn, *case.buffers(num_drawn, max_documents), until_tokens=target)
        drawn = part.tokens
        chosen += part.chosen.tolist()
        counts = np.bincount(part.chosen, minlength=len(num_drawn))
        num_drawn = [n + count for n, count in zip(num_drawn, counts, strict=True)]
        if part.stop == "end" or (
            part.stop == "exhausted"
            and num_drawn[part.exhausted_dataset] == len(case.documents[part.exhausted_dataset])
        ):
            break
        if part.stop == "enough":
            assert drawn.sum() >= target
            target = int(drawn.sum()) + stride
    assert chosen == full.chosen.tolist()
    assert drawn.tolist() == full.tokens.tolist()
    assert part.stop == full.stop


@settings(max_examples=examples(50))
@given(cases(), st.data())
def test_draws_that_were_undone_are_repeated_in_the_same_order(
    case: MixtureCase, data: st.DataObject
) -> None:
    lengths, offsets = case.buffers()
    full = draw_documents(case.curve, zeros(case), lengths, offsets, until_tokens=FAR)
    keep = data.draw(st.integers(0, len(full.chosen)))
    drawn = tokens_after(case.curve, zeros(case), full.chosen[:keep], lengths, offsets)
    num_drawn = np.bincount(full.chosen[:keep], minlength=len(case.documents)).tolist()
    rest = draw_documents(case.curve, drawn, *case.buffers(num_drawn), until_tokens=FAR)
    assert rest.chosen.tolist() == full.chosen[keep:].tolist()
    assert rest.tokens.tolist() == full.tokens.tolist()
    assert (
        tokens_after(case.curve, zeros(case), full.chosen, lengths, offsets).tolist() == full.tokens.tolist()
    )


@settings(max_examples=examples(50))
@given(cases())
def test_a_data_set_exceeds_its_cap_by_less_than_one_document(case: MixtureCase) -> None:
    result = draw_documents(case.curve, zeros(case), *case.buffers(), until_tokens=FAR)
    assert (result.tokens < case.curve.available.astype(float) + case.max_length).all()


def test_drawing_stops_after_the_document_that_reaches_until_tokens() -> None:
    curve = quota_curve(mixture_schedule([PhaseConfig(name="a")], {"x": 1}), [None])
    result = draw_documents(
        curve, np.zeros(1, np.int64), np.array([5, 5, 5], np.int32), np.array([0, 3]), until_tokens=6
    )
    assert (result.chosen.tolist(), result.tokens.tolist(), result.stop, result.exhausted_dataset) == (
        [0, 0],
        [10],
        "enough",
        -1,
    )


def test_a_data_set_is_not_drawn_before_its_first_phase() -> None:
    phases = [
        PhaseConfig(name="a", tokens=1000, shares={"x": 1, "y": 2}),
        PhaseConfig(name="b", shares={"z": 1}),
    ]
    curve = quota_curve(mixture_schedule(phases, {"x": 1, "y": 1, "z": 1}), [None] * 3)
    case = MixtureCase(curve, [[9] * 200, [7] * 200, [8] * 200])
    chosen = draw_documents(curve, zeros(case), *case.buffers(), until_tokens=1500).chosen.tolist()
    lengths = np.array([9, 7, 8])[chosen]
    first = chosen.index(2)
    assert lengths[:first].sum() >= 1000
    # A data set that is late at the boundary is drawn at most once after it.
    assert chosen[first:].count(0) <= 1
    assert chosen[first:].count(1) <= 1


def test_draws_are_exact_at_large_token_counts() -> None:
    # The token counts times 2**24 exceed 64 bits by far.
    curve = quota_curve(
        mixture_schedule([PhaseConfig(name="a", shares={"x": 1, "y": 2})], {"x": 1, "y": 1}), [None] * 2
    )
    start = curve.tokens_at(3 * 10**17)
    drawn = np.array([part // SCALE for part in start])
    lengths = np.full(3000, 4000, np.int32)
    result = draw_documents(
        curve, drawn, lengths, np.array([0, 1000, 3000]), until_tokens=int(drawn.sum()) + 4_000_000
    )
    assert result.stop == "enough"
    assert np.bincount(result.chosen).tolist() == pytest.approx([1000 / 3, 2000 / 3], abs=1)


def test_invalid_lengths_and_shapes_are_an_error() -> None:
    curve = quota_curve(mixture_schedule([PhaseConfig(name="a")], {"x": 1, "y": 1}), [None] * 2)
    drawn, offsets = np.zeros(2, np.int64), np.array([0, 1, 3])
    with pytest.raises(DataError, match="data set 'y': a document has 0 tokens"):
        draw_documents(curve, drawn, np.array([1, 1, 0], np.int32), offsets, until_tokens=5)
    with pytest.raises(DataError, match="data set 'x': a document has 16777217"):
        draw_documents(curve, drawn, np.array([(1 << 24) + 1, 1, 0], np.int32), offsets, until_tokens=5)
    with pytest.raises(DataError, match="do not match 2 data sets"):
        draw_documents(curve, drawn, np.array([1], np.int32), offsets, until_tokens=5)
