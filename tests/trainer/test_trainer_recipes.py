"""The recipes: each loads and passes all checks, and its figures are what its comments say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmpack.errors import ConfigError
from mmpack.layout import LayoutConfig
from mmpack.layout.numeric import NumericLayout
from mmpack_trainer.config.check import Checked, check
from mmpack_trainer.config.load import load_config
from mmpack_trainer.config.schema import TrainConfig
from mmpack_trainer.hardware import Device
from tools.make_index import IndexSource, make_index

RECIPES = Path(__file__).parents[2] / "trainer" / "recipes"
H100 = Device("NVIDIA H100 80GB HBM3", (9, 0), 80 << 30)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build as the recipes' plans ask for: slices with texts in them, and an action."""
    lengths = np.full(400, 380)
    layout = LayoutConfig(
        cameras=("cam_front",),
        numeric=(NumericLayout(name="action", width=3, mode="continuous", role="action"),),
    )
    source = IndexSource(
        name="drives", kind="slice", tokens=lengths, runs=np.arange(400) // 20, tokens_text=np.full(400, 8)
    )
    return make_index(tmp_path_factory.mktemp("recipes") / "shards", [source], layout=layout)


def recipe(name: str, shards: Path, folder: Path, *overrides: str) -> TrainConfig:
    """A recipe with its own plan, whose shards are made ones."""
    text = (RECIPES / f"{name}.plan.toml").read_text()
    for address in ("s3://bucket/drives", "s3://bucket/texts", "../../demo/shards"):
        text = text.replace(address, str(shards))
    plan = folder / "plan.toml"
    # Made data of some hundred slices end sooner than a run.
    plan.write_text("\n".join(line for line in text.splitlines() if not line.startswith("max_epochs")))
    return load_config(RECIPES / f"{name}.toml", [f"--data.plan={plan}", *overrides])


def checked(name: str, shards: Path, folder: Path, world: int, *overrides: str) -> Checked:
    device = Device("cpu") if name == "cpu_demo" else H100
    return check(recipe(name, shards, folder, *overrides), world=world, device=device)


def test_every_recipe_names_a_plan_that_is_there() -> None:
    recipes = [path for path in RECIPES.glob("*.toml") if not path.name.endswith(".plan.toml")]
    assert {path.stem for path in recipes} == {"1b_dense", "10b_moe", "cpu_demo"}
    for path in recipes:
        assert Path(load_config(path).data.plan).is_file()


def test_the_cpu_recipe_passes_without_a_warning(shards: Path, tmp_path: Path) -> None:
    found = checked("cpu_demo", shards, tmp_path, 1)
    assert found.warnings == ()
    assert (found.batch.tokens, found.batch.accumulation) == (4096, 2)
    assert found.parameters.total < 5_000_000
    assert checked("cpu_demo", shards, tmp_path, 2).batch.accumulation == 1


def test_the_1b_recipe_is_2m_tokens_a_step_and_100b_in_all(shards: Path, tmp_path: Path) -> None:
    found = checked("1b_dense", shards, tmp_path, 256)
    assert found.batch.tokens == 2**21
    assert (found.batch.micro_batch, found.batch.accumulation, found.batch.seq_len) == (2, 1, 4096)
    config = recipe("1b_dense", shards, tmp_path)
    assert config.steps * found.batch.tokens == pytest.approx(1e11, rel=1e-4)
    assert found.parameters.attention + found.parameters.dense == pytest.approx(973e6, rel=1e-3)
    assert 0.97e9 < found.parameters.total < 1.1e9
    assert (config.optimizer.lr, config.schedule.warmup_steps) == (5e-4, 3000)
    assert found.warnings == ("warmup is 6.29% of 47,684 steps; 1 to 5 % is usual, 476 to 2,384 steps",)


def test_micro_batches_of_4_rows_are_too_many_at_256_ranks(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="512 rows a step are no multiple of 256 data-parallel ranks × micro_batch 4"
    ):
        checked("1b_dense", shards, tmp_path, 256, "--micro_batch=4")


def test_the_10b_recipe_is_4m_tokens_a_step_and_10t_in_all(shards: Path, tmp_path: Path) -> None:
    found = checked("10b_moe", shards, tmp_path, 256)
    assert found.batch.tokens == 2**22
    assert (found.batch.accumulation, found.batch.seq_len) == (2, 8192)
    config = recipe("10b_moe", shards, tmp_path)
    assert config.steps * found.batch.tokens == pytest.approx(1e13, rel=1e-6)
    assert config.model.moe is not None
    assert config.model.moe.capacity_factor == 1.25
    assert (config.optimizer.lr, config.schedule.warmup_steps) == (1.5e-4, 5000)
    count = found.parameters
    assert 9.5e9 < count.total < 10.5e9
    assert 2.2e9 < count.active < 2.6e9
    assert count.attention == pytest.approx(705e6, rel=1e-2)
    assert count.routed / 16 == pytest.approx(528e6, rel=1e-2)
    assert len(found.warnings) == 1
    assert "warmup is 0.21% of 2,384,185 steps; 1 to 5 % is usual, 23,841 to 119,209" in found.warnings[0]


@pytest.mark.parametrize("degree", [8, 16])
def test_experts_are_shared_by_8_or_16_processes(shards: Path, tmp_path: Path, degree: int) -> None:
    found = checked("10b_moe", shards, tmp_path, 256, f"--parallel.expert={degree}")
    assert found.batch.ranks == 256
