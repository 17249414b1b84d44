from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.support.packing_inputs import eleven_ninths, mixes
from mmpack.errors import ConfigError, DataError
from mmpack.packing import lower_bound, pack
from tests.packing.packing_reference import best_fit_decreasing, check_packing, count_optimal_rows

CASES = st.integers(1, 80).flatmap(
    lambda capacity: st.tuples(st.lists(st.integers(0, capacity), max_size=60), st.just(capacity))
)


@given(CASES, st.integers(0, 2**63 - 1), st.sampled_from([0, 3, 1_000_000]), st.booleans())
def test_every_item_is_in_exactly_one_row(case, seed, effort, level):
    lengths = np.array(case[0], np.int64)
    check_packing(pack(lengths, case[1], seed=seed, effort=effort, level=level), lengths)


@given(CASES)
def test_pack_never_needs_more_rows_than_best_fit_decreasing(case):
    lengths, capacity = case
    positive = [length for length in lengths if length]
    expected = best_fit_decreasing(positive, capacity) or min(1, len(lengths))
    assert pack(lengths, capacity, effort=0).rows == expected
    assert pack(lengths, capacity).rows <= expected


@given(
    st.integers(1, 30).flatmap(
        lambda capacity: st.tuples(st.lists(st.integers(1, capacity), max_size=7), st.just(capacity))
    )
)
def test_lower_bound_is_at_most_the_optimum(case):
    lengths, capacity = case
    optimal = count_optimal_rows(lengths, capacity)
    bound = lower_bound(np.bincount(np.array(lengths, np.int64), minlength=1), capacity)
    assert -(-sum(lengths) // capacity) <= bound <= optimal
    assert bound >= sum(2 * length > capacity for length in lengths)
    assert pack(lengths, capacity).lower_bound == bound
    assert pack(lengths, capacity).rows >= optimal


@given(CASES, st.integers(0, 2**32))
def test_packing_does_not_depend_on_the_integer_type(case, seed):
    one, two = (pack(np.array(case[0], dtype), case[1], seed=seed) for dtype in (np.int32, np.int64))
    assert (one.ids == two.ids).all()
    assert (one.offsets == two.offsets).all()


def test_seed_changes_the_items_but_not_the_lengths_of_rows():
    lengths = np.random.default_rng(0).integers(1, 50, 5_000)
    packings = [pack(lengths, 200, seed=seed) for seed in range(4)]
    for packing in packings[1:]:
        assert (packing.offsets == packings[0].offsets).all()
        assert (lengths[packing.ids] == lengths[packings[0].ids]).all()
        assert (packing.ids != packings[0].ids).mean() > 0.9


@pytest.mark.parametrize(
    ("lengths", "capacity", "rows"),
    [
        ([], 8, 0),
        ([0], 8, 1),
        ([0, 0, 0], 8, 1),
        ([8], 8, 1),
        ([8, 0, 8], 8, 2),
        ([1], 1, 1),
        ([3] * 7, 8, 4),
        ([2, 3, 3, 2, 6, 2], 8, 3),
        ([5, 3, 4, 4, 6, 2], 8, 3),
        ([1 << 24, (1 << 24) - 1, 1], 1 << 24, 2),
    ],
)
def test_number_of_rows_of_small_cases(lengths, capacity, rows):
    packing = pack(lengths, capacity)
    check_packing(packing, np.array(lengths, np.int64))
    assert packing.rows == rows


def test_a_million_equal_items_are_packed_optimally():
    lengths = np.full(1_000_000, 1000, np.int32)
    packing = pack(lengths, 4096, seed=3)
    assert packing.rows == packing.lower_bound == 250_000
    assert (np.diff(packing.offsets) == 4).all()
    assert (np.bincount(packing.ids, minlength=lengths.size) == 1).all()


def test_sums_beyond_int32_are_exact():
    lengths = np.full(1_000, 1 << 23, np.int32)
    packing = pack(lengths, (1 << 24) - 1)
    assert packing.tokens == 1_000 << 23
    assert packing.rows == packing.lower_bound == 1_000


@pytest.mark.parametrize(("name", "min_fill"), [("mm8k", 0.9987), ("11/9", 0.998), ("mm32k", 0.9998)])
def test_fill_of_hard_mixtures_reaches_the_target(name, min_fill):
    lengths, capacity = mixes(100_000)[name]
    packing = pack(lengths, capacity)
    assert packing.fill >= min_fill
    assert packing.rows <= pack(lengths, capacity, effort=0).rows


@pytest.mark.parametrize("name", ["lognormal", "half-mix", "mm32k", "11/9"])
def test_packing_of_easy_mixtures_is_optimal(name):
    lengths, capacity = mixes(100_000)[name]
    assert pack(lengths, capacity).excess_rows == 0


def test_exact_completion_needs_fewer_rows_than_best_fit():
    lengths, capacity = eleven_ninths(3_000)
    assert pack(lengths, capacity, effort=0).rows == 1_100
    assert pack(lengths, capacity).rows == 900


def test_more_effort_gives_fewer_rows():
    lengths, capacity = mixes(20_000)["mm8k"]
    rows = [pack(lengths, capacity, effort=effort).rows for effort in (0, 1_000, 20_000_000)]
    assert rows[0] >= rows[1] >= rows[2]
    assert rows[0] > rows[2]


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([1, -2, -3], "item 1: length is -2"),
        ([1, 2, 9, 10], "item 2: 9 tokens do not fit a row of 8"),
        ([1, 1 << 40], "item 1: 1,099,511,627,776 tokens"),
        (np.array([1, (1 << 32) + 1]), "item 1"),
        (np.array([1, 2**63 + 1], np.uint64), "exceeds int64"),
        ([1.5], "not integers"),
        ([True], "not integers"),
        ([[1, 2]], "2 dimensions"),
        (["a"], "not integers"),
    ],
)
def test_invalid_lengths_raise_data_errors(lengths, message):
    with pytest.raises(DataError, match=message):
        pack(lengths, 8)


@pytest.mark.parametrize(
    "settings",
    [
        {"capacity": 0},
        {"capacity": -1},
        {"capacity": 1 << 31},
        {"capacity": 2.5},
        {"seed": -1},
        {"effort": -1},
    ],
)
def test_settings_out_of_range_raise_config_errors(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        pack([1], **{"capacity": 8, **settings})


def test_strided_lengths_are_packed():
    lengths = np.arange(20)[::-2]
    check_packing(pack(lengths, 19), lengths)


@given(CASES.filter(lambda case: case[0]), st.integers(0, 100))
def test_shuffle_keeps_the_content_of_rows(case, seed):
    lengths = np.array(case[0], np.int64)
    packing = pack(lengths, case[1])
    shuffled = packing.shuffle(seed)
    check_packing(shuffled, lengths)
    assert sorted(packing.row(r).tolist() for r in range(packing.rows)) == sorted(
        shuffled.row(r).tolist() for r in range(packing.rows)
    )


def test_text_of_a_packing_names_its_rows_and_its_lower_bound():
    lengths, capacity = mixes(20_000)["mm8k"]
    packing = pack(lengths, capacity)
    assert f"in {packing.rows:,} rows" in str(packing)
    assert f"at least {packing.lower_bound:,} rows" in str(packing)


def test_import_loads_no_heavy_libraries():
    code = "import sys, mmpack.packing; print([m for m in ('numba', 'torch', 'pyarrow') if m in sys.modules])"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert process.stdout.strip() == "[]"
