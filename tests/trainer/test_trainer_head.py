"""The output head: cross-entropy where ids are predicted equals that of all logits, in one piece and in several."""

from __future__ import annotations

import pytest

pytest.importorskip("torchtitan")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmpack_trainer.model import head
from mmpack_trainer.model.inputs import Labels
from tests.examples import examples

ROWS, PLACES, DIM, IDS = 2, 12, 16, 40


def _head() -> head.IdHead:
    made = head.IdHead.Config(in_features=DIM, out_features=IDS).build()
    torch.nn.init.normal_(made.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    return made


def _reference(hidden: Tensor, weight: Tensor, labels: Labels) -> Tensor:
    logits = (hidden.flatten(0, 1) @ weight.T).double()
    chosen = logits.log_softmax(-1)[labels.places, labels.ids]
    return -(chosen * labels.weights).sum()


@settings(deadline=None, max_examples=examples(40))
@given(
    places=st.sets(st.integers(0, ROWS * PLACES - 1)),
    held=st.sampled_from([1, IDS, 3 * IDS, 7 * IDS, 1 << 27]),
    seed=st.integers(0, 999),
)
def test_pieces_give_the_loss_and_gradients_of_all_logits(places: set[int], held: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    ids = _head()
    hidden = torch.randn(ROWS, PLACES, DIM, generator=random, requires_grad=True)
    labels = Labels(
        places=torch.tensor(sorted(places), dtype=torch.int64),
        ids=torch.randint(IDS, (len(places),), generator=random),
        weights=torch.rand(len(places), generator=random),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "LOGITS", held)
        found = ids(hidden, labels)
        gradients = torch.autograd.grad(found, (hidden, ids.weight))
    expected = _reference(hidden, ids.weight, labels)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(
        gradients, torch.autograd.grad(expected, (hidden, ids.weight), allow_unused=True), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_without_labels_there_are_logits() -> None:
    ids, hidden = _head(), torch.randn(ROWS, PLACES, DIM)
    torch.testing.assert_close(ids(hidden), hidden @ ids.weight.T)


def test_no_more_logits_are_held_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = _head()
    hidden = torch.randn(ROWS, PLACES, DIM, requires_grad=True)
    count = ROWS * PLACES
    labels = Labels(torch.arange(count), torch.zeros(count, dtype=torch.int64), torch.ones(count))
    monkeypatch.setattr(head, "LOGITS", 5 * IDS)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        ids(hidden, labels)
    # Nothing of the size of a piece's logits waits for the backward pass.
    assert max(kept) <= max(count * DIM, IDS * DIM)
    assert sum(size == 5 * IDS for size in kept) == 0
