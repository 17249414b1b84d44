"""Float8 products, emulated: near float32 in loss, the same on every layout, and told in one line where they cannot be."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from mmpack import ShardSet
from mmpack.errors import ConfigError
from mmpack.settings import parse_settings
from mmpack_trainer.config.check import check
from mmpack_trainer.config.schema import TrainConfig
from mmpack_trainer.hardware import Device
from tests.trainer import recipes, small_runs
from tests.trainer.small_runs import run_cases, settings

H100 = Device("NVIDIA H100 80GB HBM3", (9, 0), 80 << 30)
#: The second layer has experts; the first is dense.
MODEL = {"moe": small_runs.MOE | {"dense_layers": 1}}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory, mixed_shards: ShardSet) -> Path:
    """A plan over the small build."""
    for name in ("torchtitan", "torchao"):
        pytest.importorskip(name)
    return small_runs.write_plan(tmp_path_factory.mktemp("fp8"), mixed_shards)


def _trainer(plan: Path, out: Path, *, fp8: bool, **tables: Any):
    from mmpack_trainer.train import Trainer

    table = settings(plan, out, model=MODEL, compute={"precision": "float32", "fp8": fp8}, **tables)
    return Trainer(parse_settings(table, TrainConfig, where="test"), emulate_fp8=True)


def test_losses_are_near_those_of_float32_and_fall(plan: Path, tmp_path: Path) -> None:
    losses = {}
    for fp8 in (False, True):
        trainer = _trainer(plan, tmp_path, fp8=fp8)
        losses[fp8] = [trainer.step().loss for _ in range(8)]
        trainer.close()
    assert losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], rel=2e-3)
    assert losses[True][-1] < losses[True][0] - 0.3


def test_only_the_products_of_every_token_are_float8_and_weights_stay(plan: Path, tmp_path: Path) -> None:
    import torch
    from torchao.float8.float8_linear import Float8Linear

    from mmpack_trainer.titan import whole

    plain, model = (_trainer(plan, tmp_path, fp8=fp8).model for fp8 in (False, True))
    found = {name for name, module in model.named_modules() if isinstance(module, Float8Linear)}
    attention = {
        "attention.qkv_linear.wq",
        "attention.qkv_linear.wk",
        "attention.qkv_linear.wv",
        "attention.wo",
    }
    forward = {"w1", "w2", "w3"}
    assert found == (
        {f"layers.{layer}.{name}" for layer in (0, 1) for name in attention}
        | {f"layers.0.feed_forward.{name}" for name in forward}
        | {f"layers.1.moe.shared_experts.{name}" for name in forward}
    )
    weights, expected = model.state_dict(), plain.state_dict()
    assert list(weights) == list(expected)
    for name, weight in weights.items():
        assert weight.dtype == expected[name].dtype, name
        assert torch.equal(whole(weight), whole(expected[name])), name


def test_a_checkpoint_goes_on_with_or_without(plan: Path, tmp_path: Path) -> None:
    for steps, fp8 in ((2, False), (4, True), (6, False)):
        trainer = _trainer(plan, tmp_path, fp8=fp8, steps=steps)
        told: list[int] = []
        trainer.fit(lambda step, told=told: told.append(step.number))
        trainer.close()
        assert told == [steps - 1, steps]


@pytest.mark.slow  # two torchruns
def test_layouts_agree(plan: Path, tmp_path: Path) -> None:
    shared: dict[str, Any] = {"model": MODEL, "compute": {"precision": "float32", "fp8": True}, "steps": 3}
    layouts: dict[str, dict[str, Any]] = {
        "sharded": {},
        "recomputed": {"compute": shared["compute"] | {"recompute": "selective"}},
        "tensor": {"parallel": {"tensor": 2, "expert": 2}},
    }
    alone = run_cases(tmp_path, 1, {"alone": settings(plan, tmp_path, **shared)})["alone"]
    cases = {name: settings(plan, tmp_path, **(shared | layout)) for name, layout in layouts.items()}
    for name, steps in run_cases(tmp_path, 2, cases).items():
        for step, expected in zip(steps, alone, strict=True):
            assert step["parts"] == pytest.approx(expected["parts"], abs=1e-4), name
            assert step["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-3), name


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe over made shards, of widths that float8 takes."""
    return recipes.make_run(tmp_path_factory.mktemp("run"))


def _refusal(run: Path, *overrides: str, world: int = 1, device: Device = H100) -> str:
    with pytest.raises(ConfigError) as caught:
        check(recipes.config_with(run, "--compute.fp8=true", *overrides), world=world, device=device)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_device_without_float8_is_refused(run: Path) -> None:
    for device in (Device("cpu"), Device("NVIDIA A100-SXM4-80GB", (8, 0), 80 << 30)):
        assert _refusal(run, device=device).startswith(f"compute.fp8: {device.name} has no float8 products")


def test_what_lacks_is_named_with_its_command(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)  # as if it were not installed
    assert _refusal(run).endswith("torchao is not installed. pip install 'mmpack-trainer[fp8]'")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--compute.precision=float32"], "float8 products give bfloat16, and the precision is float32"),
        (["--model.dim=72", "--model.head_dim=8"], "16 does not divide model.dim = 72"),
        (["--model.hidden_dim=120"], "16 does not divide model.hidden_dim = 120"),
        (["--model.kv_heads=1"], "16 does not divide model.kv_heads · head_dim = 8"),
        (
            ["--parallel.tensor=4", "--model.hidden_dim=96"],
            "16 does not divide model.kv_heads · head_dim / parallel.tensor 4 = 8",
        ),
        (
            [*recipes.MOE, "--model.moe.shared_experts=1", "--model.moe.hidden_dim=90"],
            "16 does not divide model.moe.shared_experts · hidden_dim = 90",
        ),
    ],
)
def test_what_products_cannot_take_is_refused(run: Path, overrides: list[str], message: str) -> None:
    pytest.importorskip("torchao")
    assert message in _refusal(run, *overrides, world=4)


def test_rows_that_products_cannot_take_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    run = recipes.make_run(tmp_path, max_seq_len=120)
    assert "16 does not divide micro_batch · max_seq_len = 120" in _refusal(run, "--micro_batch=1")


def test_a_run_that_fits_passes(run: Path) -> None:
    pytest.importorskip("torchao")
    config = recipes.config_with(run, "--compute.fp8=true", "--parallel.tensor=2", "--compute.compile=true")
    assert check(config, world=2, device=H100).batch.ranks == 1
