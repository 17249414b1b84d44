"""The synthetic drive: every planted fault is found at its time, and nothing else is reported."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmpack.errors import DataError
from mmpack.recording.formats import open_recordings
from mmpack.sync import synchronise
from mmpack.sync.sync_report import sync_report
from tests.examples import examples
from tools.compare_faults import FOUND_AS, Comparison, compare_faults
from tools.drive.faults import KINDS
from tools.make_recording import CameraSettings, make_recording

seeds = st.integers(0, 2**31)
rates = st.sampled_from([8, 10, 12, 15, 20, 25, 30])


def make_report(folder: Path) -> dict[str, Any]:
    return sync_report([synchronise(recording) for recording in open_recordings(folder)])


def make_comparison(
    seed: int, rate_hz: int, seconds: float, *, faults: bool
) -> tuple[dict[str, Any], Comparison]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_recording(
            folder, CameraSettings(seconds=seconds, rate_hz=rate_hz, size=(48, 64)), seed=seed, faults=faults
        )
        report = make_report(folder)
        return report, compare_faults(folder / "planted.json", report)


@settings(max_examples=examples(8))
@given(seeds, rates, st.floats(5, 7))
@example(0, 12, 5.0)
@example(1, 20, 5.0)
@example(2, 30, 5.0)
def test_every_planted_fault_is_found_at_its_time_and_nothing_else(
    seed: int, rate_hz: int, seconds: float
) -> None:
    report, comparison = make_comparison(seed, rate_hz, seconds, faults=True)
    assert sorted(row.kind for row in comparison.results) == sorted(KINDS)
    assert [row for row in comparison.results if not row.ok] == []
    assert comparison.false_alarms == ()
    # Slices are quarantined only for faults that remove their item, not for a duplicate or a backward timestamp.
    harmful = {row.stream for row in comparison.results if row.kind in ("gap", "outlier", "dead_camera")}
    blamed = {
        reason["stream"] for entry in report["recordings"][0]["quarantine"] for reason in entry["reasons"]
    }
    cameras = {stream for stream in harmful if stream.startswith("cam_")}
    assert cameras <= blamed <= harmful


@settings(max_examples=examples(8))
@given(seeds, rates, st.floats(3, 6))
@example(0, 12, 4.0)
@example(1, 20, 4.0)
@example(2, 30, 4.0)
def test_a_drive_without_faults_has_no_fault_and_no_quarantined_slice(
    seed: int, rate_hz: int, seconds: float
) -> None:
    report, comparison = make_comparison(seed, rate_hz, seconds, faults=False)
    assert comparison.ok
    assert comparison.results == ()
    assert report["quarantined"] == 0
    assert report["ticks"] == round(seconds * rate_hz)


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("drive")
    make_recording(folder, CameraSettings(seconds=6, size=(48, 64)), seed=7)
    return folder / "planted.json", make_report(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_fault_that_is_not_found_is_reported(drive: tuple[Path, dict[str, Any]], kind: str) -> None:
    planted, report = drive
    remaining = [
        finding for finding in report["recordings"][0]["findings"] if finding["kind"] != FOUND_AS[kind]
    ]
    comparison = compare_faults(planted, {"recordings": [{**report["recordings"][0], "findings": remaining}]})
    assert not comparison.ok
    assert {(row.kind, row.found_as, row.found_ns) for row in comparison.results if not row.ok} == {
        (kind, "", None)
    }


def test_a_finding_without_a_planted_fault_is_a_false_alarm(drive: tuple[Path, dict[str, Any]]) -> None:
    planted, report = drive
    t_ns = json.loads(planted.read_text())["faults"][0]["t_ns"]
    extra = {"severity": "problem", "kind": "gap", "stream": "action", "count": 1, "text": "a gap"}
    findings = [
        *report["recordings"][0]["findings"],
        {**extra, "times_ns": [t_ns]},
        {**extra, "times_ns": []},
    ]
    comparison = compare_faults(planted, {"recordings": [{**report["recordings"][0], "findings": findings}]})
    assert all(row.ok for row in comparison.results)
    assert [(alarm.kind, alarm.stream, alarm.t_ns) for alarm in comparison.false_alarms] == [
        ("gap", "action", t_ns),
        ("gap", "action", None),
    ]


def test_a_finding_at_the_wrong_time_does_not_count(drive: tuple[Path, dict[str, Any]]) -> None:
    planted, report = drive
    moved = [
        {**finding, "times_ns": [t_ns + 10**9 for t_ns in finding["times_ns"]]}
        for finding in report["recordings"][0]["findings"]
    ]
    comparison = compare_faults(planted, {"recordings": [{**report["recordings"][0], "findings": moved}]})
    assert not any(row.ok for row in comparison.results if row.kind in ("duplicate", "outlier"))
    assert comparison.false_alarms


def test_a_missing_file_or_several_recordings_are_an_error(
    drive: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    planted, report = drive
    with pytest.raises(DataError, match=r"planted\.json"):
        compare_faults(tmp_path / "none.json", report)
    with pytest.raises(DataError, match="2 recordings"):
        compare_faults(planted, {"recordings": report["recordings"] * 2})
