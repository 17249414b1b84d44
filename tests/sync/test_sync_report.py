"""The synchronisation report on a terminal."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from mmpack.clock import Clock, ClockMap
from mmpack.recording import Recording
from mmpack.show.sync_plot import plot_sync
from mmpack.show.sync_table import render_sync_report
from mmpack.sync import synchronise
from mmpack.sync.sync_report import pool_stream_reports, sync_report, to_table
from tests.sync.listed_streams import BOOT_NS, MS, recording, regular_ns, stream


def render(*recordings: Recording) -> str:
    console = Console(file=io.StringIO(), width=250)
    console.print(render_sync_report(sync_report([synchronise(recording) for recording in recordings])))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_names_that_look_like_markup_are_printed_unchanged() -> None:
    rig, other = Clock("[/x]", "boot"), Clock("[bold]device[/]", "device")
    timestamps = np.delete(regular_ns(40, 100 * MS), np.s_[10:14])
    capture = recording(
        stream(timestamps, "camera", "[/cam]", clock=rig),
        stream(regular_ns(400, 10 * MS, 0), "imu", "[red]imu\\", clock=other),
        maps=(
            ClockMap(
                source=other.name,
                target=rig.name,
                anchor_source_ns=0,
                anchor_target_ns=BOOT_NS,
                drift_ppm=0.0,
            ),
        ),
    )
    first = Recording("[/drive]", capture.streams, capture.maps, capture.path)
    text = render(first, Recording("[b]second", capture.streams, capture.maps, capture.path))
    for name in (
        "[/x] (boot)",
        "[bold]device[/] (device)",
        "stream [/cam]",
        "[red]imu\\ ",
        "[/drive]",
        "[b]second",
    ):
        assert name in text
    assert "gap [/cam]:" in text


def test_a_report_of_an_unknown_policy_is_rendered_without_residuals() -> None:
    result = synchronise(recording(stream(regular_ns(40, 100 * MS), "camera", "cam")))
    report = sync_report([result])
    for streams in (report["streams"], report["recordings"][0]["streams"]):
        streams["cam"]["policy"] = "from_elsewhere"
    console = Console(file=io.StringIO(), width=250)
    console.print(render_sync_report(report))
    assert "from_elsewhere" in console.file.getvalue()  # type: ignore[attr-defined]
    labels = [text.get_text() for axes in plot_sync(to_table([result]), report).axes for text in axes.texts]
    assert "unknown policy" in labels


def test_percentiles_pooled_from_reports_are_called_the_largest() -> None:
    ticks = regular_ns(40, 100 * MS)
    captures = [
        Recording(name, capture.streams, capture.maps, capture.path)
        for name, late_ns in (("first", 0), ("second", MS // 2))
        for capture in [recording(stream(ticks, "camera", "a"), stream(ticks + late_ns, "camera", "b"))]
    ]
    report = sync_report([synchronise(capture) for capture in captures])
    pooled = report | {"streams": pool_stream_reports(report["recordings"])}
    headings = "largest p50", "largest p99"
    for rendered, from_reports in ((report, False), (pooled, True)):
        console = Console(file=io.StringIO(), width=250)
        console.print(render_sync_report(rendered, from_reports=from_reports))
        each, total = console.file.getvalue().split("all 2 recordings")  # type: ignore[attr-defined]
        assert "residual p50" in each
        assert all((heading in total) is from_reports and heading not in each for heading in headings)
    for name, streams in pooled["streams"].items():
        largest = max(entry["streams"][name]["residual_p99_ns"] for entry in report["recordings"])
        assert streams["residual_p99_ns"] == largest
