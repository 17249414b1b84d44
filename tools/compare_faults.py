"""Comparison of the faults planted in a recording with the findings of `mmpack sync`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpack.errors import DataError

#: Kind of the finding that sync must report for each kind of planted fault.
FOUND_AS = {
    "gap": "gap",
    "duplicate": "duplicate",
    "outlier": "out_of_tolerance",
    "backward": "backward",
    "dead_camera": "missing_sensor",
}


@dataclass(frozen=True, kw_only=True)
class PlantedFaultResult:
    """One planted fault and the finding that matches it.

    Attributes:
        kind: kind of the planted fault, a key of :data:`FOUND_AS`.
        stream: name of the stream with the fault.
        t_ns: true time of the fault on the clock of the recording.
        found_as: kind of the matching finding; empty if the fault was not found.
        found_ns: time in the matching findings that is nearest to `t_ns`; None if the fault was not found.
        ok: whether the fault was found, with the right kind and at the right time.
    """

    kind: str
    stream: str
    t_ns: int
    found_as: str
    found_ns: int | None
    ok: bool


@dataclass(frozen=True, kw_only=True)
class FalseAlarm:
    """A reported problem that was not planted.

    Attributes:
        kind: kind of the finding.
        stream: name of the stream.
        t_ns: time of the finding; None for a finding about the whole stream.
        text: text of the finding in the report.
    """

    kind: str
    stream: str
    t_ns: int | None
    text: str


@dataclass(frozen=True)
class Comparison:
    """The results for all planted faults, in order of time, and the false alarms."""

    results: tuple[PlantedFaultResult, ...]
    false_alarms: tuple[FalseAlarm, ...]

    @property
    def ok(self) -> bool:
        """True if every planted fault was found and there is no false alarm."""
        return all(result.ok for result in self.results) and not self.false_alarms


def compare_faults(planted: Path, report: dict[str, Any]) -> Comparison:
    """Compares the faults of `planted` with the findings of `report`.

    A finding matches a fault if its time is at most one and a half periods of the stream before the start or after the end
    of the fault. One fault may cause findings of several kinds (a dead camera also causes a gap), so only a finding of
    severity 'problem' at a time at which its stream has no planted fault is a false alarm.

    Args:
        planted: path of a planted.json.
        report: report of `mmpack sync`, or the "sync" part of a report of `mmpack report`, about one recording.

    Raises:
        DataError: the file is not a valid planted.json, or the report does not have exactly one recording.
    """
    try:
        faults = json.loads(planted.read_text(encoding="utf-8"))["faults"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"is not a valid planted.json ({error!r})", where=str(planted)) from None
    if len(report["recordings"]) != 1:
        raise DataError(
            f"the report has {len(report['recordings'])} recordings", hint="Compare one recording at a time."
        )
    recording = report["recordings"][0]
    findings = [finding for finding in recording["findings"] if finding["severity"] == "problem"]
    slack_ns = {name: stream["period_ns"] * 3 // 2 for name, stream in recording["streams"].items()}
    results = tuple(_match_fault(fault, findings, slack_ns[fault["stream"]]) for fault in faults)
    return Comparison(results, tuple(_find_false_alarms(faults, findings, slack_ns)))


def _match_fault(fault: dict[str, Any], findings: list[dict[str, Any]], slack_ns: int) -> PlantedFaultResult:
    kind, stream, t_ns = fault["kind"], fault["stream"], fault["t_ns"]
    times_ns = [
        time_ns
        for finding in findings
        if (finding["kind"], finding["stream"]) == (FOUND_AS[kind], stream)
        for time_ns in finding["times_ns"]
        if _covers(fault, time_ns, slack_ns)
    ]
    if not times_ns:
        return PlantedFaultResult(kind=kind, stream=stream, t_ns=t_ns, found_as="", found_ns=None, ok=False)
    return PlantedFaultResult(
        kind=kind,
        stream=stream,
        t_ns=t_ns,
        found_as=FOUND_AS[kind],
        found_ns=min(times_ns, key=lambda time_ns: abs(time_ns - t_ns)),
        ok=True,
    )


def _find_false_alarms(
    faults: list[dict[str, Any]], findings: list[dict[str, Any]], slack_ns: dict[str, int]
) -> Iterator[FalseAlarm]:
    for finding in findings:
        kind, stream, text = finding["kind"], finding["stream"], finding["text"]
        stream_faults = [fault for fault in faults if fault["stream"] == stream]
        if not finding["times_ns"]:
            yield FalseAlarm(kind=kind, stream=stream, t_ns=None, text=text)
        for time_ns in finding["times_ns"]:
            if not any(_covers(fault, time_ns, slack_ns[stream]) for fault in stream_faults):
                yield FalseAlarm(kind=kind, stream=stream, t_ns=time_ns, text=text)


def _covers(fault: dict[str, Any], time_ns: int, slack_ns: int) -> bool:
    return fault["t_ns"] - slack_ns <= time_ns <= fault["t_ns"] + fault["duration_ns"] + slack_ns
