"""The learning-rate range test: its ladder, what is read off losses, and the command on a small run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from math import inf, log, nan
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from mmpack import ShardSet
from mmpack.errors import ConfigError, DataError
from mmpack_trainer.config.advice import usual_peaks
from mmpack_trainer.lr_range import Found, is_over, ladder, read_off, smoothed
from mmpack_trainer.lr_range_cli import PICTURE_NAME, RECORD_NAME, app, compared
from mmpack_trainer.lr_range_picture import draw_range
from tests.trainer import small_runs
from tests.trainer.recipes import make_run, write_recipe

SMALL = (
    "--micro_batch=4",
    "--model.dim=16",
    "--model.heads=2",
    "--model.kv_heads=1",
    "--compute.precision=float32",
)
PNG = b"\x89PNG\r\n\x1a\n"


def valley(steps: int = 101) -> tuple[list[float], list[float]]:
    """Rates from 1e-6 to 1; a loss that falls fastest about 1e-3, is lowest at 1e-2 and above its start behind 1e-1."""
    rate = ladder(1e-6, 1.0, steps=steps)
    rates = [rate(step) for step in range(steps)]
    losses = []
    for each in rates:
        place = log(each, 10)
        fall = 3 / (1 + 10 ** (-2 * (place + 3)))
        losses.append(8 - fall + max(0.0, place + 2) * 3.3)
    return rates, losses


@given(st.floats(1e-9, 1e-2), st.floats(1.5, 1e6), st.integers(10, 500))
def test_the_ladder_rises_by_one_factor(low: float, factor: float, steps: int) -> None:
    rate = ladder(low, low * factor, steps=steps)
    rates = [rate(step) for step in range(steps)]
    assert (rates[0], rates[-1]) == pytest.approx((low, low * factor))
    ratios = [after / before for before, after in pairwise(rates)]
    assert ratios == pytest.approx([factor ** (1 / (steps - 1))] * (steps - 1))


def test_losses_are_smoothed_to_both_sides() -> None:
    assert smoothed([float(n) for n in range(9)]) == [1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 5.5, 6.0, 6.5]
    known, *rest = smoothed([2.0, nan, 4.0])
    assert known == 2.0
    assert all(each != each for each in rest)


def test_a_test_is_over_at_four_times_its_best_or_without_a_number() -> None:
    assert not is_over([2.0] * 20)
    assert not is_over([8.0] * 20 + [4.0] * 20 + [15.0] * 20)
    assert is_over([8.0] * 20 + [4.0] * 20 + [17.0] * 20)
    assert not is_over([4.0] * 20 + [17.0])  # one step is none
    assert is_over([4.0, nan])
    assert is_over([4.0, inf])


def test_rates_that_stand_out() -> None:
    rates, losses = valley()
    found = read_off(rates, losses)
    assert found.steepest == pytest.approx(1e-3, rel=0.2)
    assert found.lowest == pytest.approx(1e-2, rel=0.5)
    assert found.diverged is not None
    assert found.diverged == pytest.approx(10 ** (-2 + 3 / 3.3), rel=0.2)
    assert found.peaks == (found.steepest, found.diverged / 10)


def test_a_loss_that_is_no_number_is_where_it_diverges() -> None:
    rates, losses = valley()
    found = read_off(rates[:80], [*losses[:79], nan])
    assert found.diverged == rates[79]
    assert found.steepest == pytest.approx(1e-3, rel=0.2)


def test_four_times_the_lowest_diverges_though_the_start_was_higher() -> None:
    rate = ladder(1e-6, 1.0, steps=60)
    rates = [rate(step) for step in range(60)]
    assert read_off(rates, [9.0] * 20 + [0.5] * 20 + [2.5] * 20).diverged == rates[42]
    assert read_off(rates, [9.0] * 20 + [0.5] * 20 + [1.5] * 20).diverged is None


def test_a_loss_that_never_falls_suggests_nothing() -> None:
    rates, _ = valley()
    rising = read_off(rates, [5.0 + number / 10 for number in range(101)])
    assert rising.steepest is None
    still = Found(lowest=1e-3, steepest=None, diverged=None)
    assert still.peaks == ()


@pytest.mark.parametrize("losses", [[8.0] * 9, [8.0] * 5 + [nan] * 20])
def test_a_few_losses_are_refused(losses: list[float]) -> None:
    with pytest.raises(DataError, match=r"too few to read a rate off.*Lower --from"):
        read_off([10.0 ** (n / 4 - 6) for n in range(len(losses))], losses)


def test_the_suggestion_beside_what_is_usual() -> None:
    assert usual_peaks(1_000_000_000) == ("1B", 3e-4, 6e-4)
    assert usual_peaks(9_800_000_000) == ("10B", 1e-4, 2e-4)
    assert usual_peaks(100_000_000) is None
    usual = "0.0003 to 0.0006 for 1B parameters"
    assert compared((2e-4, 5e-4), 1_000_000_000) == f"{usual}; the suggestion agrees"
    assert compared((1e-4,), 1_000_000_000) == f"{usual}; the suggestion is below"
    assert compared((1e-2, 2e-2), 1_000_000_000).startswith(f"{usual}; the suggestion is above")
    assert compared((), 1_000_000_000) == usual
    assert compared((1e-2,), 1000) == "not known for 1,000 parameters"


@pytest.mark.parametrize("usual", [None, (3e-4, 6e-4)])
def test_a_picture(tmp_path: Path, usual: tuple[float, float] | None) -> None:
    rates, losses = valley()
    draw_range(rates, losses, read_off(rates, losses), tmp_path / "a.png", usual=usual)
    draw_range(rates, [5.0] * 101, read_off(rates, [5.0] * 101), tmp_path / "flat.png", usual=usual)
    assert all(path.read_bytes().startswith(PNG) for path in tmp_path.iterdir())


def mmpack_lr_range(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mmpack_trainer.lr_range_cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_the_command_leaves_a_record_a_picture_and_what_was_there(
    mixed_shards: ShardSet, tmp_path: Path
) -> None:
    pytest.importorskip("torchtitan")
    small_runs.write_plan(tmp_path, mixed_shards)
    recipe, out = write_recipe(tmp_path), tmp_path / "run"
    kept = {"metrics.jsonl": "of a run", "checkpoints/step-00000007/run.json": "{}", RECORD_NAME: "old\n"}
    for name, text in kept.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)
    done = mmpack_lr_range(recipe, *SMALL, "--from", "1e-3", "--to", "100", "--steps", "30")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (out / RECORD_NAME).read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, len(records) + 1))
    assert [record["lr"] for record in records] == pytest.approx(
        [1e-3 * 10 ** (5 * step / 29) for step in range(len(records))]
    )
    assert min(record["loss"] for record in records) < records[0]["loss"] - 1
    for told in (
        "step 10/30  lr 3.56e-02  loss ",
        "falls fastest at",
        "suggestion  ",
        "usual       not known",
        "advice only",
    ):
        assert told in done.stdout
    assert (out / PICTURE_NAME).read_bytes().startswith(PNG)
    assert sorted(path.name for path in out.iterdir()) == [
        "checkpoints",
        RECORD_NAME,
        PICTURE_NAME,
        "metrics.jsonl",
    ]
    for name in ("metrics.jsonl", "checkpoints/step-00000007/run.json"):
        assert (out / name).read_text() == kept[name]
    assert len(list((out / "checkpoints").rglob("*"))) == 2


@pytest.mark.parametrize("limits", [(1.0, 1.0), (nan, 1.0), (0.0, 1.0), (1e-6, inf), (-1.0, 1.0)])
def test_what_is_no_range_is_refused_before_anything_is_read(limits: tuple[float, float]) -> None:
    low, high = map(str, limits)
    done = CliRunner().invoke(app, ["nowhere.toml", "--from", low, "--to", high])
    assert isinstance(done.exception, ConfigError)
    assert "is no range of learning rates" in str(done.exception)


def test_the_command_stops_where_the_gradient_is_no_number(mixed_shards: ShardSet, tmp_path: Path) -> None:
    pytest.importorskip("torchtitan")
    small_runs.write_plan(tmp_path, mixed_shards)
    done = mmpack_lr_range(write_recipe(tmp_path), *SMALL, "--to", "1e300", "--steps", "10")
    assert done.returncode == 1
    assert "steps before the loss is no number or the plan ends are too few" in done.stderr
    assert len((tmp_path / "run" / RECORD_NAME).read_bytes().splitlines()) < 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "1e-7"], "error: --from: 1e-06 to 1e-07 is no range of learning rates"),
        (["--parallel.tensor=3"], "error: parallel: tensor 3"),
    ],
)
def test_faults_are_one_line_and_exit_code_1(tmp_path: Path, arguments: list[str], message: str) -> None:
    pytest.importorskip("torch")
    done = mmpack_lr_range(make_run(tmp_path) / "run.toml", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert not (tmp_path / "run").exists()
