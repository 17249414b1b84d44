"""What a process holds in memory: counted by hand, held to what autograd keeps, and what is said where it does not fit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from typer.testing import CliRunner

from mmpack.errors import ConfigError
from mmpack.layout import Layout, LayoutConfig
from mmpack_trainer.accounting import BatchSize
from mmpack_trainer.config.check import Checked, check
from mmpack_trainer.config.load import load_config
from mmpack_trainer.config.schema import (
    ComputeConfig,
    DataConfig,
    LossConfig,
    ModelConfig,
    MoeConfig,
    OptimizerConfig,
    ParallelConfig,
    ScheduleConfig,
    TrainConfig,
)
from mmpack_trainer.hardware import Device
from mmpack_trainer.memory import ROOM, Memory, in_bytes, memory_of
from mmpack_trainer.parameters import parameters_of
from tests.trainer.recipes import config_with, make_run

LAYOUT = Layout(LayoutConfig())
IDS = LAYOUT.vocabulary.size
RECIPES = Path(__file__).parents[2] / "trainer" / "recipes"
#: Query heads together 64 wide, keys 32.
DENSE = ModelConfig(dim=64, layers=3, heads=4, kv_heads=2, hidden_dim=160)
EXPERTS = MoeConfig(experts=4, top_k=2, hidden_dim=48, shared_experts=1, dense_layers=1)
SPARSE = replace(DENSE, moe=EXPERTS)


def settings(model: ModelConfig = DENSE, **tables: Any) -> TrainConfig:
    return TrainConfig(
        out="",
        steps=10,
        data=DataConfig(plan=""),
        model=model,
        optimizer=tables.pop("optimizer", OptimizerConfig(lr=1e-3)),
        schedule=ScheduleConfig(warmup_steps=1),
        **tables,
    )


def memory(config: TrainConfig, *, rows: int = 2, seq_len: int = 128, world: int = 1) -> Memory:
    batch = BatchSize(rows, seq_len, 1, world // config.parallel.tensor)
    return memory_of(config, batch, parameters_of(config.model, LAYOUT), world=world)


def test_a_dense_model_counted_by_hand() -> None:
    found = memory(settings())
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 160
    total = 3 * layer + 2 * IDS * 64 + 3 * 32 * 32 * 64
    assert found.states == 16 * total  # weight, gradient, two moments
    assert found.gathered == IDS * 64 * (3 * 2 + 4)  # the head is larger than a layer
    place = 2 * (4 * 64 + 2 * 64 + 2 * 32 + 4 * 160) + 4 * 4
    assert found.activations == 256 * 3 * place
    assert found.logits == 256 * IDS * (2 + 3 * 4)
    assert found.total == found.states + found.gathered + found.activations + found.logits


def test_experts_counted_by_hand() -> None:
    found = memory(settings(SPARSE))
    expert, attention = 3 * 64 * 48, 2 * 64 * 64 + 2 * 64 * 32
    layers = 3 * attention + 3 * 64 * 160 + 2 * (64 * 4 + 5 * expert)
    assert found.states == 16 * (layers + 2 * IDS * 64 + 3 * 32 * 32 * 64)
    around = 2 * (4 * 64 + 2 * 64 + 2 * 32) + 4 * 4
    gate = 4 * (64 + 3 * 4)
    experts = 2 * (2 * (64 + 4 * 48) + 4 * 64) + 2 * 4 * 48
    assert found.activations == 256 * ((around + 2 * 4 * 160) + 2 * (around + gate + experts))


def test_states_are_shared_by_the_processes_of_a_replica() -> None:
    alone = memory(settings()).states
    assert memory(settings(), world=8).states == pytest.approx(alone / 8, rel=1e-5)
    # 8 processes of 2 × 2: two replicas of two shards of two tensor-parallel ranks.
    both = settings(parallel=ParallelConfig(tensor=2, replicate=2))
    assert memory(both, world=8).states == pytest.approx(alone / 4, rel=1e-5)
    experts = memory(settings(SPARSE)).states
    cut = settings(SPARSE, parallel=ParallelConfig(expert=4, tensor=2))
    gates = 16 * 2 * 64 * 4
    assert memory(cut, world=8).states == pytest.approx((experts - gates) / 8 + gates / 4, rel=1e-5)


def test_moments_in_bf16_are_four_bytes_of_sixteen_less() -> None:
    small = settings(optimizer=OptimizerConfig(lr=1e-3, bf16_states=True))
    assert 4 * memory(small).states == 3 * memory(settings()).states


def test_a_layer_of_experts_is_gathered_without_those_of_other_processes() -> None:
    wide = replace(SPARSE, moe=replace(EXPERTS, experts=64, hidden_dim=512))
    expert = 3 * 64 * 512
    around = 2 * 64 * 64 + 2 * 64 * 32 + expert + 64 * 64
    assert memory(settings(wide)).gathered == 10 * (64 * expert + around)
    cut = settings(wide, parallel=ParallelConfig(expert=8))
    assert memory(cut, world=8).gathered == 10 * (8 * expert + around)


@pytest.mark.parametrize("model", [DENSE, SPARSE], ids=["dense", "experts"])
def test_recomputing_keeps_less(model: ModelConfig) -> None:
    model = replace(model, layers=12)
    none, selective, full = (
        memory(settings(model, compute=ComputeConfig(recompute=each))).activations
        for each in ("none", "selective", "full")
    )
    assert none > selective > full
    # The inputs of twelve layers, and one layer whole.
    one = memory(settings(replace(DENSE, layers=1))).activations
    if model.moe is None:
        assert full == 12 * 256 * 64 * 2 + one


@given(
    rows=st.integers(1, 64),
    more=st.integers(1, 64),
    tensor=st.sampled_from([1, 2]),
    recompute=st.sampled_from(["none", "selective", "full"]),
    precision=st.sampled_from(["float32", "bfloat16"]),
    sparse=st.booleans(),
)
def test_more_rows_take_more_and_more_processes_less(
    rows: int, more: int, tensor: int, recompute: Any, precision: Any, sparse: bool
) -> None:
    config = settings(
        SPARSE if sparse else DENSE,
        parallel=ParallelConfig(tensor=tensor),
        compute=ComputeConfig(recompute=recompute, precision=precision),
    )
    few, many = memory(config, rows=rows, world=4), memory(config, rows=rows + more, world=4)
    assert few.fixed == many.fixed
    assert few.activations * (rows + more) == many.activations * rows
    assert few.logits < many.logits
    assert memory(config, rows=rows, world=8).total < few.total
    longer = memory(config, rows=rows, seq_len=256, world=4)
    assert longer.activations == 2 * few.activations


@given(rows=st.integers(1, 32), room=st.integers(1, 1 << 34))
def test_the_largest_micro_batch_fits_and_one_row_more_does_not(rows: int, room: int) -> None:
    most = memory(settings(), rows=rows).most_rows(room)
    if most:
        assert memory(settings(), rows=most).total <= ROOM * room
    assert memory(settings(), rows=most + 1).total > ROOM * room - 1


@pytest.mark.parametrize("model", [DENSE, replace(SPARSE, moe=replace(EXPERTS, dense_layers=0))])
def test_a_real_layer_keeps_what_is_estimated(model: ModelConfig) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchtitan")
    from mmpack_trainer.model.build import Widths, decoder_config
    from mmpack_trainer.model.masks import DocumentSpan, DocumentSpans

    model, places = replace(model, layers=1), 256
    tree = decoder_config(
        model, LossConfig(), Widths.of(LAYOUT), max_seq_len=places, backend="sdpa", expert_parallel=False
    )
    decoder = tree.build()
    decoder.init_states()
    decoder.to(torch.bfloat16).train()
    inputs = SimpleNamespace(
        mask=DocumentSpans(((DocumentSpan(0, places, None),),)),
        positions=torch.arange(places)[None],
        numbers=(0,),
        valid=torch.ones(1, places, dtype=torch.bool),
    )
    own = {each.untyped_storage().data_ptr() for each in (*decoder.parameters(), *decoder.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    hidden = torch.randn(1, places, model.dim, dtype=torch.bfloat16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out, routing = next(iter(decoder.layers.values()))(hidden, inputs)
    assert out.requires_grad
    assert (routing is None) == (model.moe is None)
    # Without a kernel of its own, as on a CPU, each of the two norms keeps two copies in float32.
    norms = 2 * 2 * 4 * model.dim * places
    estimate = memory(settings(model), rows=1, seq_len=places).activations
    assert sum(kept.values()) - norms == pytest.approx(estimate, rel=0.04)


def on(
    folder: Path, memory_bytes: int, *overrides: str, world: int = 1, name: str = "Small accelerator"
) -> Checked:
    return check(config_with(folder, *overrides), world=world, device=Device(name, (9, 0), memory_bytes))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


def test_a_run_whose_states_exceed_the_device_is_refused_with_what_would_fit(run: Path) -> None:
    states = on(run, 1 << 40).memory.states
    with pytest.raises(ConfigError) as caught:
        on(run, states - 1)
    text = str(caught.value)
    assert text.startswith(f"memory: weights, gradients and moments take {in_bytes(states)} of each process")
    assert "Small accelerator has" in text
    assert text.endswith("Start 2 processes or set optimizer.bf16_states.")
    assert on(run, states - 1, world=2).memory.states < states
    assert on(run, states - 1, "--optimizer.bf16_states=true").memory.states < states
    with pytest.raises(ConfigError, match=r"or lower parallel\.replicate"):
        on(run, states - 1, "--parallel.replicate=2", world=2)


def test_a_run_that_hardly_fits_is_warned_of_with_the_largest_micro_batch(run: Path) -> None:
    one = on(run, 1 << 40, "--micro_batch=1").memory
    four = on(run, 1 << 40, "--micro_batch=4").memory
    assert not any("the run takes" in each for each in on(run, 1 << 40, "--micro_batch=4").warnings)
    # Room for three rows: two are the most that a step's 16 are a multiple of.
    room = int((four.total - 1) / ROOM)
    warning = on(run, room, "--micro_batch=4").warnings[0]
    assert warning.startswith("the run takes about ")
    assert warning.endswith("micro_batch = 2 would fit")
    assert on(run, room, "--micro_batch=2").warnings == on(run, 1 << 40, "--micro_batch=2").warnings
    tight = int((one.total - 1) / ROOM)
    assert on(run, tight, "--micro_batch=1").warnings[0].endswith('try compute.recompute = "full"')
    whole = on(run, 1 << 40, "--micro_batch=1", "--compute.recompute=full").memory
    full = on(run, int((whole.total - 1) / ROOM), "--micro_batch=1", "--compute.recompute=full")
    assert "raise parallel.tensor" in full.warnings[0]


def test_a_cpu_is_not_judged(run: Path) -> None:
    found = check(config_with(run, "--model.dim=8192"), world=1, device=Device("cpu"))
    assert found.memory.states > 1 << 30
    assert not any("the run takes" in each for each in found.warnings)


@pytest.mark.parametrize(
    ("name", "world", "rows", "seq_len"), [("1b_dense", 64, 2, 4096), ("10b_moe", 256, 1, 8192)]
)
def test_the_recipes_fit_80_gib_at_the_processes_they_name(
    name: str, world: int, rows: int, seq_len: int
) -> None:
    config = load_config(RECIPES / f"{name}.toml")
    nodes = world // 8
    assert f"--nproc-per-node 8 --nnodes {nodes} " in (RECIPES / f"{name}.toml").read_text()
    assert config.micro_batch == rows
    found = memory(config, rows=rows, seq_len=seq_len, world=world)
    assert found.total < ROOM * (80 << 30)
    assert found.most_rows(80 << 30) > rows


def test_the_command_tells_it(run: Path) -> None:
    pytest.importorskip("torch")
    from mmpack_trainer.cli import app

    told = CliRunner().invoke(app, [str(run / "run.toml"), "--check"]).stdout.splitlines()
    line = next(each for each in told if each.startswith("memory "))
    assert line.removeprefix("memory      ").startswith(str(on(run, 1 << 40).memory))


def test_a_size_is_told_in_a_unit_that_suits_it() -> None:
    assert in_bytes(3 << 29) == "1.5 GiB"
    assert in_bytes(3 << 19) == "1.5 MiB"
