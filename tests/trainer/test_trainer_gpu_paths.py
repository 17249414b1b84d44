"""What only a GPU runs in training, as far as a CPU can run it: FlexAttention's forward pass, and grouped products."""

from __future__ import annotations

import pytest

from mmpack import Shards
from tests.trainer.model_made import make_arrays, make_model

pytest.importorskip("torchtitan")

import torch

from mmpack_trainer.model.moe import Experts
from mmpack_trainer.titan import GroupedExperts


@pytest.mark.slow  # compiles
@pytest.mark.parametrize("both_ways", [False, True])
def test_flex_attention_reads_our_mask(mixed: Shards, both_ways: bool) -> None:
    arrays = make_arrays(mixed)
    found = []
    for backend in ("sdpa", "flex"):
        model, batches = make_model(mixed, backend=backend, both_ways=both_ways)
        with torch.no_grad():
            inputs = batches(arrays).inputs
            found.append(model(inputs).logits[inputs.valid])
    assert torch.allclose(*found, rtol=0, atol=2e-6)


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
