"""Recorded faults tried again: the very rows they were met in, made once more from the plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from msgspec.structs import replace

from mmpack.errors import DataError
from mmpack.plan import Plan
from mmpack.quarantine import MAX_TEXT, RecordedFault
from mmpack.stream.row_pipeline import Making, MakingSpec

Outcome: TypeAlias = Literal["readable", "same", "other", "absent"]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What has become of a recorded fault.

    Attributes:
        fault: as it was recorded.
        outcome: `readable`: the sample can be read now. `same`, `other`: it cannot, for the recorded reason or for
            another. `absent`: the row has no such sample under this plan.
        reason: what is wrong now; empty if nothing is.
    """

    fault: RecordedFault
    outcome: Outcome
    reason: str = ""


def replay(plan: Plan, faults: Sequence[RecordedFault]) -> list[Replayed]:
    """Makes the rows of recorded faults again, each once, out of the shards alone: no cache hides their damage.

    Args:
        plan: of the run that recorded them.
        faults: a sample that is recorded several times in one row is tried once, and the last record counts.

    Returns:
        Of each sample what became of it, by row and in the order of the record.

    Raises:
        ConfigError, MissingDependencyError: rows of this plan cannot be made.
    """
    by_row: dict[int, dict[str, RecordedFault]] = {}
    for fault in faults:
        by_row.setdefault(fault.row, {})[fault.key] = fault
    making = MakingSpec.of(plan, replace(plan.config.reader, cache=""))()
    try:
        return [
            found
            for row in sorted(by_row)
            for found in _of_row(plan, making, row, list(by_row[row].values()))
        ]
    finally:
        making.close()


def _of_row(plan: Plan, making: Making, row: int, faults: Sequence[RecordedFault]) -> list[Replayed]:
    try:
        planned = plan.row(row)
    except DataError as error:
        return [Replayed(fault, "absent", " ".join(error.what.split())) for fault in faults]
    held = {sample.key[:MAX_TEXT] for document in planned.documents for sample in document.samples}
    here = [fault for fault in faults if fault.key in held]
    wrong: dict[str, str] = {}
    if here:
        _, met = making(planned)
        wrong = {fault.key[:MAX_TEXT]: fault.reason[:MAX_TEXT] for fault in met}
    found: list[Replayed] = []
    for fault in faults:
        if fault.key not in held:
            reason = f"row {row} of this plan does not hold it: the fault is of another plan, seed or build"
            found.append(Replayed(fault, "absent", reason))
        elif (reason := wrong.get(fault.key)) is None:
            found.append(Replayed(fault, "readable"))
        else:
            found.append(Replayed(fault, "same" if reason == fault.reason else "other", reason))
    return found
