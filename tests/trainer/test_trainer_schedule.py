"""The learning rate over steps: its ends, its peak, no jumps, and torch's own curves beside it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpack_trainer.config.schema import ScheduleConfig
from mmpack_trainer.schedule import START, factor, learning_rate

KINDS = ("cosine", "one-cycle", "wsd", "constant")


@st.composite
def runs(draw: st.DrawFn) -> tuple[ScheduleConfig, int]:
    steps = draw(st.integers(2, 400))
    schedule = ScheduleConfig(
        kind=draw(st.sampled_from(KINDS)),
        warmup_steps=draw(st.integers(0, steps - 1)),
        final=draw(st.floats(0, 1)),
        decay_share=draw(st.floats(0.01, 1)),
    )
    return schedule, steps


@given(runs())
def test_it_starts_at_one_percent_peaks_once_warm_and_ends_at_the_final_rate(
    run: tuple[ScheduleConfig, int],
) -> None:
    schedule, steps = run
    at = factor(schedule, steps=steps)
    if schedule.warmup_steps:
        assert at(0) == START
    assert at(schedule.warmup_steps) == 1.0
    if schedule.kind != "constant" and schedule.warmup_steps < steps - 1:
        assert at(steps - 1) == pytest.approx(schedule.final)
    assert at(steps + 10) == at(steps - 1)
    assert at(-1) == at(0)


@given(runs())
def test_it_rises_to_the_peak_and_falls_from_there_without_a_jump(run: tuple[ScheduleConfig, int]) -> None:
    schedule, steps = run
    values = [factor(schedule, steps=steps)(step) for step in range(steps)]
    peak = schedule.warmup_steps
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert values[peak:] == sorted(values[peak:], reverse=True)
    assert min(values) >= min(START, schedule.final) - 1e-12
    assert max(values) == 1.0
    # The steepest of the curves: π/2 of a line for half a cosine, the first step of a square root.
    rise = 1.6 / peak if peak else 1.0
    fallen = [value for value in values[peak:] if value < 1.0]
    fall = max(1.6 / max(len(fallen), 1), (1 / max(len(fallen), 1)) ** 0.5)
    assert all(
        abs(b - a) <= (rise if step < peak else fall) + 1e-9 for step, (a, b) in enumerate(pairwise(values))
    )


def test_a_warm_stable_decay_schedule_stays_at_the_peak_until_its_last_share() -> None:
    at = factor(ScheduleConfig(kind="wsd", warmup_steps=10, final=0.1, decay_share=0.2), steps=101)
    assert [at(step) for step in range(10, 81)] == [1.0] * 71
    assert at(81) < 1.0
    # A quarter of the way down in time is half of it in height.
    assert at(85) == pytest.approx(0.55)


@given(st.integers(8, 300), st.floats(0.1, 0.9), st.floats(0.001, 0.5))
def test_one_cycle_is_torchs_without_its_momentum(steps: int, share: float, final: float) -> None:
    torch = pytest.importorskip("torch")
    warmup = max(1, round(share * (steps - 2)))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=3.0,
        total_steps=steps,
        pct_start=(warmup + 1) / steps,
        div_factor=1 / START,
        final_div_factor=START / final,
        cycle_momentum=False,
    )
    ours = learning_rate(
        ScheduleConfig(kind="one-cycle", warmup_steps=warmup, final=final), steps=steps, peak=3.0
    )
    for step in range(steps):
        assert ours(step) == pytest.approx(theirs.get_last_lr()[0], abs=1e-9)
        if step < steps - 1:
            optimizer.step()
            theirs.step()


def test_cosine_after_warmup_is_torchs() -> None:
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=5e-4)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=89, eta_min=5e-5)
    ours = learning_rate(ScheduleConfig(warmup_steps=10), steps=100, peak=5e-4)
    for step in range(10, 100):
        assert ours(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        theirs.step()
