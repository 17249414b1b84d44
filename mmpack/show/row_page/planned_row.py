"""A row of a plan, made and shown with what the plan knows of it."""

from __future__ import annotations

from mmpack.clock import format_ns
from mmpack.plan import Plan, PlannedRow
from mmpack.show.row_page.page import row_html
from mmpack.stream.row_pipeline import RowPipeline, RowPipelineSpec


def planned_row_html(plan: Plan, number: int, *, images: bool = True) -> str:
    """The page of a row by its number in the run: its media are read, whatever rank would get it.

    Args:
        plan: which rows there are.
        number: of the row, from 0.
        images: whether the places of one picture see each other both ways.

    Raises:
        DataError: the run ends before it.
        ConfigError, StorageError: its builds cannot be read.
    """
    planned = plan.row(number)
    making: RowPipeline = RowPipelineSpec.from_plan(plan, plan.config.reader)()
    try:
        row, faults = making(planned)
    finally:
        making.close()
    batch = plan.config.global_batch
    notes = {
        "step": f"{number // batch:,}, {batch} rows each, of window {number // plan.window_rows:,}",
        "plan": f"{plan.fingerprint[:16]}, seed {plan.config.seed}",
        "layout": plan.layout.fingerprint[:16],
    }
    notes |= _slice_notes(plan, planned)
    notes |= {fault.key: fault.reason for fault in faults}
    names = [dataset.name for dataset in plan.config.datasets]
    return row_html(
        row, plan.layout, title=f"Row {number:,}", notes=notes, dataset_names=names, images=images
    )


def _slice_notes(plan: Plan, planned: PlannedRow) -> dict[str, str]:
    """How far off the worst of each slice's sensors is, by the slice's key."""
    return {
        sample.key: "residual "
        + format_ns(int(plan.catalogs[sample.shard_set].columns["residual_ns"][sample.number]))
        for document in planned.documents
        if document.is_run
        for sample in document.samples
    }
