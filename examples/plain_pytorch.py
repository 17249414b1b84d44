"""A training loop in plain PyTorch on rows of mmpack, without the mmpack trainer.

It needs `pip install 'mmpack[torch]'` and a shard set, such as the one that `make demo` builds:

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
    """A transformer block: attention within documents, then a gated feed-forward layer."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.norm = nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.up, self.down = nn.Linear(dim, 4 * dim, bias=False), nn.Linear(2 * dim, dim, bias=False)

    def forward(self, x: Tensor, rotations: Tensor, sizes: list[int]) -> Tensor:
        """Computes the block.

        Args:
            x: float (positions, dim), without padding.
            rotations: complex (positions, head width / 2), rotation of each pair of head dimensions.
            sizes: number of positions of each document.
        """
        q, k, v = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1)).permute(1, 2, 0, 3)
        documents = zip(
            *(part.split(sizes, dim=1) for part in (rotate(q, rotations), rotate(k, rotations), v)),
            strict=True,
        )
        # One call per document, so that documents are separate without an L × L mask.
        outputs = [
            scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
            for q, k, v in documents
        ]
        x = x + self.out(torch.cat(outputs, dim=1).transpose(0, 1).flatten(1))
        gate, value = self.up(self.norm(x)).chunk(2, dim=-1)
        return x + self.down(silu(gate) * value)


def rotate(x: Tensor, rotations: Tensor) -> Tensor:
    """Applies the rotary embedding: pairs of head dimensions are complex numbers, rotated by the angle of the position."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rotations).flatten(-2)


class Decoder(nn.Module):
    """A small decoder over token ids, with pixels at the positions of image patches."""

    def __init__(
        self, vocabulary: int, pixels: int, *, dim: int = 64, layers: int = 2, heads: int = 1
    ) -> None:
        super().__init__()
        self.ids, self.patches = nn.Embedding(vocabulary, dim), nn.Linear(pixels, dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(layers))
        self.norm, self.head = nn.RMSNorm(dim), nn.Linear(dim, vocabulary, bias=False)
        self.rates = 10_000.0 ** -torch.linspace(0, 1, dim // heads // 2)

    def forward(self, row: dict[str, Tensor]) -> Tensor:
        """Computes the mean cross-entropy of the labels of a row."""
        pixels = row["patches"].flatten(1) / 255
        x = self.ids(row["input_ids"]).index_copy(0, row["patch_index"].long(), self.patches(pixels))
        angles = row["position_ids"][:, None] * self.rates
        rotations, boundaries = torch.polar(torch.ones_like(angles), angles), row["cu_seqlens"]
        # The positions after the last document are padding.
        num_tokens = int(boundaries[-1])
        x, sizes = x[:num_tokens], boundaries.diff().tolist()
        for block in self.blocks:
            x = block(x, rotations[:num_tokens], sizes)
        # Most image positions have no label, so the head is computed only at positions with a label.
        labels = row["labels"][:num_tokens].long()
        return cross_entropy(self.head(self.norm(x[labels >= 0])), labels[labels >= 0])


def train(plan: str, *, steps: int) -> Iterator[float]:
    """Trains on the rows of a PLAN.toml and yields the loss of each step."""
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
    parser.add_argument("plan", help="path of a PLAN.toml")
    parser.add_argument("--steps", type=int, default=20, help="number of training steps")
    arguments = parser.parse_args()
    for number, loss in enumerate(train(arguments.plan, steps=arguments.steps), start=1):
        print(f"step {number:3d}  loss {loss:.4f}", flush=True)
