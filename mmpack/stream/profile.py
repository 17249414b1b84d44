"""CPU time of the stages of a row: planning, reading and decoding."""

from __future__ import annotations

import time

from msgspec.structs import replace

from mmpack.plan import Plan
from mmpack.stream.row_pipeline import RowPipelineSpec


def profile_rows(plan: Plan, *, rows: int, first_step: int = 0) -> dict[str, float]:
    """Measures the mean CPU time of one thread for planning, reading and decoding a row, in milliseconds.

    Args:
        plan: plan of the rows.
        rows: number of rows to measure. The first row is built once before, without being measured.
        first_step: step whose first row is measured first.

    Returns:
        Milliseconds by stage: `plan`, `read` and `decode`.

    Raises:
        DataError: the plan ends before the last of these rows.
    """
    first = first_step * plan.config.global_batch
    spent = {"plan": rows * _window_s(plan) / plan.rows_per_window, "read": 0.0, "decode": 0.0}
    with RowPipelineSpec.from_plan(plan, replace(plan.config.reader, workers=0))() as pipeline:
        for index, row_number in enumerate([first, *range(first, first + rows)]):
            start = time.thread_time()
            planned = plan.row(row_number)
            planned_at = time.thread_time()
            members = pipeline.fetcher.fetch(planned)
            read_at = time.thread_time()
            pipeline.assembler.assemble(planned, members)
            if index:
                spent["plan"] += planned_at - start
                spent["read"] += read_at - planned_at
                spent["decode"] += time.thread_time() - read_at
    return {name: 1e3 * seconds / rows for name, seconds in spent.items()}


def _window_s(plan: Plan) -> float:
    """Returns the CPU seconds that planning a window takes."""
    seconds = 0.0
    # The first pass includes compilation, or reading numba's cache. The second one is measured.
    for _ in range(2):
        fresh = Plan(plan.config, plan.catalogs, plan.datasets, plan.layout, window_starts=False)
        start = time.thread_time()
        fresh.window(0)
        seconds = time.thread_time() - start
    return seconds
