"""What a step holds and costs: rows, tokens, parameters, floating-point operations, and shares of a peak."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mmpack.errors import ConfigError
from mmpack.layout import Layout, LayoutConfig
from mmpack.stream import load_plan_config, open_plan
from mmpack_trainer.accounting import BatchSize, batch_of, solved
from mmpack_trainer.config.schema import LossConfig, ModelConfig, MoeConfig
from mmpack_trainer.flops import Work, planned_work, rates_of, slot_flops, useful_flops
from mmpack_trainer.hardware import Device, peak_flops
from mmpack_trainer.parameters import Parameters, parameters_of
from tests.trainer.recipes import make_run

SMALL = st.integers(1, 64)
DENSE = ModelConfig(dim=64, layers=2, heads=4, kv_heads=2, hidden_dim=96)
MOE = ModelConfig(
    dim=64,
    layers=3,
    heads=4,
    kv_heads=2,
    hidden_dim=96,
    moe=MoeConfig(experts=8, top_k=2, hidden_dim=32, shared_experts=1, dense_layers=1),
)


@pytest.fixture(scope="module")
def layout() -> Layout:
    return Layout(LayoutConfig())


@given(SMALL, SMALL, SMALL)
def test_a_batch_is_what_its_factors_make(micro_batch: int, accumulation: int, ranks: int) -> None:
    rows = micro_batch * accumulation * ranks
    batch = batch_of(rows, seq_len=512, micro_batch=micro_batch, ranks=ranks)
    assert batch == BatchSize(micro_batch, 512, accumulation, ranks)
    assert (batch.rows, batch.tokens) == (rows, rows * 512)


@given(st.integers(1, 4096), SMALL, SMALL)
def test_a_batch_that_does_not_divide_is_refused_and_what_is_offered_in_its_place_does(
    rows: int, micro_batch: int, ranks: int
) -> None:
    if rows % (micro_batch * ranks) == 0:
        return
    with pytest.raises(ConfigError) as caught:
        batch_of(rows, seq_len=8, micro_batch=micro_batch, ranks=ranks)
    sizes, _, other = caught.value.hint.removeprefix("Set the plan's global_batch to ").partition(", or ")
    for size in sizes.split(" or "):
        assert batch_of(int(size), seq_len=8, micro_batch=micro_batch, ranks=ranks).rows == int(size)
    number = int("".join(filter(str.isdigit, other)))
    if other.startswith("micro_batch"):
        assert batch_of(rows, seq_len=8, micro_batch=number, ranks=ranks).rows == rows
    else:
        assert rows % number == 0
        assert number <= ranks


@given(st.integers(1, 10**9), SMALL, SMALL)
def test_the_solved_accumulation_is_the_nearest(target: int, micro_batch: int, ranks: int) -> None:
    batch = solved(target, seq_len=1024, micro_batch=micro_batch, ranks=ranks)
    unit = micro_batch * 1024 * ranks
    assert batch.accumulation >= 1
    assert abs(batch.tokens - target) <= max(unit / 2, unit - target)


def test_micro_batch_4_at_256_ranks_and_4096_places_is_over_2_million_tokens() -> None:
    assert solved(2_000_000, seq_len=4096, micro_batch=4, ranks=256).tokens == 4_194_304
    assert solved(2_000_000, seq_len=4096, micro_batch=2, ranks=256).tokens == 2_097_152


def test_parameters_of_a_dense_model(layout: Layout) -> None:
    found = parameters_of(DENSE, layout)
    vocabulary = layout.vocabulary.size
    assert found.embedding == found.head == vocabulary * 64
    # Width of a head 16: query and output 64 × 64 each, key and value 64 × 32 each.
    assert found.attention == 2 * (2 * 64 * 64 + 2 * 64 * 32)
    assert found.dense == 2 * 3 * 64 * 96
    assert (found.router, found.shared, found.routed, found.routed_active) == (0, 0, 0, 0)
    assert found.patches == 32 * 32 * 3 * 64
    assert found.active == found.total
    assert found.products == found.total - vocabulary * 64 - found.patches


def test_parameters_of_a_mixture_of_experts(layout: Layout) -> None:
    found = parameters_of(MOE, layout)
    expert = 3 * 64 * 32
    assert found.dense == 3 * 64 * 96
    assert found.router == 2 * 64 * 8
    assert (found.shared, found.routed, found.routed_active) == (2 * expert, 2 * 8 * expert, 2 * 2 * expert)
    assert found.total - found.active == 2 * 6 * expert


@pytest.mark.parametrize("model", [DENSE, MOE])
def test_counted_parameters_are_those_of_the_built_model(model: ModelConfig, layout: Layout) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchtitan")
    from mmpack_trainer.model.build import Widths, decoder_config

    wide = replace(model, dim=512, hidden_dim=1536)
    with torch.device("meta"):
        built = decoder_config(wide, LossConfig(), Widths.of(layout), max_seq_len=128, backend="sdpa").build()
    stored = sum(parameter.numel() for parameter in built.parameters())
    assert parameters_of(wide, layout).total == pytest.approx(stored, rel=0.01)


def test_work_of_rows_counts_documents_and_not_rows() -> None:
    work = Work.of([[0, 3, 7], np.array([0, 8], np.int32)], seq_len=10, patches=5)
    assert work == Work(rows=2, places=20, tokens=15, squares=9 + 16 + 64, squares_rows=200, patches=5)
    assert work.fill == 0.75
    assert Work.sum([work, work]) == Work(4, 40, 30, 178, 400, 10)
    long = Work.of([np.array([0, 100_000], np.int32)], seq_len=100_000, patches=0)
    assert long.squares == 10**10


def test_work_of_a_step_is_known_from_its_plan(tmp_path: Path) -> None:
    run = make_run(tmp_path, window_steps=3)
    plan = open_plan(load_plan_config(run / "plan.toml"))
    for step in (0, 2, 4):
        rows = [plan.row(number) for number in range(step * 16, (step + 1) * 16)]
        sizes = [[document.tokens for document in row.documents] for row in rows]
        spans = [np.concatenate([[0], np.cumsum(each)]) for each in sizes]
        assert planned_work(plan, step) == Work.of(spans, seq_len=128, patches=0)


def test_flops_are_six_a_weight_and_token_and_the_causal_half_of_attention(layout: Layout) -> None:
    parameters = parameters_of(MOE, layout)
    work = Work.of([[0, 3, 7]], seq_len=10, patches=2)
    useful = 6 * parameters.products * 7 + 6 * parameters.patches * 2 + 6 * 3 * 64 * (9 + 16)
    assert useful_flops(work, MOE, parameters) == useful
    assert slot_flops(work, MOE, parameters) - useful == 6 * parameters.products * 3 + 6 * 3 * 64 * (100 - 25)


def test_flops_agree_with_torchs_own_counter_on_a_decoder_of_the_same_products(layout: Layout) -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    parameters = parameters_of(DENSE, layout)
    dim, heads, key_dim, length = 64, 4, 32, 48
    weights = {
        name: torch.zeros(shape, requires_grad=True)
        for name, shape in {
            "q": (dim, dim), "k": (dim, key_dim), "v": (dim, key_dim), "o": (dim, dim),
            "gate": (dim, 96), "up": (dim, 96), "down": (96, dim), "head": (dim, layout.vocabulary.size),
        }.items()
    }  # fmt: skip
    start = torch.zeros(length, dim, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        x = start
        for _ in range(DENSE.layers):
            q, k, v = (x @ weights[name] for name in "qkv")
            q, k, v = (
                each.view(length, -1, 16).transpose(0, 1).repeat_interleave(heads * 16 // each.shape[1], 0)
                for each in (q, k, v)
            )
            seen = torch.softmax(q @ k.transpose(1, 2), -1) @ v
            x = x + seen.transpose(0, 1).reshape(length, dim) @ weights["o"]
            x = x + (torch.nn.functional.silu(x @ weights["gate"]) * (x @ weights["up"])) @ weights["down"]
        (x @ weights["head"]).sum().backward()
    work = Work.of([[0, length]], seq_len=length, patches=0)
    # torch counts the full square of attention, of which causal is half.
    square = 6 * DENSE.layers * dim * length**2
    assert counter.get_total_flops() == useful_flops(work, DENSE, parameters) + square


def test_counting_rows_overstates_one_row_of_14_documents() -> None:
    sizes = np.full(14, 8192 // 14)
    work = Work.of([np.concatenate([[0], np.cumsum(sizes)])], seq_len=8192, patches=0)
    model = ModelConfig(dim=2048, layers=16, heads=32, kv_heads=8, hidden_dim=8192)
    parameters = Parameters(0, 20_000 * 2048, 16 * 2 * 2048 * 64 * 40, 16 * 3 * 2048 * 8192, 0, 0, 0, 0, 0)
    ratio = slot_flops(work, model, parameters) / useful_flops(work, model, parameters)
    assert 1.2 < ratio < 1.3


def test_utilisation_is_told_apart_and_never_told_of_a_cpu(layout: Layout) -> None:
    parameters = parameters_of(DENSE, layout)
    work = Work.of([[0, 3, 7]], seq_len=10, patches=0)
    common = {"wall_s": 0.5, "devices": 2, "model": DENSE, "parameters": parameters}
    on_cpu = rates_of(work, peak_flops=peak_flops(Device("cpu")), **common)
    assert (on_cpu.tokens_per_s, on_cpu.fill) == (14, 0.7)
    assert (on_cpu.useful_mfu, on_cpu.slot_mfu, on_cpu.hfu) == (None, None, None)
    full = rates_of(work, peak_flops=1e9, recompute="full", **common)
    assert full.useful_mfu == pytest.approx(useful_flops(work, DENSE, parameters) / 1e9)
    assert full.slot_mfu == pytest.approx(slot_flops(work, DENSE, parameters) / 1e9)
    assert full.hfu == pytest.approx(4 / 3 * useful_flops(work, DENSE, parameters) / 1e9)
    assert rates_of(work, peak_flops=1e9, recompute="none", **common).hfu == full.useful_mfu
    assert rates_of(work, peak_flops=1e9, recompute="selective", **common).hfu is None


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA GB200", 2500e12),
        ("NVIDIA GeForce GTX 1650", None),
    ],
)
def test_peaks_are_those_of_the_device_and_unknown_ones_are_not_made_up(
    name: str, peak: float | None
) -> None:
    assert peak_flops(Device(name, (9, 0), 1)) == peak
