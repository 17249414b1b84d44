"""Runs over the rows of a small build: their plan and settings, and how they are started in several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpack import ShardSet

ROOT = Path(__file__).parents[2]
MOE = {"experts": 4, "top_k": 2, "hidden_dim": 64, "shared_experts": 1, "noise": 0.1}

_PLAN = """
max_seq_len = 256
global_batch = 4
window_steps = 4

[[datasets]]
name = "drive"
shards = "{shards}"
select = ["drive*"]
contrastive = true

[[datasets]]
name = "captions"
shards = "{shards}"
select = ["captions"]
contrastive = true

[[datasets]]
name = "rest"
shards = "{shards}"
select = ["texts", "speech"]
"""


def write_plan(folder: Path, shards: ShardSet) -> Path:
    """A plan of four rows of 256 places a step, with contrastive pairs, actions, pictures, sound and text."""
    path = folder / "plan.toml"
    path.write_text(_PLAN.format(shards=shards.store.url))
    return path


def settings(plan: Path, out: Path, **tables: Any) -> dict[str, Any]:
    """A run of ten steps of a small float32 model with every loss on; `tables` overrule, table by table."""
    table: dict[str, Any] = {
        "out": str(out),
        "steps": 10,
        "micro_batch": 1,
        "data": {"plan": str(plan), "threads": 0},
        "model": {
            "dim": 64,
            "layers": 2,
            "heads": 4,
            "kv_heads": 2,
            "hidden_dim": 128,
            "contrastive_dim": 32,
            "vision": "mlp",
        },
        "loss": {
            "contrastive": 0.1,
            "action": 0.5,
            "aux": 0.01,
            "z": 0.001,
            "discrete_action": 2.0,
            "learn_temperature": True,
        },
        "optimizer": {"lr": 1e-3},
        "schedule": {"warmup_steps": 2},
        "compute": {"precision": "float32"},
    }
    for name, value in tables.items():
        table[name] = {**table.get(name, {}), **value} if isinstance(value, Mapping) else value
    return table


def torchrun(world: int, *arguments: str) -> list[str]:
    """The command that runs a module of the tests in `world` processes."""
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        str(world),
        *rendezvous,
        *arguments,
    ]


def environment() -> dict[str, str]:
    """One thread a process, and a crash of one is told."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}


def run_cases(
    folder: Path, world: int, cases: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Every case, trained from its first step in one group of `world` processes; its steps."""
    inputs, outputs = folder / f"cases-{world}.json", folder / f"steps-{world}.json"
    inputs.write_text(json.dumps(cases))
    command = torchrun(world, "-m", "tests.trainer.parity_process", str(inputs), str(outputs))
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(outputs.read_text())
