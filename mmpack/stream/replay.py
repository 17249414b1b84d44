"""Recorded faults tried again: the very rows they were met in, made once more from the plan."""

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
    """What has become of a recorded fault.

    Attributes:
        fault: as it was recorded.
        outcome: `readable`: the sample can be read now. `same`, `other`: it cannot, for the recorded reason or for
            another. `absent`: the row has no such sample under this plan.
        reason: what is wrong now; empty if nothing is.
    """

    sample: QuarantineRecord
    outcome: ReplayOutcome
    reason: str = ""


def replay_quarantine(plan: Plan, records: Sequence[QuarantineRecord]) -> list[ReplayResult]:
    """Makes the rows of recorded faults again, each once, out of the shards alone: no cache hides their damage.

    Args:
        plan: of the run that recorded them.
        faults: a sample that is recorded several times in one row is tried once, and the last record counts.

    Returns:
        Of each sample what became of it, by row and in the order of the record.

    Raises:
        ConfigError, MissingDependencyError: rows of this plan cannot be made.
    """
    by_row: dict[int, dict[str, QuarantineRecord]] = {}
    for fault in records:
        by_row.setdefault(fault.row, {})[fault.key] = fault
    making = RowPipelineSpec.from_plan(plan, replace(plan.config.reader, cache=""))()
    try:
        return [
            found
            for row in sorted(by_row)
            for found in _replay_row(plan, making, row, list(by_row[row].values()))
        ]
    finally:
        making.close()


def _replay_row(
    plan: Plan, pipeline: RowPipeline, row: int, records: Sequence[QuarantineRecord]
) -> list[ReplayResult]:
    try:
        planned = plan.row(row)
    except DataError as error:
        return [ReplayResult(fault, "absent", " ".join(error.message.split())) for fault in records]
    held = {sample.key[:MAX_TEXT_CHARS] for document in planned.documents for sample in document.samples}
    here = [fault for fault in records if fault.key in held]
    wrong: dict[str, str] = {}
    if here:
        _, met = pipeline(planned)
        wrong = {fault.key[:MAX_TEXT_CHARS]: fault.reason[:MAX_TEXT_CHARS] for fault in met}
    found: list[ReplayResult] = []
    for fault in records:
        if fault.key not in held:
            reason = f"row {row} of this plan does not hold it: the fault is of another plan, seed or build"
            found.append(ReplayResult(fault, "absent", reason))
        elif (reason := wrong.get(fault.key)) is None:
            found.append(ReplayResult(fault, "readable"))
        else:
            found.append(ReplayResult(fault, "same" if reason == fault.reason else "other", reason))
    return found
