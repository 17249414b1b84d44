"""Lengths to rows: arrays in, arrays out.

    packing = pack(lengths, 8192)
    print(packing)
    packing.row(0)

numba is imported when a function first needs it; what it compiles is cached on disk.
"""

from __future__ import annotations

from mmpack.packing.balance import Schedule, balance, row_costs
from mmpack.packing.lower_bound import lower_bound
from mmpack.packing.pack import pack
from mmpack.packing.pack_runs import ChainPacking, cut_chains
from mmpack.packing.pack_stream import PackStream, pack_stream
from mmpack.packing.packing import Packing

__all__ = [
    "ChainPacking",
    "PackStream",
    "Packing",
    "Schedule",
    "balance",
    "cut_chains",
    "lower_bound",
    "pack",
    "pack_stream",
    "row_costs",
]
