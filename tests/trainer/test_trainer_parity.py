"""One run on every layout: losses, gradient norms and choices of experts are the same, whoever shares the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mmpack import ShardSet
from tests.trainer.small_runs import MOE, run_cases, settings, write_plan

pytest.importorskip("torchtitan")

Case = dict[str, Any]
Steps = list[dict[str, Any]]
Named = tuple[str, Case]
Runner = Callable[[int, list[Named]], dict[str, Steps]]

DENSE: Case = {}
EXPERTS: Case = {"model": {"moe": MOE}}
CAPACITY: Case = {"model": {"moe": MOE | {"capacity_factor": 1.0}}, "steps": 2}
BOTH_WAYS: Case = {"model": {"image_attention": "both"}, "steps": 2}
MODELS = {"dense": DENSE, "experts": EXPERTS, "capacity": CAPACITY, "both-ways": BOTH_WAYS}


def _case(model: str, *, tensor: int = 1, expert: int = 1, replicate: int = 1, micro_batch: int = 1) -> Named:
    """A model on a layout, behind a name that starts with the model's."""
    layout = {"tensor": tensor, "expert": expert, "replicate": replicate}
    name = "-".join(f"{key}{degree}" for key, degree in layout.items() if degree > 1)
    return f"{model}:{name}-rows{micro_batch}", {
        **MODELS[model],
        "parallel": layout,
        "micro_batch": micro_batch,
    }


#: By number of processes: what is run, and how. Four rows are a step's, so that rows2 of two data-parallel ranks and
#: rows4 of one are one micro-batch, and rows1 up to four.
LAYOUTS: dict[int, list[Named]] = {
    1: [_case("dense", micro_batch=4), _case("experts", micro_batch=4)],
    2: [
        _case("dense"),
        _case("dense", tensor=2, micro_batch=4),
        _case("experts", expert=2, micro_batch=2),
        _case("experts", tensor=2, expert=2),
        _case("experts", tensor=2),
        _case("capacity", tensor=2, expert=2, micro_batch=2),
    ],
    4: [
        _case("dense", tensor=2),
        _case("dense", replicate=2),
        _case("both-ways", tensor=2, micro_batch=2),
        _case("experts", tensor=2, micro_batch=2),
        _case("experts", expert=2),
        _case("experts", tensor=2, expert=4),
        _case("capacity", expert=4),
    ],
    8: [_case("dense", tensor=2), _case("experts", tensor=2, expert=2), _case("experts", tensor=2, expert=4)],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, mixed_shards: ShardSet) -> Runner:
    """Trains cases in a number of processes."""
    folder = tmp_path_factory.mktemp("parity")
    plan = write_plan(folder, mixed_shards)

    def run(world: int, cases: list[Named]) -> dict[str, Steps]:
        return run_cases(
            folder, world, {name: settings(plan, folder / "out", **case) for name, case in cases}
        )

    return run


@pytest.fixture(scope="module")
def alone(runs: Runner) -> dict[str, Steps]:
    """Each model in one process, its step in four micro-batches."""
    return runs(1, [(name, _case(name)[1]) for name in MODELS])


@pytest.mark.parametrize("world", [1, *(pytest.param(world, marks=pytest.mark.slow) for world in (2, 4, 8))])
def test_layouts_agree(world: int, alone: dict[str, Steps], runs: Runner) -> None:
    for name, steps in runs(world, LAYOUTS[world]).items():
        expected = alone[name.partition(":")[0]]
        assert len(steps) == len(expected)
        _agree(steps[0], expected[0], 1e-6, f"{name}, first step")
        assert steps[0]["chosen"] == expected[0]["chosen"], name
        assert steps[0]["dropped"] == expected[0]["dropped"], name
        _agree(steps[-1], expected[-1], 1e-4, f"{name}, last step")


def _agree(step: dict[str, Any], expected: dict[str, Any], tolerance: float, name: str) -> None:
    """Losses within `tolerance`; norms of gradients within ten times that share of them, a gate's of its largest."""
    assert step["parts"] == pytest.approx(expected["parts"], abs=tolerance, rel=0), name
    assert step["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=10 * tolerance), name
    for norms, alone in zip(step["router_gradient"], expected["router_gradient"], strict=True):
        assert norms == pytest.approx(alone, rel=0, abs=10 * tolerance * max(alone)), name


def test_every_loss_is_on(alone: dict[str, Steps]) -> None:
    for name, steps in alone.items():
        parts = steps[0]["parts"]
        used = (
            "ce",
            "action",
            "contrastive",
            *(("aux", "z") if "chosen" in steps[0] and steps[0]["chosen"] else ()),
        )
        assert all(parts[part] > 0 for part in used), name
    assert alone["capacity"][0]["dropped"] > 0
    assert alone["experts"][0]["dropped"] == 0


def test_loss_falls(alone: dict[str, Steps]) -> None:
    for name in ("dense", "experts"):
        assert alone[name][-1]["parts"]["ce"] < alone[name][0]["parts"]["ce"] - 0.3, name
