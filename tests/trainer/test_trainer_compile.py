"""Compiled models compute what eager ones do, with and without experts, recomputation and tensor parallelism."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from msgspec.structs import replace

from mmpack import ShardSet
from tests.trainer import small_runs
from tests.trainer.small_models import LOSS, MODEL, MOE, SEQ_LEN, make_arrays, make_model
from tests.trainer.small_runs import run_cases, settings, write_plan

pytest.importorskip("torchtitan")

from torch import Tensor

from mmpack_trainer.config.schema import ComputeConfig, ParallelConfig
from mmpack_trainer.model.build import decoder_config
from mmpack_trainer.model.masks import Backend
from mmpack_trainer.parallel import build, start
from mmpack_trainer.titan import whole

Recompute = Literal["none", "selective", "full"]


def _gradients(
    shards: ShardSet, backend: Backend, recompute: Recompute, *, compiled: bool
) -> dict[str, Tensor]:
    """By weight, of a model whose first layer is dense and whose second has experts."""
    _, batches = make_model(shards, backend=backend)
    tree = decoder_config(
        replace(MODEL, moe=replace(MOE, dense_layers=1)),
        LOSS,
        batches.widths,
        max_seq_len=SEQ_LEN,
        backend=backend,
    )
    compute = ComputeConfig(precision="float32", compile=compiled, recompute=recompute)
    model = build(tree, start(ParallelConfig()), compute, seed=0)
    batch = batches(make_arrays(shards))
    outputs = model(batch.inputs, batch.targets.ids)
    routing = sum(each.balance + each.z for each in outputs.routing)
    (outputs.ce / batch.inputs.valid.sum() + 1e-2 * routing).backward()
    return {
        name.replace("_checkpoint_wrapped_module.", ""): whole(parameter.grad)
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.slow  # compiles
@pytest.mark.parametrize(
    ("backend", "recompute"), [("sdpa", "selective"), ("dense", "none"), ("dense", "selective")]
)
def test_gradients_are_those_of_the_eager_model(
    mixed_shards: ShardSet, backend: Backend, recompute: Recompute
) -> None:
    expected = _gradients(mixed_shards, backend, "none", compiled=False)
    found = _gradients(mixed_shards, backend, recompute, compiled=True)
    assert list(found) == list(expected)
    for name, gradient in found.items():
        assert float((gradient - expected[name]).norm()) <= 1e-5 * float(expected[name].norm()), name


@pytest.mark.slow  # compiles, in two processes
@pytest.mark.timeout(600)
def test_layouts_agree(mixed_shards: ShardSet, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, mixed_shards)

    def case(
        experts: bool, attention: str, recompute: str, tensor: int, *, compiled: bool = True
    ) -> dict[str, Any]:
        moe = {"moe": small_runs.MOE | {"dense_layers": 1}} if experts else {}
        return settings(
            plan,
            tmp_path,
            steps=2,
            model={"attention": attention, **moe},
            compute={"recompute": recompute, "compile": compiled},
            parallel={"tensor": tensor, "expert": tensor if experts else 1},
        )

    eager = run_cases(
        tmp_path, 1, {str(kind): case(kind, "sdpa", "none", 1, compiled=False) for kind in (False, True)}
    )
    cases = {
        f"{kind}:{attention}-{recompute}-tensor{tensor}": case(kind, attention, recompute, tensor)
        for kind, attention, recompute, tensor in (
            (False, "sdpa", "none", 2),
            (False, "dense", "selective", 2),
            (True, "dense", "selective", 2),
        )
    }
    for name, steps in run_cases(tmp_path, 2, cases).items():
        for step, expected in zip(steps, eager[name.partition(":")[0]], strict=True):
            assert step["parts"] == pytest.approx(expected["parts"], abs=1e-5), name
            assert step["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-5), name
