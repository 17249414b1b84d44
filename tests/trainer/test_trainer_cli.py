"""The command mmpack-train: what it tells, and how it refuses: one line, exit code 1, no traceback, no process group."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmpack import ShardSet
from mmpack_trainer.metrics import METRICS_NAME, read_metrics
from tests.trainer.recipes import make_run
from tests.trainer.small_runs import ROOT, environment, torchrun, write_plan


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    return make_run(tmp_path_factory.mktemp("run"))


def mmpack_train(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mmpack_trainer.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | env,
    )


def test_checking_tells_settings_batch_and_warnings_and_trains_nothing(run: Path) -> None:
    done = mmpack_train(run / "run.toml", "--steps=50", "--check", "--model.dim=128")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "steps = 50" in lines
    assert "model.dim = 128" in lines
    assert any(
        line.endswith("2 rows × 128 places × 8 accumulated × 1 data-parallel ranks = 2,048 tokens a step")
        for line in lines
    )
    assert lines[-1].startswith("warning: warmup is 6.00% of 50 steps")
    assert not (run / "run").exists()


def test_other_ranks_check_and_say_nothing(run: Path) -> None:
    done = mmpack_train(run / "run.toml", "--check", WORLD_SIZE="2", RANK="1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [
        (["--model.layrs=3"], {}, "unknown key 'model.layrs'. Did you mean 'layers'?"),
        (["--chek"], {}, "error: --chek: is no setting. Write --section.key=value"),
        (
            ["--parallel.tensor=3"],
            {"WORLD_SIZE": "3", "RANK": "0"},
            "rank 0: error: parallel.tensor: 3 does not divide",
        ),
        ([], {"WORLD_SIZE": "many"}, "error: $WORLD_SIZE: 'many' is no number"),
    ],
)
def test_faults_are_one_line_and_exit_code_1(
    run: Path, arguments: list[str], env: dict[str, str], message: str
) -> None:
    done = mmpack_train(run / "run.toml", *arguments, **env)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_a_process_whose_peer_is_gone_says_so_in_one_line() -> None:
    code = (
        "import typer; from mmpack_trainer.entry import run_app; app = typer.Typer()\n"
        "@app.command()\n"
        "def lose() -> None: raise RuntimeError('[pair.cc:537] Read error: Connection reset by peer')\n"
        "run_app(app)"
    )
    env = os.environ | {"WORLD_SIZE": "2", "RANK": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 1
    assert done.stderr == (
        "rank 1: error: the connection to another process was lost: it failed or was killed, or the network did\n"
    )


_RUN = """
out = "out"
steps = 4
micro_batch = 2
data = { plan = "plan.toml" }
model = { dim = 32, layers = 2, heads = 2, kv_heads = 2, hidden_dim = 64 }
loss = { action = 0.5 }
optimizer = { lr = 1e-3 }
schedule = { kind = "constant", warmup_steps = 1 }
compute = { precision = "float32" }
checkpoint = { every_steps = 2 }
"""


@pytest.mark.slow
def test_under_torchrun_it_trains_and_goes_on_on_another_layout(
    mixed_shards: ShardSet, tmp_path: Path
) -> None:
    write_plan(tmp_path, mixed_shards)
    (tmp_path / "run.toml").write_text(_RUN)

    def train(*options: str) -> str:
        command = torchrun(2, "-m", "mmpack_trainer.cli", str(tmp_path / "run.toml"), *options)
        done = subprocess.run(
            command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    # One of the two speaks.
    assert train().count("step 4/4") == 1
    assert "step 4/6" not in train("--steps=6", "--parallel.tensor=2")
    together = list(read_metrics(tmp_path / "out" / METRICS_NAME))
    assert [record["step"] for record in together] == [1, 2, 3, 4, 5, 6]
    alone = mmpack_train(tmp_path / "run.toml", f"--out={tmp_path / 'alone'}", "--steps=6")
    assert alone.returncode == 0, alone.stderr
    for one, other in zip(together, read_metrics(tmp_path / "alone" / METRICS_NAME), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-4)


def test_where_nothing_is_left_to_do_or_to_write_is_told_before_the_first_step(
    mixed_shards: ShardSet, tmp_path: Path
) -> None:
    write_plan(tmp_path, mixed_shards)
    (tmp_path / "run.toml").write_text(_RUN)
    first = mmpack_train(tmp_path / "run.toml", "--steps=2")
    assert first.returncode == 0, first.stderr
    again = mmpack_train(tmp_path / "run.toml", "--steps=1", "--schedule.warmup_steps=0")
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-1].startswith("nothing to do: 2 of 1 steps are done")
    metrics = tmp_path / "out" / METRICS_NAME
    assert len(read_metrics(metrics)) == 2
    metrics.write_text("junk\n")
    junk = mmpack_train(tmp_path / "run.toml")
    assert (junk.returncode, len(junk.stderr.splitlines())) == (1, 1)
    assert "metrics.jsonl: no metrics of a run" in junk.stderr
    assert "step 3/4" not in junk.stdout
