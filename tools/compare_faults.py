"""The faults planted in a recording beside those that sync found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpack.errors import DataError

#: The finding that each planted fault has to show as.
FOUND_AS = {
    "gap": "gap",
    "duplicate": "duplicate",
    "outlier": "out_of_tolerance",
    "backward": "backward",
    "dead_camera": "missing_sensor",
}


@dataclass(frozen=True)
class PlantedFaultResult:
    """One planted fault and what was found of it.

    Attributes:
        kind: what was planted, a key of :data:`FOUND_AS`.
        stream: where.
        t_ns: its true time on the recording's clock.
        found_as: kind of the finding; empty if it was not found.
        found_ns: the found place nearest to `t_ns`; None if it was not found.
        ok: whether it was found, as the right kind and at its place.
    """

    kind: str
    stream: str
    t_ns: int
    found_as: str
    found_ns: int | None
    ok: bool


@dataclass(frozen=True)
class FalseAlarm:
    """A fault that was found where none was planted.

    Attributes:
        kind, stream: of the finding.
        t_ns: its place; None for a finding about the whole stream.
        text: what the report says.
    """

    kind: str
    stream: str
    t_ns: int | None
    text: str


@dataclass(frozen=True)
class Comparison:
    """All planted faults, in order of time, and what was found beyond them."""

    rows: tuple[PlantedFaultResult, ...]
    invented: tuple[FalseAlarm, ...]

    @property
    def ok(self) -> bool:
        """Whether all that was planted was found and nothing else."""
        return all(row.ok for row in self.rows) and not self.invented


def compare_faults(planted: Path, report: dict[str, Any]) -> Comparison:
    """The faults of `planted` against the findings of `report`.

    A place counts as found within one and a half periods of the stream before the fault begins and after it
    ends. A fault may show in several ways, a dead camera as a gap too: only a finding of severity 'fault' at
    a place where its stream has no planted fault is invented.

    Args:
        planted: a planted.json.
        report: of `mmpack sync`, or the "sync" part of that of `mmpack report`; of one recording.

    Raises:
        DataError: the file is no planted.json, or the report has not exactly one recording.
    """
    try:
        faults = json.loads(planted.read_text(encoding="utf-8"))["faults"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"is no planted.json ({error!r})", where=str(planted)) from None
    if len(report["recordings"]) != 1:
        raise DataError(
            f"the report has {len(report['recordings'])} recordings", hint="Compare one at a time."
        )
    recording = report["recordings"][0]
    findings = [finding for finding in recording["findings"] if finding["severity"] == "fault"]
    slack_ns = {name: facts["period_ns"] * 3 // 2 for name, facts in recording["streams"].items()}
    rows = tuple(_row(fault, findings, slack_ns[fault["stream"]]) for fault in faults)
    return Comparison(rows, tuple(_find_false_alarms(faults, findings, slack_ns)))


def _row(fault: dict[str, Any], findings: list[dict[str, Any]], slack_ns: int) -> PlantedFaultResult:
    kind, stream, t_ns = fault["kind"], fault["stream"], fault["t_ns"]
    places = [
        place
        for finding in findings
        if (finding["kind"], finding["stream"]) == (FOUND_AS[kind], stream)
        for place in finding["places_ns"]
        if _covers(fault, place, slack_ns)
    ]
    if not places:
        return PlantedFaultResult(kind, stream, t_ns, "", None, False)
    return PlantedFaultResult(
        kind, stream, t_ns, FOUND_AS[kind], min(places, key=lambda place: abs(place - t_ns)), True
    )


def _find_false_alarms(
    faults: list[dict[str, Any]], findings: list[dict[str, Any]], slack_ns: dict[str, int]
) -> Iterator[FalseAlarm]:
    for finding in findings:
        kind, stream, text = finding["kind"], finding["stream"], finding["text"]
        here = [fault for fault in faults if fault["stream"] == stream]
        if not finding["places_ns"]:
            yield FalseAlarm(kind, stream, None, text)
        for place in finding["places_ns"]:
            if not any(_covers(fault, place, slack_ns[stream]) for fault in here):
                yield FalseAlarm(kind, stream, place, text)


def _covers(fault: dict[str, Any], place_ns: int, slack_ns: int) -> bool:
    return fault["t_ns"] - slack_ns <= place_ns <= fault["t_ns"] + fault["duration_ns"] + slack_ns
