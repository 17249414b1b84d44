"""Packing of items of different lengths into rows of fixed length: arrays in, arrays out.

    packing = pack(lengths, 8192)
    print(packing)
    packing.row(0)

numba is imported by the first call that needs it; the functions that it compiles are cached on disk.
"""

from __future__ import annotations

from mmpack.lazy import make_dir
from mmpack.packing.balance import RankSchedule, balance_rows, row_costs
from mmpack.packing.lower_bound import lower_bound
from mmpack.packing.pack import pack
from mmpack.packing.pack_runs import RunLengths, RunPacking, pack_runs
from mmpack.packing.pack_stream import PackStream, pack_stream
from mmpack.packing.packing import Packing

__all__ = [
    "PackStream",
    "Packing",
    "RankSchedule",
    "RunLengths",
    "RunPacking",
    "balance_rows",
    "lower_bound",
    "pack",
    "pack_runs",
    "pack_stream",
    "row_costs",
]

__dir__ = make_dir(__all__)
