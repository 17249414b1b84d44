"""What only a GPU runs in training, as far as a CPU can run it: FlexAttention's forward pass, and grouped products."""

from __future__ import annotations

import pytest

from mmpack import ShardSet
from mmpack.stream.torch import collate_tensors
from tests.trainer.small_models import LOSS, MODEL, SEQ_LEN, make_arrays, make_model, make_row, mixed_rows

pytest.importorskip("torchtitan")

import torch
from torch._dynamo.utils import counters
from torch.nn.attention.flex_attention import flex_attention

from mmpack_trainer.config.schema import ComputeConfig, ParallelConfig
from mmpack_trainer.model.build import decoder_config
from mmpack_trainer.model.moe import Experts
from mmpack_trainer.parallel import build, start
from mmpack_trainer.titan import FlexAttention, GroupedExperts


@pytest.mark.parametrize(
    ("both_ways", "compiled"),
    [pytest.param(False, True, marks=pytest.mark.slow), (False, False), (True, False)],
)
def test_flex_attention_reads_our_mask(
    mixed_shards: ShardSet, monkeypatch: pytest.MonkeyPatch, both_ways: bool, compiled: bool
) -> None:
    """Compiled, it goes by the blocks; not compiled, by the rule alone. For a CPU torch 2.13 does not always write C++ that
    compiles where the rule reads two tensors, as with pictures."""
    if not compiled:
        monkeypatch.setattr(FlexAttention, "_compiled_flex_attn", flex_attention)
    arrays = make_arrays(mixed_shards)
    found = []
    for backend in ("sdpa", "flex"):
        model, batches = make_model(mixed_shards, backend=backend, both_ways=both_ways)
        with torch.no_grad():
            inputs = batches(arrays).inputs
            found.append(model(inputs).logits[inputs.valid])
    assert torch.allclose(*found, rtol=0, atol=2e-6)


@pytest.mark.slow  # compiles
def test_a_compiled_model_is_compiled_once_for_all_masks(mixed_shards: ShardSet) -> None:
    rows = mixed_rows(mixed_shards)
    _, batches = make_model(mixed_shards, backend="flex")
    tree = decoder_config(MODEL, LOSS, batches.widths, max_seq_len=SEQ_LEN, backend="flex")
    world = start(ParallelConfig())
    model = build(tree, world, ComputeConfig(precision="float32", compile=True), seed=0)
    graphs = []
    for documents in (rows[:2], rows[1::-1], [rows[0][:2], rows[1][:1]], [rows[1][2:], rows[0][1:]]):
        made = [make_row(mixed_shards, row, number) for number, row in enumerate(documents)]
        batch = batches(collate_tensors(made))
        with torch.no_grad():
            model(batch.inputs, batch.targets.ids)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert set(graphs) == {graphs[0]}


def test_grouped_products_equal_one_after_the_other() -> None:
    torch.manual_seed(0)
    experts = Experts.Config(dim=64, hidden_dim=32, num_experts=4).build()
    for weight in experts.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    experts = experts.to(torch.bfloat16)
    tokens, counts = torch.randn(50, 64, dtype=torch.bfloat16), torch.tensor([10, 0, 25, 15])
    gradients = []
    for forward in (Experts.forward, GroupedExperts.forward):
        out = forward(experts, tokens, counts)
        gradients.append(torch.autograd.grad(out.float().square().sum(), list(experts.parameters())))
        gradients[-1] += (out.detach(),)
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one.float(), other.float(), rtol=1e-2, atol=1e-2 * float(one.abs().max()))
