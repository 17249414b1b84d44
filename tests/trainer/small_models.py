"""Rows of a small build made by hand, and small models that read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from mmpack import ShardSet
from mmpack.rows.row import Row
from mmpack.stream.torch import collate_tensors
from mmpack_trainer.batch import Batches
from mmpack_trainer.config.schema import ComputeConfig, LossConfig, ModelConfig, MoeConfig, ParallelConfig
from mmpack_trainer.model.build import decoder_config
from mmpack_trainer.model.decoder import MultimodalDecoder
from mmpack_trainer.model.masks import Backend
from mmpack_trainer.parallel import build, start
from tests.rows.handmade_rows import make_assembler, open_layout, plan_row, read_members

SEQ_LEN = 176
MOE = MoeConfig(experts=4, top_k=2, hidden_dim=32, shared_experts=1)
MODEL = ModelConfig(dim=64, layers=2, heads=4, kv_heads=2, hidden_dim=128, contrastive_dim=16, vision="mlp")
LOSS = LossConfig(contrastive=0.1, action=0.5, aux=0.01, z=1e-3)

DocumentRows = tuple[tuple[int, ...], bool]
"""A document: rows of the index, and whether it is a contrastive pair."""


@dataclass(frozen=True)
class RowsByKind:
    """Rows of the index by kind."""

    slices: list[int]
    texts: list[int]
    captions: list[int]
    speech: list[int]


def numbers_of(shards: ShardSet) -> RowsByKind:
    """Rows of the index of each kind."""
    kinds = shards.index["kind"].to_pylist()
    names = ("slice", "text", "image_text", "speech")
    return RowsByKind(*([number for number, kind in enumerate(kinds) if kind == name] for name in names))


def mixed_rows(shards: ShardSet) -> list[list[DocumentRows]]:
    """Documents of two rows: every kind, and a pair of slices and one of a captioned picture."""
    found = numbers_of(shards)
    first, second = found.slices[:2]
    return [
        [
            ((found.texts[1],), False),
            ((first,), False),
            ((found.captions[0],), False),
            ((found.speech[0],), False),
        ],
        [
            ((found.captions[1],), True),
            ((second,), True),
            ((found.speech[1],), False),
            ((found.texts[0],), False),
        ],
    ]


def make_row(
    shards: ShardSet, documents: Sequence[DocumentRows], number: int = 0, *, seq_len: int = SEQ_LEN
) -> Row:
    """A row of these documents."""
    planned = plan_row(shards, documents, number)
    row, faults = make_assembler(shards, seq_len).assemble(planned, read_members(shards, planned))
    assert not faults
    return row


def make_arrays(shards: ShardSet, *, rows: int = 2) -> dict[str, Any]:
    """The batch of the first of :func:`mixed_rows`."""
    return collate_tensors([make_row(shards, row, n) for n, row in enumerate(mixed_rows(shards)[:rows])])


def make_model(
    shards: ShardSet,
    *,
    backend: Backend = "sdpa",
    both_ways: bool = False,
    moe: MoeConfig | None = None,
    seq_len: int = SEQ_LEN,
) -> tuple[MultimodalDecoder, Batches]:
    """Two layers of 64 with every head, in float32, and what makes its batches."""
    world = start(ParallelConfig())
    batches = Batches(open_layout(shards), LOSS, backend=backend, both_ways=both_ways, device=world.device)
    tree = decoder_config(replace(MODEL, moe=moe), LOSS, batches.widths, max_seq_len=seq_len, backend=backend)
    return build(tree, world, ComputeConfig(precision="float32"), seed=0), batches
