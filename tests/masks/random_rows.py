"""Random rows with documents, images and padding."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st


class RandomRow(NamedTuple):
    """A row with valid spans."""

    ends: list[int]
    """The cu_seqlens of the row."""
    seq_len: int
    images: list[tuple[int, int]]


@st.composite
def random_rows(draw: st.DrawFn, max_seq_len: int = 700) -> RandomRow:
    """Draws rows of up to `max_seq_len` positions, with empty documents, padding, and adjacent images."""
    seq_len = draw(st.integers(1, max_seq_len))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    valid = draw(st.one_of(st.just(seq_len), st.integers(0, seq_len)))
    cuts = np.sort(rng.integers(0, valid + 1, draw(st.integers(0, 12))))
    ends = [0, *cuts.tolist(), valid]
    images: list[tuple[int, int]] = []
    share = draw(st.sampled_from([0.0, 0.5, 1.0]))
    for start, stop in pairwise(ends):
        edges = np.unique(rng.integers(start, stop + 1, 1 + (stop - start) // 20)).tolist()
        images += [pair for pair in pairwise(edges) if rng.random() < share]
    return RandomRow(ends, seq_len, images)
