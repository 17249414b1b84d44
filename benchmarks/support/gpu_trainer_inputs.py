"""Sizes and documents of the GPU benchmark of the trainer."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmpack.ingest import BuildConfig, build_shards
from mmpack.settings import parse_settings
from tools.real_texts import standard_library_texts


@dataclass(frozen=True)
class Sizes:
    """The sizes of models and data of the benchmark."""

    dense: dict[str, Any]
    experts: dict[str, Any]
    seq_lens: tuple[int, int]
    tokens: int
    """Number of positions of a micro-batch."""
    warm_up_steps: int
    """Number of first steps that are not counted."""
    steps: int
    num_texts: int
    max_characters: int
    """Largest number of characters of a text; a token has 2.5 or more characters."""
    num_images: int


FULL = Sizes(
    dense={"dim": 2048, "layers": 16, "heads": 32, "kv_heads": 8, "hidden_dim": 8192, "rope_theta": 5e5},
    experts={
        "dim": 1024,
        "layers": 12,
        "heads": 16,
        "kv_heads": 4,
        "hidden_dim": 2816,
        "moe": {"experts": 16, "top_k": 2, "hidden_dim": 1408, "shared_experts": 1, "dense_layers": 1},
    },
    seq_lens=(4096, 8192),
    tokens=16_384,
    warm_up_steps=4,
    steps=12,
    num_texts=4000,
    max_characters=8000,
    num_images=200,
)
TINY = Sizes(
    dense={"dim": 64, "layers": 2, "heads": 4, "kv_heads": 2, "hidden_dim": 192},
    experts={
        "dim": 64,
        "layers": 2,
        "heads": 4,
        "kv_heads": 2,
        "hidden_dim": 192,
        "moe": {"experts": 4, "top_k": 2, "hidden_dim": 64, "shared_experts": 1, "dense_layers": 1},
    },
    seq_lens=(512, 1024),
    tokens=1024,
    warm_up_steps=1,
    steps=2,
    num_texts=300,
    max_characters=800,
    num_images=10,
)


def make_shards(folder: Path, sizes: Sizes) -> None:
    """Builds a shard set of texts of the standard library and noise images with captions."""
    texts = [item for item in standard_library_texts(sizes.num_texts) if len(item[1]) <= sizes.max_characters]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for _, text in texts))
    random = np.random.default_rng(20261125)
    captions = []
    for number in range(sizes.num_images):
        pixels = random.integers(0, 255, (*random.integers(160, 480, 2), 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG")
        (folder / f"{number}.jpg").write_bytes(buffer.getvalue())
        captions.append({"text": texts[number % len(texts)][1][:200], "path": f"{number}.jpg"})
    (folder / "captions.jsonl").write_text("".join(json.dumps(caption) + "\n" for caption in captions))
    sources = [
        {"name": "texts", "kind": "text", "path": str(folder / "texts.jsonl")},
        {"name": "captions", "kind": "image_text", "path": str(folder / "captions.jsonl")},
    ]
    config = parse_settings(
        {"samples": sources, "layout": {"vision": {"max_tokens": 128}}}, BuildConfig, where="build.toml"
    )
    outcome = build_shards(config, str(folder / "shards"))
    if outcome.manifest is None:
        raise RuntimeError(f"the build failed: {outcome.failures}")
