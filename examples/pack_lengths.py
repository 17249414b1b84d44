"""Lengths in, rows out: `python examples/pack_lengths.py`."""

import numpy as np

from mmpack.packing import pack

lengths = np.random.default_rng(0).integers(20, 4_000, 100_000)
packing = pack(lengths, 8_192)
print(packing)
print("row 0:", packing.row(0), "of", lengths[packing.row(0)], "tokens")
