"""Random rows: documents, images in them, pads."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st


class RandomRow(NamedTuple):
    """A row that can be."""

    ends: list[int]
    """cu_seqlens."""
    seq_len: int
    images: list[tuple[int, int]]


@st.composite
def random_rows(draw: st.DrawFn, longest: int = 700) -> RandomRow:
    """Rows of up to `longest` places, with empty documents, pads, and images next to each other."""
    seq_len = draw(st.integers(1, longest))
    seed = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    valid = draw(st.one_of(st.just(seq_len), st.integers(0, seq_len)))
    cuts = np.sort(seed.integers(0, valid + 1, draw(st.integers(0, 12))))
    ends = [0, *cuts.tolist(), valid]
    images: list[tuple[int, int]] = []
    share = draw(st.sampled_from([0.0, 0.5, 1.0]))
    for start, stop in pairwise(ends):
        edges = np.unique(seed.integers(start, stop + 1, 1 + (stop - start) // 20)).tolist()
        images += [pair for pair in pairwise(edges) if seed.random() < share]
    return RandomRow(ends, seq_len, images)
