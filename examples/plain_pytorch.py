"""mmpack's rows in a training loop of plain PyTorch: any loop can take them, the trainer is only one.

Needs `pip install 'mmpack[torch]'`, and shards to stream, as `make demo` builds them:

    python examples/plain_pytorch.py demo/plan.toml
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention, silu

from mmpack.stream import RowStream
from mmpack.stream.torch import row_tensors


class Block(nn.Module):
    """Attention within documents, then a gated feed-forward."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.norm = nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.up, self.down = nn.Linear(dim, 4 * dim, bias=False), nn.Linear(2 * dim, dim, bias=False)

    def forward(self, x: Tensor, turn: Tensor, sizes: list[int]) -> Tensor:
        q, k, v = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1)).permute(1, 2, 0, 3)
        documents = zip(
            *(each.split(sizes, dim=1) for each in (rotated(q, turn), rotated(k, turn), v)), strict=True
        )
        # One call a document: no place can see another document, and no mask of L × L is made.
        seen = [
            scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
            for q, k, v in documents
        ]
        x = x + self.out(torch.cat(seen, dim=1).transpose(0, 1).flatten(1))
        gate, value = self.up(self.norm(x)).chunk(2, dim=-1)
        return x + self.down(silu(gate) * value)


def rotated(x: Tensor, turn: Tensor) -> Tensor:
    """Rotary embedding: pairs of a head's numbers as complex ones, turned by the angle of their place."""
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * turn).flatten(-2)


class Decoder(nn.Module):
    """A small decoder over ids, with pixels where there are patches."""

    def __init__(
        self, vocabulary: int, pixels: int, *, dim: int = 64, layers: int = 2, heads: int = 1
    ) -> None:
        super().__init__()
        self.ids, self.patches = nn.Embedding(vocabulary, dim), nn.Linear(pixels, dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(layers))
        self.norm, self.head = nn.RMSNorm(dim), nn.Linear(dim, vocabulary, bias=False)
        self.rates = 10_000.0 ** -torch.linspace(0, 1, dim // heads // 2)

    def forward(self, row: dict[str, Tensor]) -> Tensor:
        """The mean cross-entropy of the row's labels."""
        pixels = row["patches"].flatten(1) / 255
        x = self.ids(row["input_ids"]).index_copy(0, row["patch_index"].long(), self.patches(pixels))
        angles = row["position_ids"][:, None] * self.rates
        turn, places = torch.polar(torch.ones_like(angles), angles), row["cu_seqlens"]
        used = int(places[-1])  # what follows is padding
        x, sizes = x[:used], places.diff().tolist()
        for block in self.blocks:
            x = block(x, turn[:used], sizes)
        # Most places of a picture predict nothing: the vocabulary is multiplied where there is a label alone.
        labels = row["labels"][:used].long()
        return cross_entropy(self.head(self.norm(x[labels >= 0])), labels[labels >= 0])


def train(plan: str, *, steps: int) -> Iterator[float]:
    """Trains on the rows of a PLAN.toml; the loss of each step."""
    torch.manual_seed(0)
    with RowStream.open(plan) as stream:
        layout, rows_per_step = stream.plan.layout, stream.plan.config.global_batch
        model = Decoder(layout.vocabulary.size, 3 * layout.config.vision.token_side**2)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
        for _ in range(steps):
            total = 0.0
            for row in islice(stream, rows_per_step):
                loss = model(row_tensors(row)) / rows_per_step
                loss.backward()
                total += loss.item()
            optimizer.step()
            optimizer.zero_grad()
            yield total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", help="a PLAN.toml")
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    for number, loss in enumerate(train(arguments.plan, steps=arguments.steps), start=1):
        print(f"step {number:3d}  loss {loss:.4f}", flush=True)
