"""Sizes and documents of the trainer's benchmark on a GPU."""

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
    """How large everything is."""

    dense: dict[str, Any]
    experts: dict[str, Any]
    lengths: tuple[int, int]
    tokens: int
    """Places of a micro-batch."""
    warm: int
    """Steps that are not counted."""
    steps: int
    texts: int
    characters: int
    """Of a text, at most: one token is 2.5 or more of them."""
    pictures: int


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
    lengths=(4096, 8192),
    tokens=16_384,
    warm=4,
    steps=12,
    texts=4000,
    characters=8000,
    pictures=200,
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
    lengths=(512, 1024),
    tokens=1024,
    warm=1,
    steps=2,
    texts=300,
    characters=800,
    pictures=10,
)


def make_shards(folder: Path, sizes: Sizes) -> None:
    """Texts of the standard library, and noisy pictures with captions."""
    texts = [each for each in standard_library_texts(sizes.texts) if len(each[1]) <= sizes.characters]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for _, text in texts))
    random = np.random.default_rng(20261125)
    captions = []
    for number in range(sizes.pictures):
        pixels = random.integers(0, 255, (*random.integers(160, 480, 2), 3), dtype=np.uint8)
        stored = io.BytesIO()
        Image.fromarray(pixels).save(stored, "JPEG")
        (folder / f"{number}.jpg").write_bytes(stored.getvalue())
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
