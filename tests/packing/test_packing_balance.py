from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.support.packing_inputs import long_texts
from mmpack.errors import ConfigError, DataError
from mmpack.packing import balance_rows, pack, row_costs

COSTS = st.lists(st.floats(0, 1e12), max_size=60)
STEPS = st.sampled_from(["like", "given"])


@given(COSTS, st.integers(1, 4), st.integers(1, 4), STEPS, st.integers(0, 99))
def test_every_row_is_scheduled_once_or_unscheduled(costs, ranks, share, steps, seed):
    schedule = balance_rows(costs, global_batch=ranks * share, ranks=ranks, steps=steps, seed=seed)
    assert schedule.rows.shape == (len(costs) // (ranks * share), ranks, share)
    assert sorted([*schedule.rows.ravel().tolist(), *schedule.unscheduled_rows.tolist()]) == list(
        range(len(costs))
    )
    assert schedule.unscheduled_rows.size < ranks * share
    np.testing.assert_allclose(
        schedule.cost, np.array(costs)[schedule.rows].sum(axis=2) if costs else schedule.cost
    )
    assert ((schedule.utilisation >= 0) & (schedule.utilisation <= 1 + 1e-9)).all()
    assert 0 <= schedule.efficiency <= 1 + 1e-9


@given(COSTS, STEPS, st.integers(0, 99))
def test_rows_of_a_step_do_not_depend_on_the_number_of_ranks(costs, steps, seed):
    schedules = [
        balance_rows(costs, global_batch=12, ranks=ranks, steps=steps, seed=seed)
        for ranks in (1, 2, 3, 4, 6, 12)
    ]
    for other in schedules[1:]:
        assert (np.sort(other.rows.reshape(-1, 12)) == np.sort(schedules[0].rows.reshape(-1, 12))).all()
        assert (other.unscheduled_rows == schedules[0].unscheduled_rows).all()


@given(st.lists(st.floats(0, 1e6), min_size=12, max_size=48), st.sampled_from([2, 3, 4, 6]))
def test_each_rank_starts_with_its_most_expensive_row_and_no_swap_lowers_the_load(costs, ranks):
    schedule = balance_rows(costs, global_batch=12, ranks=ranks, steps="given")
    values = np.array(costs)[schedule.rows]
    assert (np.diff(values, axis=2) <= 0).all()
    for step, load in zip(values, schedule.cost, strict=True):
        busy = load.argmax()
        for rank in range(ranks):
            moved = step[busy][:, None] - step[rank][None, :]
            after = np.maximum(load[busy] - moved, load[rank] + moved)[moved > 0]
            assert (after >= load[busy] * (1 - 1e-9)).all()


def test_steps_of_similar_cost_are_shuffled():
    costs = np.random.default_rng(0).permutation(np.arange(640.0))
    schedule = balance_rows(costs, global_batch=8, ranks=8, seed=1)
    spread = np.ptp(schedule.cost, axis=1)
    assert (spread == 7).all()
    assert (np.diff(schedule.cost[:, 0]) < 0).any()
    assert (np.bincount(schedule.cost.argmax(axis=1), minlength=8) < 40).all()
    assert (balance_rows(costs, global_batch=8, ranks=8, seed=2).rows != schedule.rows).any()
    assert (balance_rows(costs, global_batch=8, ranks=8, seed=1).rows == schedule.rows).all()


def test_row_costs_are_sums_over_documents():
    lengths = np.array([3, 1, 2, 4])
    packing = pack(lengths, 5)
    expected = [
        sum(2 * v * v + 10 * v for v in lengths[packing.row(r)].tolist()) for r in range(packing.rows)
    ]
    assert row_costs(packing, lengths, quadratic=2, linear=10).tolist() == expected
    assert row_costs(pack([], 5), []).size == 0
    with pytest.raises(DataError, match="3 lengths for 4"):
        row_costs(packing, lengths[:3])


@pytest.mark.parametrize("ranks", [8, 64])
def test_utilisation_of_long_texts_reaches_the_target(ranks):
    lengths, capacity = long_texts()
    packing = pack(lengths, capacity, level=True)
    assert packing.fill > 0.997
    assert (
        balance_rows(row_costs(packing, lengths), global_batch=ranks, ranks=ranks).utilisation.mean() >= 0.99
    )
    window = lengths[: 64 * ranks * capacity // 2500]
    packing = pack(window, capacity, level=True)
    assert packing.fill > 0.99
    assert (
        balance_rows(row_costs(packing, window), global_batch=ranks, ranks=ranks).utilisation.mean() >= 0.98
    )


def test_invalid_costs_and_settings_raise_errors_that_name_them():
    with pytest.raises(ConfigError, match="3 ranks cannot share 8 rows"):
        balance_rows([1.0], global_batch=8, ranks=3)
    with pytest.raises(ConfigError, match="steps"):
        balance_rows([1.0], global_batch=8, ranks=8, steps="sorted")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="row 1: cost is nan"):
        balance_rows([1.0, float("nan")], global_batch=1, ranks=1)
    with pytest.raises(DataError, match="row 0: cost is -1"):
        balance_rows([-1.0], global_batch=1, ranks=1)
    with pytest.raises(DataError, match="2 dimensions"):
        balance_rows([[1.0]], global_batch=1, ranks=1)
