"""Lengths to rows: arrays in, arrays out.

    packing = pack(lengths, 8192)
    print(packing)
    packing.row(0)

numba is imported when a function first needs it; what it compiles is cached on disk.
"""

from __future__ import annotations

from mmpack.packing.balance import Schedule, balance, row_costs
from mmpack.packing.bound import lower_bound
from mmpack.packing.chains import ChainPacking, cut_chains
from mmpack.packing.offline import pack
from mmpack.packing.stream import PackStream, pack_stream
from mmpack.packing.types import Packing

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
