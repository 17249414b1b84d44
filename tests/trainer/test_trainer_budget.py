"""What a run asks for and costs: by hand, as the worked example has it, as measured, and what is kept of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from mmpack.errors import ConfigError, DataError, StorageError
from mmpack.layout import Layout, LayoutConfig
from mmpack.stream import load_plan_config, open_plan
from mmpack_trainer.budget import (
    DENSE,
    MOE,
    Bill,
    Demand,
    Rig,
    alerts,
    bill_at,
    demand_of,
    planned_rate,
    utilisation_of,
)
from mmpack_trainer.budget_cli import app
from mmpack_trainer.budget_frozen import BUDGET_NAME, freeze, measured, refuse_frozen
from mmpack_trainer.budget_naive import CORRECTIONS, example_columns
from mmpack_trainer.config.load import load_config
from mmpack_trainer.config.schema import ModelConfig, MoeConfig
from mmpack_trainer.flops import Rates, Work, planned_work
from mmpack_trainer.metrics import METRICS_NAME, MetricsLog, StepMetrics
from mmpack_trainer.parameters import parameters_of
from tests.trainer.recipes import MOE as WITH_EXPERTS
from tests.trainer.recipes import make_run

RECIPES = Path(__file__).parents[2] / "trainer" / "recipes"
LAYOUT = Layout(LayoutConfig())
SMALL = ModelConfig(dim=64, layers=2, heads=4, kv_heads=2, hidden_dim=96)
DEMAND = Demand(steps=1000, places=4096, fill=0.9, products=8e9, attention=1e9)
Recipe = Callable[[str], tuple[object, ...]]
BF16 = "--compute.precision=bfloat16"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A recipe by name, as arguments; the shards of its plan are not there."""

    def of(name: str) -> tuple[object, ...]:
        plan = tmp_path / f"{name}.plan.toml"
        text = (RECIPES / plan.name).read_text()
        plan.write_text(text.replace("s3://bucket", str(tmp_path / "nowhere")))
        return RECIPES / f"{name}.toml", f"--data.plan={plan}"

    return of


def write(folder: Path, rates: list[float], *, mfu: float | None = None, devices: int = 1) -> Path:
    """A run's folder, a step for each rate."""
    with MetricsLog(folder, steps=len(rates)) as log:
        for step, rate in enumerate(rates, 1):
            log.log(
                StepMetrics(
                    step=step,
                    loss=2.0,
                    parts={"ce": 2.0},
                    grad_norm=1.0,
                    lr=1e-3,
                    rates=Rates(rate, 0.8, mfu, mfu, mfu),
                    devices=devices,
                    wall_s=1.0,
                    data_wait_s=0.0,
                )
            )
    return folder


def told(*arguments: object) -> str:
    """What the command prints, in one line."""
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert done.exception is None, done.exception
    return re.sub(r"[\s│]+", " ", done.stdout)


def test_a_token_costs_six_flop_a_weight_and_its_documents_attention() -> None:
    count = parameters_of(SMALL, LAYOUT)
    work = Work(rows=2, places=200, tokens=150, squares=5000, squares_rows=20_000, patches=0)
    found = demand_of(work, SMALL, count, steps=7, places=200)
    assert found.products == 6 * count.products
    assert found.attention == pytest.approx(6 * 2 * 64 * 5000 / 150)
    assert found.fill == 0.75
    assert found.tokens == 7 * 150
    assert found.flops == pytest.approx(7 * 150 * (found.products + found.attention))


def test_only_the_chosen_experts_of_a_token_are_counted() -> None:
    sparse = ModelConfig(
        dim=64,
        layers=2,
        heads=4,
        kv_heads=2,
        hidden_dim=96,
        moe=MoeConfig(experts=8, top_k=2, hidden_dim=32, shared_experts=1),
    )
    count = parameters_of(sparse, LAYOUT)
    work = Work.of([[0, 64]], seq_len=64, patches=0)
    attention = 2 * (2 * 64 * 64 + 2 * 64 * 32)
    active = 2 * (3 * 3 * 64 * 32 + 64 * 8) + attention + LAYOUT.vocabulary.size * 64
    assert demand_of(work, sparse, count, steps=1, places=64).products == 6 * active


def test_a_bill_by_hand() -> None:
    rig = Rig(gpus=4, price=2.5, buffer=1.2)
    # 9e9 FLOP a token at 4 × 9e11 × 50 % are 200 tokens/s; 720,000 tokens take an hour.
    rate = planned_rate(DEMAND, rig, peak_flops=9e11, mfu=0.5)
    assert rate == pytest.approx(200)
    found = bill_at(rate, 720_000, rig)
    assert (found.gpu_hours, found.days, found.cost) == pytest.approx((4.0, 1 / 24, 10.0))
    assert found.times(1.2) == Bill(found.gpu_hours * 1.2, found.days * 1.2, found.cost * 1.2)


@given(st.integers(1, 4096), st.integers(1, 64), st.floats(0.01, 0.5))
def test_more_gpus_take_less_time_and_cost_the_same(gpus: int, factor: int, mfu: float) -> None:
    few, many = Rig(gpus, 2.5, 1.25), Rig(gpus * factor, 2.5, 1.25)
    first, second = (
        bill_at(planned_rate(DEMAND, rig, peak_flops=1e15, mfu=mfu), DEMAND.tokens, rig)
        for rig in (few, many)
    )
    assert second.cost == pytest.approx(first.cost)
    assert second.gpu_hours == pytest.approx(first.gpu_hours)
    assert second.days * factor == pytest.approx(first.days)
    assert first.gpu_hours * 3600 * 1e15 * mfu == pytest.approx(DEMAND.flops)


def test_utilisations_to_plan_with_and_alerts_under_them() -> None:
    dense = parameters_of(load_config(RECIPES / "1b_dense.toml").model, LAYOUT)
    sparse = parameters_of(load_config(RECIPES / "10b_moe.toml").model, LAYOUT)
    assert utilisation_of(dense) == DENSE
    assert utilisation_of(sparse) == MOE
    assert (DENSE.planned, MOE.planned) == (0.40, 0.29)
    assert alerts(0.40, dense) == alerts(0.29, sparse) == []
    assert alerts(0.399, dense)[0].startswith("ALERT: MFU 39.9% is under the 40% that a dense model")
    assert alerts(0.2, sparse)[0].startswith("ALERT: MFU 20.0% is under the 25% that a model with experts")


def test_the_examples_figures_are_reproduced_and_put_right() -> None:
    printed, summed, trained, reached = example_columns()
    assert printed.flops_per_s == 256e15  # 256 × 2000 TFLOP/s at 50 %
    assert printed.flops_per_token == 5e9
    assert printed.flops == 2.5e22
    assert (printed.seconds, printed.days) == (97_600, 11.3)
    assert printed.seconds / 86_400 == pytest.approx(1.13, abs=0.005)
    assert summed.flops == 5e22
    assert summed.days == pytest.approx(2.26, abs=0.005)
    assert trained.flops == 1.5e23
    assert trained.days == pytest.approx(6.78, abs=0.005)
    assert reached.flops_per_s == pytest.approx(256 * 989.4e12 * 0.29)
    assert reached.days == pytest.approx(1.5e23 / (256 * 989.4e12 * 0.29) / 86_400)
    assert len(CORRECTIONS) == 4


def test_the_naive_convention_shows_both_and_names_each_correction(recipe: Recipe) -> None:
    text = told(*recipe("10b_moe"), "--convention", "naive")
    for figure in ("97,600", "11.3", "2.5e+22", "5e+22", "2.26", "1.5e+23", "6.78"):
        assert f" {figure} " in text
    assert text.count("correction: ") == len(CORRECTIONS)
    assert "correction:" not in told(*recipe("10b_moe"))


def test_the_1b_recipe_costs_what_its_figures_make(recipe: Recipe) -> None:
    text = told(*recipe("1b_dense"), "--gpus", 64, "--mfu", "0.5", "--price", 4, "--buffer", "1.5")
    config = load_config(RECIPES / "1b_dense.toml")
    per_token = 6 * parameters_of(config.model, LAYOUT).products + 6 * 16 * 2048 * 4096
    hours = per_token * 47_684 * 2**21 / (989.4e12 * 0.5) / 3600
    assert (
        f" planned {64 * 989.4e12 * 0.5 / per_token:,.0f} 50.0% {hours:,.1f} {hours / 64 / 24:,.3g} " in text
    )
    assert f" {hours * 4:,.0f} {hours * 1.5 / 64 / 24:,.3g} {hours * 4 * 1.5:,.0f} " in text
    assert "full rows of 4,096" in text
    assert "cannot be opened" in text
    assert "ALERT" not in text


def test_attention_is_that_of_the_plans_documents_where_they_are_known(run: Path) -> None:
    text = told(run / "run.toml", BF16, "--gpus", 8)
    assert "attention over documents of the plan's first" in text
    assert "full rows" not in text
    plan = open_plan(load_plan_config(run / "plan.toml"))
    work = Work.sum(planned_work(plan, step) for step in range(plan.config.window_steps))
    assert f"causal attention {6 * 2 * 64 * work.squares / work.tokens:.3g} " in text
    assert f"fill {work.fill:.1%} " in text
    assert work.squares / work.tokens < 90 < 128  # no text is longer, a row is
    assert "ALERT" not in text
    assert "ALERT: MFU 39.0%" in told(run / "run.toml", BF16, "--mfu", "0.39")
    assert "29.0%" in told(run / "run.toml", BF16, *WITH_EXPERTS)


def test_the_first_steps_are_left_out_of_what_is_measured(tmp_path: Path) -> None:
    short = measured(write(tmp_path / "short", [1.0] * 10 + [100.0 + n for n in range(21)], devices=8))
    assert (short.steps, short.gpus, short.tokens_per_s, short.low, short.high) == (21, 8, 110, 102, 118)
    assert (short.fill, short.mfu) == (0.8, None)
    long = measured(write(tmp_path / "long", [1.0] * 20 + [100.0] * 180, mfu=0.31, devices=8))
    assert (long.steps, long.low, long.mfu) == (180, 100, 0.31)


def test_few_steps_freeze_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="29 steps are too few to freeze a budget on"):
        measured(write(tmp_path / "few", [1.0] * 29))
    assert measured(write(tmp_path / "enough", [1.0] * 30)).steps == 20
    with pytest.raises(StorageError, match="cannot be read"):
        measured(tmp_path / "none")
    broken = write(tmp_path / "broken", [1.0] * 30) / METRICS_NAME
    broken.write_bytes(broken.read_bytes().replace(b'"tokens_per_s":1.0', b'"tokens_per_s":null', 25))
    with pytest.raises(DataError, match="a step without tokens_per_s"):
        measured(tmp_path / "broken")


def test_a_rate_on_changing_numbers_of_gpus_freezes_nothing(tmp_path: Path) -> None:
    whole = (write(tmp_path, [1.0] * 40, devices=2) / METRICS_NAME).read_bytes()
    (tmp_path / METRICS_NAME).write_bytes(whole.replace(b'"devices":2', b'"devices":4', 30))
    with pytest.raises(DataError, match="the steps were made on 2 and 4 GPUs"):
        measured(tmp_path)


def test_a_measured_rate_grows_with_the_gpus(tmp_path: Path) -> None:
    found = measured(write(tmp_path, [500.0] * 40, devices=2))
    # 1000 steps × 4,096 places at the measured fill of 80 %, at 4 times 500 tokens/s.
    bill = found.bill(DEMAND, Rig(8, 2.0, 1.25))
    hours = 1000 * 4096 * 0.8 / 2000 / 3600
    assert bill.gpu_hours == pytest.approx(8 * hours)
    assert bill.cost == pytest.approx(16 * hours)


def test_a_budget_is_frozen_once(run: Path, tmp_path: Path) -> None:
    folder = write(tmp_path, [1.0] * 10 + [1000.0] * 30, mfu=0.33, devices=4)
    arguments = (run / "run.toml", "--measured", folder, "--gpus", 8, "--price", 3)
    text = told(*arguments, BF16)
    assert "measured: 1,000 tokens/s on 4, median of 30 steps" in text
    assert "the rate is taken to grow with the GPUs, × 2" in text
    assert "ALERT: MFU 33.0%" in text
    first = (folder / BUDGET_NAME).read_bytes()
    kept: dict[str, Any] = json.loads(first)
    assert datetime.fromisoformat(kept["frozen"]).tzinfo is not None
    hours = 100 * 16 * 128 * 0.8 / 2000 / 3600
    assert kept["plain"]["days"] == pytest.approx(hours / 24)
    assert kept["with_buffer"]["cost"] == pytest.approx(hours * 8 * 3 * 1.25)
    assert kept["measured"] | {"low": 1000.0, "high": 1000.0, "mfu": 0.33} == kept["measured"]
    assert (kept["inputs"]["gpus"], kept["inputs"]["recipe"], kept["inputs"]["steps"]) == (8, "run.toml", 100)

    again = CliRunner().invoke(app, [str(each) for each in arguments])
    assert isinstance(again.exception, ConfigError)
    assert "is frozen already. Add --refreeze" in str(again.exception)
    assert (folder / BUDGET_NAME).read_bytes() == first
    told(*arguments, "--buffer", "1.5", "--refreeze")
    assert json.loads((folder / BUDGET_NAME).read_bytes())["inputs"]["buffer"] == 1.5
    assert sorted(each.name for each in folder.iterdir() if each.is_file()) == [BUDGET_NAME, METRICS_NAME]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    found = measured(write(tmp_path / "run", [500.0] * 40, devices=2))
    refuse_frozen(tmp_path / "run")
    with pytest.raises(StorageError, match="writing failed"):
        freeze(tmp_path / "none", found, DEMAND, Rig(8, 2.0, 1.25), date="now", inputs={})


def test_a_measured_run_on_a_cpu_needs_no_peak(run: Path, tmp_path: Path) -> None:
    folder = write(tmp_path, [1000.0] * 40)
    text = told(run / "run.toml", "--compute.precision=float32", "--measured", folder, "--gpus", 1)
    assert " planned " not in text
    assert " measured 1,000 " in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compute.precision=float32"], "error: compute.precision: no peak of float32 products is known"),
        ([BF16, "--gpu", "Abacus"], "error: --gpu: the peak of 'Abacus' is not known. Known: GB200, "),
        ([BF16, "--price", "inf"], "error: --price: inf is no number to reckon with"),
        (["--model.layrs=3"], "unknown key 'model.layrs'. Did you mean 'layers'?"),
        (["--measured", "nowhere"], "nowhere/metrics.jsonl: cannot be read"),
    ],
)
def test_faults_are_one_line_and_exit_code_1(run: Path, arguments: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mmpack_trainer.budget_cli", str(run / "run.toml"), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_planning_needs_no_torch(run: Path) -> None:
    program = (
        "import sys; from mmpack_trainer.budget_cli import app; "
        f"app([{str(run / 'run.toml')!r}], standalone_mode=False); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
