"""The complete workflow, as `make demo` runs it: sync, build, verify, report, stream and train, on a generated drive or on
your own recording.

python -m tools.demo --out demo
python -m tools.demo --out demo --recording path/to/recording
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmpack import ShardSet
from tools.compare_faults import compare_faults
from tools.make_recording import CameraSettings, make_recording

_DRIVES = (("drive-000", True), ("drive-001", False))
_SECONDS = 20.0
_PLAN = """\
# What `make demo` streams: everything that was built, four times.
max_seq_len = 8192
global_batch = 1
window_steps = 16

[[datasets]]
name = "drives"
shards = "shards"
max_epochs = 4
"""
_RECIPES = Path(__file__).parents[1] / "trainer" / "recipes"
#: max_seq_len of the plan of the recipe.
_RECIPE_SEQ_LEN = 2048
#: Number of tokens that a document has in addition to its slices, with a margin.
_OVERHEAD_TOKENS = 8
_console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def main() -> None:
    """Runs the demo; exits with status 1 if a planted fault is missed or there is a false alarm, and with the status of a step
    that fails."""
    parser = argparse.ArgumentParser(
        description="Sync, build, verify, report, stream and train, on a generated drive or on your own recording."
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for all results")
    parser.add_argument("--recording", help="your own recording, used instead of the generated drive")
    options = parser.parse_args()
    if options.recording:
        sys.exit(_run(options.out / "yours", [options.recording]))
    recordings = [options.out / "recordings" / name for name, _ in _DRIVES]
    _console.rule("1. make a recording")
    for seed, (path, (name, faults)) in enumerate(zip(recordings, _DRIVES, strict=True)):
        generated = make_recording(
            path, CameraSettings(seconds=_SECONDS), seed=seed, faults=faults, name=name
        )
        summary = f"{len(generated.faults)} planted faults" if generated.faults else "no faults"
        _console.print(
            f"{path}: {_SECONDS:.0f} s of six cameras, microphone, IMU, CAN, actions and subtitles; {summary}"
        )
    status = _run(options.out, [str(path) for path in recordings])
    if status:
        sys.exit(status)
    _console.rule("10. compare the planted faults with the findings of sync")
    report = json.loads((options.out / "sync" / "report.json").read_text())
    sys.exit(_compare(recordings, report))


def _run(out: Path, recordings: list[str]) -> int:
    shards, plan, page = out / "shards", out / "plan.toml", out / "row-0.html"
    out.mkdir(parents=True, exist_ok=True)
    plan.write_text(_PLAN)
    steps = (
        ("2. sync: check the timestamps of all streams", ["sync", *recordings, "--out", str(out / "sync")]),
        ("3. build-shards", ["build-shards", *recordings, "--out", str(shards)]),
        ("4. verify", ["verify", str(shards)]),
        ("5. report", ["report", str(shards)]),
        ("6. mixture: forecast the tokens of the plan", ["mixture", str(plan)]),
        ("7. stream: read and decode packed rows", ["stream", str(plan), "--rows", "16", "--benchmark"]),
        ("8. show-row: show one training row", ["show-row", str(plan), "0", "--out", str(page)]),
    )
    for title, arguments in steps:
        _console.rule(title)
        status = _run_command("mmpack", *arguments)
        if status:
            return status
    _console.rule("9. train: a small decoder on a CPU")
    status = _train(out, shards)
    if status:
        return status
    _console.rule("written files")
    for path, content in (
        (shards / "shards", "WebDataset tars"),
        (shards / "index.parquet", "one row per sample"),
        (shards / "manifest.json", "settings, offsets, digests"),
        (shards / "quarantine.parquet", "quarantined slices with their reasons"),
        (out / "sync" / "sync.png", "plot: residuals by stream, timeline with gaps"),
        (shards / "report.png", "plot: residuals and timeline of the shard set"),
        (plan, "plan: data sets, mixture and packing"),
        (page, "page: one training row with its sensors and its attention mask"),
        (out / "train" / "metrics.jsonl", "metrics of the training run, one line per step"),
    ):
        _console.print(f"{path}: {content}")
    return 0


def _train(out: Path, shards: Path) -> int:
    """Trains the recipe for CPUs on rows that are long enough for the longest slice of the shard set."""
    longest = int(ShardSet(str(shards)).index["tokens"].to_numpy().max(initial=0)) + _OVERHEAD_TOKENS
    # The plan of the recipe is used with these shards and with rows that hold the longest slice.
    text = (_RECIPES / "cpu_demo.plan.toml").read_text()
    text = text.replace('"../../demo/shards"', '"shards"')
    if longest > _RECIPE_SEQ_LEN:
        text = text.replace(f"max_seq_len = {_RECIPE_SEQ_LEN}", f"max_seq_len = {-(-longest // 128) * 128}")
    plan = out / "train.plan.toml"
    plan.write_text(text)
    recipe = _RECIPES / "cpu_demo.toml"
    return _run_command("mmpack-train", str(recipe), f"--data.plan={plan}", f"--out={out / 'train'}")


def _run_command(name: str, *arguments: str) -> int:
    _console.print(f"[bold]$ {name} {shlex.join(arguments)}[/]")
    sys.stdout.flush()
    command = Path(sysconfig.get_path("scripts")) / name
    return subprocess.run([command, *arguments], check=False).returncode


def _compare(recordings: list[Path], report: dict) -> int:
    """Prints the planted faults and the findings; returns 1 if a fault was missed or there is a false alarm, else 0."""
    table = Table(box=None, padding=(0, 3, 0, 0))
    for column in ("recording", "planted", "stream", "at", "found as", "at", ""):
        table.add_column(column)
    comparisons = [
        compare_faults(path / "planted.json", {"recordings": [recording]})
        for path, recording in zip(recordings, report["recordings"], strict=True)
    ]
    for path, comparison in zip(recordings, comparisons, strict=True):
        for result in comparison.results:
            verdict = "[green]found[/]" if result.ok else "[red]missed[/]"
            found_at = f"{result.found_ns / 1e9:.3f} s" if result.found_ns is not None else ""
            planted_at = f"{result.t_ns / 1e9:.3f} s"
            table.add_row(
                path.name, result.kind, result.stream, planted_at, result.found_as, found_at, verdict
            )
        for alarm in comparison.false_alarms:
            table.add_row(path.name, "nothing", alarm.stream, "", alarm.kind, "", "[red]false alarm[/]")
        if not comparison.results and comparison.ok:
            table.add_row(path.name, "nothing", "", "", "nothing", "", "[green]correct[/]")
    _console.print(table)
    return 0 if all(comparison.ok for comparison in comparisons) else 1


if __name__ == "__main__":
    main()
