"""A step on batches that are handed over, and the end of a run whose gradient is no number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmpack import ShardSet
from mmpack.errors import DataError
from mmpack.settings import parse_settings
from tests.trainer.small_runs import settings, write_plan

pytest.importorskip("torchtitan")

import torch

from mmpack_trainer.config.schema import TrainConfig
from mmpack_trainer.model.moe import Gate, Router
from mmpack_trainer.train import Trainer


def _trainer(folder: Path, shards: ShardSet, **tables: Any) -> Trainer:
    table = settings(write_plan(folder, shards), folder / "out", **tables)
    return Trainer(parse_settings(table, TrainConfig, where="test"))


def test_the_same_batches_teach(mixed_shards: ShardSet, tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, mixed_shards)
    rows = [trainer.batches({**arrays, "labels": labels}) for arrays, labels in _taken(trainer, 4)]
    steps = [trainer.learn(rows, waited_s=0.25) for _ in range(6)]
    assert [step.number for step in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1].loss < steps[0].loss - 0.3
    assert all(step.waited == 0.25 < step.seconds for step in steps)
    trainer.close()


def _taken(trainer: Trainer, count: int) -> list[Any]:
    data = iter(trainer.loader)
    return [next(data) for _ in range(count)]


def test_a_gradient_that_is_no_number_ends_the_run(mixed_shards: ShardSet, tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, mixed_shards, checkpoint={"every_steps": 1})
    trainer.step()
    trainer.save()
    with torch.no_grad():
        trainer.model.lm_head.weight.fill_(float("nan"))
    before = [each.detach().clone() for each in trainer.model.parameters()]
    with pytest.raises(DataError, match=r"gradient of step 2 .*ce nan") as raised:
        trainer.step()
    assert raised.value.where == "rows 4 to 7"
    assert "checkpoint is of step 1" in raised.value.hint
    for parameter, kept in zip(trainer.model.parameters(), before, strict=True):
        assert torch.equal(parameter, kept) or parameter.isnan().all()
    assert trainer.done == 1
    trainer.close()


def test_where_all_experts_are_chosen_there_is_no_margin(mixed_shards: ShardSet, tmp_path: Path) -> None:
    moe = {"experts": 1, "top_k": 1, "hidden_dim": 32}
    trainer = _trainer(tmp_path, mixed_shards, model={"moe": moe}, micro_batch=4)
    step = trainer.step()
    assert step.chosen.tolist() == [[step.tokens]] * 2
    assert step.gate[:, 4].tolist() == [0.0, 0.0]
    trainer.close()


def test_noise_on_a_gate_is_drawn_by_seed_layer_and_row() -> None:
    hidden = torch.zeros(1, 5, 8)

    def drawn(seed: int, layer: int, row: int) -> tuple[float, ...]:
        gate = Gate.Config(in_features=8, out_features=4)
        router = Router.Config(num_experts=4, gate=gate, top_k=2, noise=1.0, layer=layer, seed=seed).build()
        _, _, logits, _ = router.train()(hidden, None, (row,))
        return tuple(logits.flatten().tolist())

    cases = [(seed, layer, row) for seed in (0, 1, 2**63 - 1) for layer in (0, 1) for row in (0, 1, 2**40)]
    assert len({drawn(*case) for case in cases}) == len(cases)
    assert drawn(1, 1, 1) == drawn(1, 1, 1)
