"""Killed runs go on as if nothing had been: to the bit on one layout, and on another with the same rows."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mmpack import ShardSet
from tests.ingest.build_inputs import list_descendants, wait_until_gone
from tests.trainer.small_runs import ROOT, environment, settings, torchrun

pytest.importorskip("torchtitan")

STEPS, EVERY = 20, 5
_PLAN = """
max_seq_len = 128
global_batch = 8
window_steps = 4

[[datasets]]
name = "pairs"
shards = "{shards}"
select = ["drive*", "captions"]
contrastive = true

[[datasets]]
name = "rest"
shards = "{shards}"
select = ["texts", "speech"]
"""


class Running:
    """A run in a folder, whose settings all its processes share."""

    def __init__(self, folder: Path, shards: ShardSet) -> None:
        self.folder = folder
        folder.mkdir()
        plan = folder / "plan.toml"
        plan.write_text(_PLAN.format(shards=shards.store.url))
        self.settings = settings(
            plan,
            folder / "out",
            steps=STEPS,
            micro_batch=1,
            model={"dim": 32, "hidden_dim": 64, "heads": 2, "kv_heads": 2},
            checkpoint={"every_steps": EVERY, "keep": 2},
        )
        self.settings["model"]["moe"] = {
            "experts": 4,
            "top_k": 2,
            "hidden_dim": 32,
            "noise": 0.1,
            "bias_rate": 0.01,
        }

    def start(self, *options: str, world: int = 1, **parallel: int) -> subprocess.Popen[bytes]:
        """Its processes, on a layout."""
        table = self.settings | {"parallel": parallel}
        (self.folder / "run.json").write_text(json.dumps(table))
        arguments = [
            "-m",
            "tests.trainer.resume_process",
            str(self.folder / "run.json"),
            str(self.folder),
            *options,
        ]
        command = [sys.executable, *arguments] if world == 1 else torchrun(world, *arguments)
        with (self.folder / "errors.txt").open("ab") as errors:
            return subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=errors, stdout=errors)

    def finish(self, process: subprocess.Popen[bytes]) -> None:
        """Waits for its end, which must be a good one."""
        assert process.wait(timeout=300) == 0, (self.folder / "errors.txt").read_text()[-3000:]

    def kill_behind(self, step: int, process: subprocess.Popen[bytes]) -> None:
        """kill -9 of all its processes at a random moment behind the checkpoint of `step`, and well before the end."""
        until, last = time.monotonic() + 300, random.randint(step, step + EVERY - 1)
        while step not in self.checkpoints() or max(self.losses()) < last:
            assert process.poll() is None, (self.folder / "errors.txt").read_text()[-3000:]
            assert time.monotonic() < until
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.02))
        workers = list_descendants(process.pid)
        for pid in (process.pid, *workers):
            os.kill(pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert wait_until_gone(workers) == []

    def checkpoints(self) -> list[int]:
        """Steps of whole checkpoints."""
        found = (self.folder / "out" / "checkpoints").glob("step-????????/run.json")
        return sorted(int(path.parent.name.removeprefix("step-")) for path in found)

    def losses(self) -> dict[int, set[str]]:
        """Every loss told for a step, in all its processes' lives."""
        found: dict[int, set[str]] = {}
        # A line is whole once its end is there: a process may be at it.
        for line in (self.folder / "steps.jsonl").read_text().split("\n")[:-1]:
            record = json.loads(line)
            found.setdefault(record["step"], set()).add(record["loss"])
        return found

    def rows(self) -> dict[int, list[str]]:
        """Keys of the samples of every row; a row read twice must have had the same ones."""
        found: dict[int, list[str]] = {}
        for path in self.folder.glob("rows-*.jsonl"):
            for line in path.read_text().split("\n")[:-1]:
                record = json.loads(line)
                (number,) = record["rows"]
                assert found.setdefault(number, record["keys"]) == record["keys"]
        return found

    def digests(self) -> dict[str, Any]:
        """Of parameters and buffers at the end."""
        return json.loads((self.folder / "done.json").read_text())


@pytest.fixture(scope="module")
def whole(mixed_shards: ShardSet, tmp_path_factory: pytest.TempPathFactory) -> Running:
    """Twenty steps in one go."""
    running = Running(tmp_path_factory.mktemp("resume") / "whole", mixed_shards)
    running.finish(running.start())
    return running


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_bit(mixed_shards: ShardSet, whole: Running, tmp_path: Path) -> None:
    running = Running(tmp_path / "killed", mixed_shards)
    running.kill_behind(10, running.start())
    told = max(running.losses())
    assert 10 <= told < STEPS
    # The same command goes on, and is killed once more, in the middle of writing the last checkpoint.
    second = running.start(str(STEPS))
    assert second.wait(timeout=300) == -signal.SIGKILL
    partial = running.folder / "out" / "checkpoints" / f"step-{STEPS:08d}.partial"
    assert any(partial.iterdir())
    assert running.checkpoints()[-1] == STEPS - EVERY
    running.finish(running.start())
    assert running.checkpoints()[-1] == STEPS
    # Steps done several times, before and after kills, gave one and the same loss.
    losses = running.losses()
    assert list(losses) == list(range(1, STEPS + 1))
    assert losses == whole.losses()
    assert running.rows() == whole.rows()
    assert running.digests() == whole.digests()


@pytest.mark.slow
def test_a_run_of_eight_processes_goes_on_in_four(
    mixed_shards: ShardSet, whole: Running, tmp_path: Path
) -> None:
    running = Running(tmp_path / "shrunk", mixed_shards)
    running.kill_behind(10, running.start(world=8, expert=4))
    assert (running.folder / "rows-7.jsonl").is_file()
    # Fewer processes, and other shards of every weight: tensor parallel ones, and experts in two parts.
    running.finish(running.start(world=4, tensor=2, expert=2))
    assert running.rows() == whole.rows()
    expected = whole.losses()
    assert running.losses().keys() == expected.keys()
    for step, told in running.losses().items():
        (loss,) = expected[step]
        for each in told:
            assert abs(float.fromhex(each) - float.fromhex(loss)) <= 1e-4, step
