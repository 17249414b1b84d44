"""A run that is killed goes on from its checkpoint: bitwise on the same layout, with the same rows on another."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mmpack import Shards
from tests.trainer.runs_made import MOE, ROOT, environment, settings, torchrun, write_plan

pytest.importorskip("torchtitan")

STEPS = 6
BEFORE = 3


def _start(folder: Path, table: dict[str, Any], name: str, world: int = 1) -> subprocess.Popen[str]:
    """Trains to the end, from a checkpoint on if there is one; steps go to `name`.jsonl as they are done."""
    config = folder / f"{name}.json"
    config.write_text(json.dumps(table))
    arguments = ["-m", "tests.trainer.resume_run", str(config), str(folder / f"{name}.jsonl")]
    command = [sys.executable, *arguments] if world == 1 else torchrun(world, *arguments)
    return subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)


def _finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-4000:]


def _steps(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def _kill_behind_checkpoint(process: subprocess.Popen[str], out: Path) -> None:
    """kill -9 as soon as a checkpoint is whole."""
    until = time.monotonic() + 200
    while not list(out.glob("checkpoints/step-*/run.json")):
        assert process.poll() is None, process.stderr and process.stderr.read()[-4000:]
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, mixed: Shards) -> Path:
    """A run of six steps that nothing disturbed, and one of as many that was killed in the middle and goes on twice."""
    folder = tmp_path_factory.mktemp("resume")
    plan = write_plan(folder, mixed)
    common = {"steps": STEPS, "model": {"moe": MOE}, "checkpoint": {"every_steps": BEFORE}}
    whole = settings(plan, folder / "whole", **common)
    _finish(_start(folder, whole, "whole"))
    cut = settings(plan, folder / "cut", **common)
    _kill_behind_checkpoint(_start(folder, cut, "killed"), folder / "cut")
    (folder / "cut.json").write_text(json.dumps(cut))
    return folder


def test_same_layout_goes_on_bitwise(runs: Path) -> None:
    table = json.loads((runs / "cut.json").read_text())
    _copy(runs, table, "same")
    _finish(_start(runs, table, "same"))
    steps = _steps(runs, "same")
    assert [step["number"] for step in steps] == list(range(BEFORE + 1, STEPS + 1))
    assert steps == _steps(runs, "whole")[BEFORE:]


def test_two_ranks_go_on_from_one(runs: Path) -> None:
    table = json.loads((runs / "cut.json").read_text())
    _copy(runs, table, "two")
    table["parallel"] = {"expert": 2}
    _finish(_start(runs, table, "two", world=2))
    steps, expected = _steps(runs, "two"), _steps(runs, "whole")[BEFORE:]
    assert [step["rows"] for step in steps] == [step["rows"] for step in expected]
    assert [step["tokens"] for step in steps] == [step["tokens"] for step in expected]
    for step, other in zip(steps, expected, strict=True):
        assert step["loss"] == pytest.approx(other["loss"], abs=1e-4)


def test_another_model_is_refused(runs: Path) -> None:
    table = json.loads((runs / "cut.json").read_text())
    table["model"] = {**table["model"], "layers": 3}
    process = _start(runs, table, "other")
    _, errors = process.communicate(timeout=200)
    assert process.returncode != 0
    assert "ConfigError" in errors
    assert "another layers" in errors


def test_kept_are_the_last_and_the_best(runs: Path) -> None:
    names = sorted(path.name for path in (runs / "whole" / "checkpoints").iterdir())
    assert names == [f"step-{BEFORE:08d}", f"step-{STEPS:08d}"]


def _copy(folder: Path, table: dict[str, Any], name: str) -> None:
    """Gives the run its own copy of the checkpoints of the one that was killed."""
    from shutil import copytree

    first = f"step-{BEFORE:08d}"
    copytree(folder / "cut" / "checkpoints" / first, folder / name / "checkpoints" / first)
    table["out"] = str(folder / name)
