"""Replay of a quarantine file: the recorded rows are built again, to see which samples are still unreadable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from msgspec.structs import replace

from mmpack.errors import DataError
from mmpack.plan import Plan
from mmpack.quarantine import MAX_TEXT_CHARS, QuarantineRecord
from mmpack.stream.row_pipeline import RowPipeline, RowPipelineSpec

ReplayOutcome: TypeAlias = Literal["readable", "same", "other", "absent"]


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """The result of reading a recorded unreadable sample again.

    Attributes:
        sample: the record in the quarantine file.
        outcome: `readable`: the sample can be read now. `same` or `other`: the sample is still unreadable, for the
            recorded reason or for another one. `absent`: this plan has no such sample in the recorded row.
        reason: current reason why the sample is unreadable or absent; empty if it is readable.
    """

    sample: QuarantineRecord
    outcome: ReplayOutcome
    reason: str = ""


def replay_quarantine(plan: Plan, records: Sequence[QuarantineRecord]) -> list[ReplayResult]:
    """Builds each row that has a recorded unreadable sample once more.

    The disk cache is not used, because it could hide damage of the shards.

    Args:
        plan: plan of the training run that wrote the records.
        records: lines of the quarantine file. If a sample is recorded several times in one row, the last record counts.

    Returns:
        One result per sample, sorted by row, within a row in the order of the first records.

    Raises:
        ConfigError, MissingDependencyError: rows of this plan cannot be built.
    """
    by_row: dict[int, dict[str, QuarantineRecord]] = {}
    for record in records:
        by_row.setdefault(record.row, {})[record.key] = record
    with RowPipelineSpec.from_plan(plan, replace(plan.config.reader, cache=""))() as pipeline:
        return [
            result
            for row in sorted(by_row)
            for result in _replay_row(plan, pipeline, row, list(by_row[row].values()))
        ]


def _replay_row(
    plan: Plan, pipeline: RowPipeline, row: int, records: Sequence[QuarantineRecord]
) -> list[ReplayResult]:
    try:
        planned = plan.row(row)
    except DataError as error:
        return [ReplayResult(record, "absent", " ".join(error.message.split())) for record in records]
    # Records hold shortened keys and reasons, so both are compared in that form.
    planned_keys = {
        sample.key[:MAX_TEXT_CHARS] for document in planned.documents for sample in document.samples
    }
    reasons: dict[str, str] = {}
    if any(record.key in planned_keys for record in records):
        _, unreadable = pipeline(planned)
        reasons = {sample.key[:MAX_TEXT_CHARS]: sample.reason[:MAX_TEXT_CHARS] for sample in unreadable}
    results: list[ReplayResult] = []
    for record in records:
        if record.key not in planned_keys:
            reason = f"row {row} of this plan does not contain this sample: the record belongs to another plan, seed or build"
            results.append(ReplayResult(record, "absent", reason))
        elif (reason := reasons.get(record.key)) is None:
            results.append(ReplayResult(record, "readable"))
        else:
            results.append(ReplayResult(record, "same" if reason == record.reason else "other", reason))
    return results
