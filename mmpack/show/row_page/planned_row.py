"""Renderer of a row of a plan as an HTML page."""

from __future__ import annotations

from mmpack.clock import format_ns
from mmpack.plan import Plan, PlannedRow
from mmpack.show.row_page.page import row_html
from mmpack.stream.row_pipeline import RowPipeline, RowPipelineSpec


def planned_row_html(plan: Plan, number: int, *, bidirectional_images: bool = True) -> str:
    """Builds a row of the training run by its number and renders it as an HTML page.

    Args:
        plan: plan of the training run.
        number: number of the row among the rows of all ranks, from 0.
        bidirectional_images: True if the positions of one image attend to each other in both directions.

    Raises:
        DataError: the training run has fewer rows.
        ConfigError, StorageError: a shard set of the plan cannot be read.
    """
    planned = plan.row(number)
    pipeline: RowPipeline = RowPipelineSpec.from_plan(plan, plan.config.reader)()
    try:
        row, unreadable = pipeline(planned)
    finally:
        pipeline.close()
    batch = plan.config.global_batch
    notes = {
        "step": f"{number // batch:,}, {batch} rows each, of window {number // plan.rows_per_window:,}",
        "plan": f"{plan.fingerprint[:16]}, seed {plan.config.seed}",
        "layout": plan.layout.fingerprint[:16],
    }
    notes |= _slice_notes(plan, planned)
    notes |= {sample.key: sample.reason for sample in unreadable}
    names = [dataset.name for dataset in plan.config.datasets]
    return row_html(
        row,
        plan.layout,
        title=f"Row {number:,}",
        notes=notes,
        dataset_names=names,
        bidirectional_images=bidirectional_images,
    )


def _slice_notes(plan: Plan, planned: PlannedRow) -> dict[str, str]:
    """Returns the largest residual of each slice in the row as a note, by the key of the slice."""
    return {
        sample.key: "residual "
        + format_ns(int(plan.catalogs[sample.shard_set].columns["residual_ns"][sample.number]))
        for document in planned.documents
        if document.is_run
        for sample in document.samples
    }
