"""Recipes and plans for tests of the trainer's settings: a made index, no media."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmpack.layout import LayoutConfig
from mmpack_trainer.config.load import load_config
from mmpack_trainer.config.schema import TrainConfig
from tools.make_index import IndexSource, make_index

RECIPE = """
out = "run"
steps = 100
micro_batch = 2

[data]
plan = "plan.toml"

[model]
dim = 64
layers = 2
heads = 8
kv_heads = 4
hidden_dim = 128

[optimizer]
lr = 3e-4

[schedule]
warmup_steps = 3
"""
MOE = ("--model.moe.experts=6", "--model.moe.hidden_dim=96")


def make_shards(folder: Path, *, layout: LayoutConfig | None = None) -> Path:
    """An index of 400 texts of 10 to 90 tokens."""
    lengths = np.random.default_rng(3).integers(10, 90, 400)
    return make_index(folder, [IndexSource(name="texts", kind="text", tokens=lengths)], layout=layout)


def write_plan(folder: Path, **settings: Any) -> Path:
    """`plan.toml` over the shards in `folder`; settings overrule."""
    rows: dict[str, Any] = {"max_seq_len": 128, "global_batch": 16} | settings
    path = folder / "plan.toml"
    lines = [f"{key} = {value}" for key, value in rows.items()]
    path.write_text("\n".join(lines) + '\n[[datasets]]\nname = "texts"\nshards = "shards"\n')
    return path


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    """`run.toml` in `folder`."""
    path = folder / "run.toml"
    path.write_text(text)
    return path


def config_with(folder: Path, *overrides: str) -> TrainConfig:
    """The recipe in `folder`, overruled."""
    return load_config(folder / "run.toml", overrides)


def make_run(folder: Path, **plan: Any) -> Path:
    """Shards, plan and recipe; the folder."""
    make_shards(folder / "shards")
    write_plan(folder, **plan)
    write_recipe(folder)
    return folder


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found
