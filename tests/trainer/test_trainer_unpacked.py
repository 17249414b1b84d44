"""Packed is unpacked: a document's loss is the same in a row with others and in a row of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from mmpack import ShardSet

pytest.importorskip("torchtitan")

import torch
from torch import Tensor

from mmpack.layout import Modality
from mmpack.rows.row import Row
from mmpack.stream.torch import collate_tensors
from mmpack_trainer.batch import Batches
from mmpack_trainer.model.decoder import MultimodalDecoder
from mmpack_trainer.titan import token_losses
from tests.trainer.small_models import MOE, DocumentRows, make_model, make_row, mixed_rows

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Losses:
    """Of each document: cross-entropy summed over its labels, squared errors of its actions; and the embeddings of the
    pairs.
    """

    ce: Tensor
    action: Tensor
    embeddings: Tensor
    labels: Tensor


@torch.no_grad()
def losses_of(model: MultimodalDecoder, batches: Batches, row: Row) -> Losses:
    """Losses of a row by document."""
    batch = batches(collate_tensors([row]))
    inputs, targets = batch.inputs, batch.targets
    outputs = model(inputs)
    assert outputs.actions is not None
    assert outputs.embeddings is not None
    owner = torch.from_numpy(row.document_ids).long()
    documents = len(row.document_valid)
    places = owner >= 0

    def summed(values: Tensor, whose: Tensor) -> Tensor:
        return torch.zeros(documents, dtype=torch.float64).index_add_(0, whose, values.double())

    ce = token_losses(outputs.logits, targets.labels)[0]
    errors = ((outputs.actions - targets.actions).square() * targets.action_mask).sum(1)
    return Losses(
        ce=summed(ce[places], owner[places]),
        action=summed(errors, owner[inputs.action_index]),
        embeddings=outputs.embeddings,
        labels=summed((targets.labels[0] >= 0)[places].double(), owner[places]),
    )


def compare(
    model: MultimodalDecoder, batches: Batches, shards: ShardSet, rows: list[list[DocumentRows]]
) -> float:
    """The largest difference per label, per action and of an embedding; checks each."""
    found = 0.0
    for wanted in rows:
        packed = losses_of(model, batches, make_row(shards, wanted))
        alone = [losses_of(model, batches, make_row(shards, [document])) for document in wanted]
        for name in ("ce", "action", "labels", "embeddings"):
            one: Tensor = getattr(packed, name)
            others = torch.cat([getattr(each, name) for each in alone])
            assert one.shape == others.shape
            scale = packed.labels.clamp(min=1) if name == "ce" else torch.ones(())
            if one.numel():
                difference = float(((one - others) / scale).abs().max())
                assert difference <= TOLERANCE, name
                found = max(found, difference)
        assert (packed.ce > 0).all()
    return found


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("moe", [None, MOE], ids=["dense", "experts"])
def test_documents_have_the_losses_they_have_alone(mixed_shards: ShardSet, moe: Any, both_ways: bool) -> None:
    model, batches = make_model(mixed_shards, moe=moe, both_ways=both_ways)
    compare(model, batches, mixed_shards, mixed_rows(mixed_shards))


@pytest.mark.parametrize("moe", [None, MOE], ids=["dense", "experts"])
def test_they_do_with_the_dense_reference(mixed_shards: ShardSet, moe: Any) -> None:
    model, batches = make_model(mixed_shards, backend="dense", both_ways=True, moe=moe)
    compare(model, batches, mixed_shards, mixed_rows(mixed_shards))


def test_the_rows_hold_every_modality_actions_and_pairs(mixed_shards: ShardSet) -> None:
    rows = [make_row(mixed_shards, documents) for documents in mixed_rows(mixed_shards)]
    held = {int(kind) for row in rows for kind in row.modality[row.document_ids >= 0]}
    assert held == set(map(int, Modality))
    for name in ("patches", "actions", "values"):
        assert all(len(getattr(row, name)) for row in rows), name
    assert [len(row.pairs) for row in rows] == [0, 2]


def test_backends_agree(mixed_shards: ShardSet) -> None:
    rows = [make_row(mixed_shards, documents) for documents in mixed_rows(mixed_shards)]
    model, batches = make_model(mixed_shards, backend="sdpa", both_ways=True)
    reference, others = make_model(mixed_shards, backend="dense", both_ways=True)
    for row in rows:
        one, other = losses_of(model, batches, row), losses_of(reference, others, row)
        torch.testing.assert_close(one.ce / one.labels, other.ce / other.labels, rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(one.embeddings, other.embeddings, rtol=0, atol=TOLERANCE)


def test_a_document_that_sees_another_differs(mixed_shards: ShardSet) -> None:
    # The comparison can fail: a span that is off by one is far above the tolerance.
    model, batches = make_model(mixed_shards)
    wanted = mixed_rows(mixed_shards)[0]
    row = make_row(mixed_shards, wanted)
    row.cu_seqlens[1] -= 1
    packed = losses_of(model, batches, row)
    alone = losses_of(model, batches, make_row(mixed_shards, [wanted[1]]))
    assert abs(packed.ce[1] - alone.ce[0]) / packed.labels[1] > 10 * TOLERANCE
