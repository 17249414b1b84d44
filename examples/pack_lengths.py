"""Packs 100,000 random document lengths into rows: `python examples/pack_lengths.py`."""

import numpy as np

from mmpack.packing import pack

lengths = np.random.default_rng(0).integers(20, 4_000, 100_000)
packing = pack(lengths, 8_192)
print(packing)
print("row 0: documents", packing.row(0), "with", lengths[packing.row(0)], "tokens")
