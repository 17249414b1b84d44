"""Small plans over synthetic indexes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmpack.mixture.phase_config import PhaseConfig
from mmpack.plan import Plan, PlannedRow
from mmpack.plan.plan_config import DatasetConfig, PlanConfig
from tools.make_index import IndexSource, make_index

CAPACITY = 1024
NAMES = ("drive", "robot", "texts", "speech")


def make_small_index(folder: Path, *, scale: int = 1) -> Path:
    """Writes an index of two recordings of slices with several runs each, and two stand-alone sources."""
    random = np.random.default_rng(5)
    drive = np.full(240 * scale, 190)
    return make_index(
        folder,
        [
            IndexSource(name="drive", kind="slice", tokens=drive, runs=np.arange(240 * scale) // 17),
            IndexSource(
                name="robot",
                kind="slice",
                tokens=np.full(600 * scale, 52),
                runs=np.arange(600 * scale) // 100,
            ),
            IndexSource(
                name="texts",
                kind="text",
                tokens=np.clip(np.rint(random.lognormal(4, 1, 3000 * scale)), 5, 900).astype(int),
            ),
            IndexSource(
                name="speech",
                kind="text",
                tokens=np.clip(np.rint(random.lognormal(5, 0.6, 500 * scale)), 9, 900).astype(int),
            ),
        ],
    )


def plan_config(folder: Path, **settings: object) -> PlanConfig:
    """Returns a plan with three phases over :func:`make_small_index`; `settings` override its settings."""
    caps = settings.pop("max_epochs", {})
    datasets = tuple(
        DatasetConfig(name=name, shards=str(folder), select=(name,), locality=8, max_epochs=caps.get(name))  # type: ignore[attr-defined]
        for name in settings.pop("names", NAMES)  # type: ignore[attr-defined]
    )
    defaults: dict[str, object] = {
        "max_seq_len": CAPACITY,
        "global_batch": 24,
        "window_steps": 4,
        "datasets": datasets,
        "phases": (
            PhaseConfig(name="cold", tokens=150_000, temperature=1.2),
            PhaseConfig(name="mid", tokens=300_000, temperature=(3.0, 5.0)),
            PhaseConfig(name="hot", tokens=200_000, temperature=1.5, datasets=("texts", "drive")),
        ),
    }
    return PlanConfig(**(defaults | settings))  # type: ignore[arg-type]


def all_rows(plan: Plan) -> list[PlannedRow]:
    """Returns every row of a plan that ends."""
    batch = plan.config.global_batch
    return [plan.row(number) for step in plan.steps() for number in range(step * batch, (step + 1) * batch)]
