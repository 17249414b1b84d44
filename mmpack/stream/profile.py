"""Where the time of a row goes."""

from __future__ import annotations

import time

from msgspec.structs import replace

from mmpack.plan import Plan
from mmpack.stream.row_pipeline import RowPipeline, RowPipelineSpec


def profile_rows(plan: Plan, *, rows: int, first_step: int = 0) -> dict[str, float]:
    """CPU milliseconds of one thread for planning, reading and decoding a row: means over some rows.

    Args:
        plan: of the rows.
        rows: how many are made; the first of them once more before, which is not counted.
        first_step: where they begin.

    Raises:
        DataError: the run ends before the last of them.
    """
    first = first_step * plan.config.global_batch
    spent = {"plan": rows * _window_s(plan) / plan.window_rows, "read": 0.0, "decode": 0.0}
    making = RowPipeline(RowPipelineSpec.from_plan(plan, replace(plan.config.reader, workers=0)))
    try:
        for count, number in enumerate([first, *range(first, first + rows)]):
            start = time.thread_time()
            planned = plan.row(number)
            planned_at = time.thread_time()
            found = making.fetcher.fetch(planned)
            read_at = time.thread_time()
            making.maker.assemble(planned, found)
            if count:
                spent["plan"] += planned_at - start
                spent["read"] += read_at - planned_at
                spent["decode"] += time.thread_time() - read_at
    finally:
        making.close()
    return {name: 1e3 * seconds / rows for name, seconds in spent.items()}


def _window_s(plan: Plan) -> float:
    """CPU seconds that planning a window takes."""
    seconds = 0.0
    for _ in range(2):  # the first time it is compiled, or read from numba's cache
        fresh = Plan(plan.config, plan.catalogs, plan.datasets, plan.layout, ledger=False)
        start = time.thread_time()
        fresh.window(0)
        seconds = time.thread_time() - start
    return seconds
