"""Alarms of a run, on steps that are made up: when they come, that they come once, and when they come again."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mmpack import ShardSet
from mmpack.layout import Layout, LayoutConfig
from mmpack_trainer.config.schema import TrainConfig
from mmpack_trainer.metrics import METRICS_NAME, MetricsLog, read_metrics
from mmpack_trainer.monitors import Monitors
from mmpack_trainer.panel import bars, experts_line, figures, loads
from mmpack_trainer.parameters import parameters_of
from tests.trainer import small_runs
from tests.trainer.recipes import MOE, config_with, write_recipe
from tests.trainer.test_trainer_metrics import metrics

pytest.importorskip("torchtitan")

import torch

from mmpack_trainer.train import Step

EVEN = ((10, 10, 10, 10), (10, 10, 10, 10))


def step(number: int, *, chosen: Sequence[Sequence[int]] = (), **facts: Any) -> Step:
    """A step in which nothing is out of the way; with experts if it says what was chosen."""
    counts = torch.tensor(chosen, dtype=torch.int64) if chosen else torch.zeros(0, 0, dtype=torch.int64)
    usual: dict[str, Any] = {
        "loss": 2.0,
        "parts": {"ce": 2.0, "aux": 1.0},
        "gradient_norm": 1.0,
        "lr": 1e-3,
        "tokens": 90,
        "places": 100,
        "labels": 80,
        "seconds": 1.0,
        "waited": 0.01,
        "dropped": 0,
        "gate": torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0]] * len(chosen)),
        "router_gradient": torch.full(counts.shape, 0.1),
    }
    return Step(number=number, chosen=counts, **(usual | facts))


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """With six experts in each of two layers, the first of them dense, and a warmup of three steps."""
    write_recipe(tmp_path)
    return config_with(tmp_path, *MOE, "--model.moe.dense_layers=1")


@pytest.fixture
def monitors(config: TrainConfig) -> Monitors:
    return Monitors(config, parameters_of(config.model, Layout(LayoutConfig())), global_batch=16)


def alarms(monitors: Monitors, first: int, count: int, **facts: Any) -> list[str]:
    """Those of `count` steps alike."""
    return [each for number in range(first, first + count) for each in monitors.see(step(number, **facts))]


def test_a_sound_run_has_no_alarms(monitors: Monitors) -> None:
    assert alarms(monitors, 1, 200, chosen=EVEN) == []


def test_a_spike_of_the_gradient_names_its_rows_and_comes_once(monitors: Monitors) -> None:
    assert alarms(monitors, 1, 19, gradient_norm=1.0) == []
    assert monitors.see(step(20, gradient_norm=100.0)) == []  # too few steps to know what is usual
    assert monitors.see(step(21, gradient_norm=5.0)) == []
    [told] = monitors.see(step(22, gradient_norm=5.5))
    assert told == (
        "step 22: the gradient's norm is 5.5, and was 1 in the median of 21: rows 336 to 351 (mmpack show-row)"
    )
    assert alarms(monitors, 23, 3, gradient_norm=5.5) == []
    assert alarms(monitors, 26, 1) == []
    assert len(alarms(monitors, 27, 2, gradient_norm=9.0)) == 1


def test_a_spike_of_the_loss(monitors: Monitors) -> None:
    assert alarms(monitors, 1, 50) == []
    [told] = monitors.see(step(51, loss=4.5))
    assert told.startswith("step 51: the loss is 4.5, and was 2 in the median of 50: rows 800 to 815")


def test_waiting_for_rows(monitors: Monitors) -> None:
    # The first step, which opens files and fills pipelines, is none of the twenty.
    assert monitors.see(step(1, waited=50.0, seconds=60.0)) == []
    assert alarms(monitors, 2, 40, waited=0.09) == []
    [told] = alarms(monitors, 42, 40, waited=0.5)
    assert re.match(r"step \d+: 1\d% of the last 20 steps' time .* raise data.workers or data.threads", told)
    assert alarms(monitors, 82, 40, waited=0.095) == []  # hardly below the limit: it stands
    assert alarms(monitors, 122, 40, waited=0.3) == []
    assert alarms(monitors, 162, 40, waited=0.0) == []
    assert len(alarms(monitors, 202, 40, waited=0.3)) == 1


def test_drops_and_uneven_loads_are_no_alarm_while_weights_are_random(monitors: Monitors) -> None:
    uneven = ((31, 3, 3, 3), (10, 10, 10, 10))
    assert alarms(monitors, 1, 119, chosen=uneven, dropped=2) == []
    assert sorted(alarms(monitors, 120, 100, chosen=uneven, dropped=2)) == [
        "step 120: 2.50% of the choices of the last 20 steps were dropped, over 0.1%: raise model.moe.capacity_factor, or "
        "balance the experts",
        "step 120: expert 0 of layer 1 got 3.1 times an even share of the last 20 steps' tokens: raise loss.aux, "
        "model.moe.bias_rate or model.moe.noise",
    ]
    assert alarms(monitors, 220, 30, chosen=EVEN) == []
    thousand = ((125,) * 4, (125,) * 4)
    assert alarms(monitors, 250, 30, chosen=thousand, dropped=1) == []


@pytest.mark.parametrize(("warmup", "grace"), [(3, 100), (500, 500), (5000, 1000)])
def test_the_grace_is_the_warmup_within_bounds(tmp_path: Path, warmup: int, grace: int) -> None:
    write_recipe(tmp_path)
    config = config_with(tmp_path, *MOE, f"--schedule.warmup_steps={warmup}")
    monitors = Monitors(config, parameters_of(config.model, Layout(LayoutConfig())), global_batch=16)
    # Resumed shortly before it ends, it lasts as long.
    [told] = alarms(monitors, grace - 40, 100, chosen=EVEN, dropped=1)
    assert told.startswith(f"step {grace + 20}: ")


def test_the_balancing_loss_is_told_when_it_rises_and_not_when_it_stays(monitors: Monitors) -> None:
    assert alarms(monitors, 1, 100, chosen=EVEN, parts={"aux": 1.2}) == []
    [told] = alarms(monitors, 101, 100, chosen=EVEN, parts={"aux": 1.5})
    assert "the balancing loss is 1.26 over 20 steps, and about 1 where experts share evenly" in told


def test_an_expert_that_no_token_chooses(monitors: Monitors) -> None:
    idle = ((20, 0, 10, 10), (0, 0, 20, 20))
    assert alarms(monitors, 1, 10, chosen=EVEN) == []
    assert alarms(monitors, 11, 19, chosen=idle) == []
    [told] = alarms(monitors, 30, 20, chosen=idle)
    assert "no token chose expert 1 of layer 1, 0 of layer 2, 1 of layer 2 in 20 steps" in told
    assert alarms(monitors, 50, 1, chosen=EVEN) == []
    assert len(alarms(monitors, 51, 30, chosen=idle)) == 1


def test_a_gate_that_one_expert_pulls_at(monitors: Monitors) -> None:
    gradient = torch.full((2, 4), 0.1)
    gradient[1, 2] = 0.7
    assert alarms(monitors, 1, 20, chosen=EVEN, router_gradient=gradient) == []
    [told] = alarms(monitors, 21, 1, chosen=EVEN, router_gradient=gradient)
    assert "the gate's gradient of expert 2 of layer 2 is 7.0 times the median of its layer" in told
    # What is rounding is nothing to compare.
    assert alarms(monitors, 22, 30, chosen=EVEN) == []
    assert alarms(monitors, 52, 60, chosen=EVEN, router_gradient=gradient * 1e-9) == []


@pytest.mark.parametrize(("experts", "least"), [((), 0.40), (MOE, 0.25)])
def test_low_utilisation_is_told_once(tmp_path: Path, experts: tuple[str, ...], least: float) -> None:
    write_recipe(tmp_path)
    config = config_with(tmp_path, *experts)
    parameters = parameters_of(config.model, Layout(LayoutConfig()))
    kind = "a model with experts" if experts else "a dense model"
    low, told = Monitors(config, parameters, global_batch=16), []
    for number in range(1, 200):
        told += low.see(step(number), useful_mfu=least - 0.01)
    assert len(told) == 1
    assert told[0].startswith(
        f"step 25: useful MFU is {least - 0.01:.1%}, and {kind} should reach {least:.0%}"
    )
    sound = Monitors(config, parameters, global_batch=16)
    slow_start = [0.01] * 20 + [least + 0.01] * 50
    for number, mfu in enumerate(slow_start, 1):
        assert sound.see(step(number), useful_mfu=mfu) == []


def test_figures_of_experts_and_gates() -> None:
    seen = step(7, chosen=((10, 30, 0, 0), (10, 10, 10, 10)), dropped=4, parts={"aux": 1.1})
    assert loads(seen).tolist() == [[1.0, 3.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]
    assert figures(seen) == {
        "experts/dropped": 0.05,
        "experts/balance": 1.1,
        "experts/least": 0.0,
        "experts/most": 3.0,
        "experts/idle": 2.0,
        "gate/mean": 0.0,
        "gate/variance": 1.0,
        "gate/logsumexp": 2.0,
        "gate/entropy": 3.0,
        "gate/margin": 4.0,
    }
    assert bars(seen, first_layer=1) == {
        "experts/tokens/layer1": [10, 30, 0, 0],
        "experts/tokens/layer2": [10, 10, 10, 10],
        "gate/gradient/layer1": [0.1] * 4,
        "gate/gradient/layer2": [0.1] * 4,
    }
    assert figures(step(7)) == bars(step(7), first_layer=0) == {}


def test_experts_as_a_line() -> None:
    assert experts_line(step(1, chosen=EVEN), first_layer=0).startswith("experts ▄▄▄▄ layer 0, 1.00 to 1.00")
    uneven = step(1, chosen=((10, 10, 10, 10), (1, 9, 30, 0)))
    assert experts_line(uneven, first_layer=3).startswith("experts ▁▂█· layer 4, 0.00 to 3.00")
    many = step(1, chosen=([1] * 256,))
    assert experts_line(many, first_layer=0).startswith(f"experts {'▄' * 64} layer")


def test_bars_and_alarms_are_kept_in_the_log_and_on_tensorboard(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    kept = metrics(3, bars={"experts/tokens/layer0": [3.0, 0.0, 9.0]}, alarms=("step 2: first", "step 3: x"))
    with MetricsLog(tmp_path, steps=9) as log:
        log.log(kept)
    [record] = read_metrics(tmp_path / METRICS_NAME)
    assert record["experts/tokens/layer0"] == [3.0, 0.0, 9.0]
    assert record["alarms"] == ["step 2: first", "step 3: x"]
    seen = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    [event] = seen.Histograms("experts/tokens/layer0")
    assert event.histogram_value.bucket_limit == [1.0, 2.0, 3.0]
    assert event.histogram_value.bucket == [3.0, 0.0, 9.0]
    assert "alarms/text_summary" in seen.Tags()["tensors"]


def test_a_run_with_experts_shows_them_and_tells_its_alarms(mixed_shards: ShardSet, tmp_path: Path) -> None:
    small_runs.write_plan(tmp_path, mixed_shards)
    recipe = write_recipe(tmp_path)
    settings = (
        "steps=24",
        "micro_batch=4",
        "log_every_steps=12",
        "data.threads=0",
        "model.dim=16",
        "model.heads=2",
        "model.kv_heads=1",
        "model.moe.experts=4",
        "model.moe.hidden_dim=16",
        "model.moe.dense_layers=1",
        "compute.precision=float32",
        "optimizer.lr=0.3",
    )
    done = subprocess.run(
        [sys.executable, "-m", "mmpack_trainer.cli", str(recipe), *(f"--{each}" for each in settings)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=small_runs.environment(),
    )
    lines = done.stdout.splitlines()
    assert sum(line.startswith("experts ") for line in lines) == 2
    records = read_metrics(tmp_path / "run" / METRICS_NAME)
    assert [record["step"] for record in records] == [12, 24]
    for record in records:
        assert sum(record["experts/tokens/layer1"]) == 2 * round(record["fill"] * 1024)
        assert len(record["gate/gradient/layer1"]) == 4
        assert "experts/tokens/layer0" not in record
    told = [line.removeprefix("warning: ") for line in lines if line.startswith("warning: step ")]
    assert told == [alarm for record in records for alarm in record.get("alarms", ())]
    assert told, done.stdout
