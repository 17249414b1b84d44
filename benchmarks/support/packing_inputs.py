"""Document lengths for benchmarks/packing.py: random mixes, and the lengths of texts that come with Python."""

from __future__ import annotations

import ast
import sysconfig
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SEED = 20260823
Lengths = NDArray[np.int64]


def lognormal(n: int) -> tuple[Lengths, int]:
    """Draws texts of 600 tokens on average, cut at the capacity of 4,096. Returns lengths and capacity."""
    r = np.random.default_rng(SEED)
    return np.clip(np.rint(r.lognormal(np.log(600) - 0.5, 1.0, n)), 1, 4096).astype(np.int64), 4096


def multimodal_runs(n: int, capacity: int) -> tuple[Lengths, NDArray[np.int64]]:
    """Draws videos of 1,600-token and 416-token slices, speech and texts. Returns (slice lengths, run offsets)."""
    r = np.random.default_rng(SEED)
    kind = r.choice(4, n, p=[0.35, 0.15, 0.15, 0.35])
    large = np.minimum(r.geometric(0.35, n), capacity // 1600)
    small = np.minimum(r.geometric(0.2, n), capacity // 416)
    audio = np.rint(50 * np.clip(r.lognormal(np.log(8), 0.8, n), 1, 60)) + 2
    text = np.clip(np.rint(r.lognormal(np.log(400) - 0.5, 1, n)), 1, capacity)
    one = np.ones(n, np.int64)
    slices = np.choose(kind, (large, small, one, one))
    tokens = np.choose(kind, (1600 * one, 416 * one, audio, text)).astype(np.int64)
    return np.repeat(tokens, slices), np.concatenate(([0], np.cumsum(slices)))


def multimodal(n: int, capacity: int) -> tuple[Lengths, int]:
    """Draws the mix of :func:`multimodal_runs` with every run as one item. Returns lengths and capacity."""
    tokens, offsets = multimodal_runs(n, capacity)
    return np.add.reduceat(tokens, offsets[:-1]), capacity


def halves(n: int) -> tuple[Lengths, int]:
    """Draws items of which half are longer than half a row, so each needs a row; the others have 0.3 to 0.5 of a row."""
    r = np.random.default_rng(SEED)
    capacity = 4096
    over = r.integers(capacity // 2 + 1, int(0.6 * capacity), n // 2)
    under = r.integers(int(0.3 * capacity), capacity // 2, n - n // 2)
    return r.permutation(np.concatenate((over, under))), capacity


def eleven_ninths(n: int) -> tuple[Lengths, int]:
    """Generates the worst case of first fit decreasing, which uses 11 rows where 9 are enough."""
    capacity = 4096
    e, half, quarter = capacity // 200, capacity // 2, capacity // 4
    nine_rows = [half + e] * 6 + [quarter + 2 * e] * 6 + [quarter + e] * 6 + [quarter - 2 * e] * 12
    return np.random.default_rng(SEED).permutation(np.array(nine_rows * (n // 30), np.int64)), capacity


def long_texts(n: int = 200_000) -> tuple[Lengths, int]:
    """Draws lengths for balancing: lognormal with mean 2,500 and σ 1.5, cut at the capacity of 32,768."""
    r = np.random.default_rng(SEED)
    return np.clip(np.rint(r.lognormal(np.log(2500) - 1.125, 1.5, n)), 1, 32768).astype(np.int64), 32768


def mixes(n: int) -> dict[str, tuple[Lengths, int]]:
    """Returns the lengths and the capacity of each mix by name."""
    return {
        "lognormal": lognormal(n),
        "mm8k": multimodal(n, 8192),
        "mm32k": multimodal(n, 32768),
        "half-mix": halves(n),
        "11/9": eleven_ninths(n),
    }


def python_text_lengths() -> dict[str, tuple[Lengths, int]]:
    """Counts the tokens of texts that come with Python. Returns the lengths and the capacity of each mix by name.

    "source files" are the modules of the standard library, "docstrings" those of its modules, classes and functions.
    The tokenizer is that of mmpack. Texts longer than the capacity are left out.
    """
    from mmpack.layout.text import Tokenizer

    sources, docstrings = [], []
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" in path.parts or "test" in path.parts:
            continue
        source = path.read_text(encoding="utf-8", errors="replace")
        sources.append(source)
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                docstrings += filter(None, [ast.get_docstring(node)])
    tokenizer = Tokenizer()
    files = tokenizer.count_batch(sources)
    texts = tokenizer.count_batch(docstrings)
    return {
        "source files": (files[(files > 0) & (files <= 8192)], 8192),
        "docstrings": (texts[(texts > 0) & (texts <= 2048)], 2048),
    }
