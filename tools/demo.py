"""The main job from end to end, as `make demo` runs it: sync, build, verify, report, stream, train, on a generated
drive or on a recording of yours.

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
from tools.make_recording import make_recording

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
#: Of a row in the recipe's plan.
_PLACES = 2048
#: Tokens around a run of slices, and a few to spare.
_WRAPPING = 8
_console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def main() -> None:
    """Runs the demo; exits with 1 if a step fails or a planted fault is not found."""
    parser = argparse.ArgumentParser(
        description="Sync, build, verify, report, stream and train, on a drive made for it or on your recording."
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything that is made")
    parser.add_argument("--recording", help="a recording of yours in place of the generated drive")
    options = parser.parse_args()
    if options.recording:
        sys.exit(_run(options.out / "yours", [options.recording]))
    recordings = [options.out / "recordings" / name for name, _ in _DRIVES]
    _console.rule("1. make a recording")
    for number, (path, (name, faults)) in enumerate(zip(recordings, _DRIVES, strict=True)):
        planted = make_recording(path, seed=number, seconds=_SECONDS, faults=faults, name=name)
        what = f"{len(planted.faults)} faults planted" if planted.faults else "fault-free"
        _console.print(
            f"{path}: {_SECONDS:.0f} s of six cameras, microphone, IMU, CAN, actions and subtitles; {what}"
        )
    status = _run(options.out, [str(path) for path in recordings])
    if status:
        sys.exit(status)
    _console.rule("planted and found")
    report = json.loads((options.out / "sync" / "report.json").read_text())
    sys.exit(_compare(recordings, report))


def _run(out: Path, recordings: list[str]) -> int:
    shards, plan, page = out / "shards", out / "plan.toml", out / "row-0.html"
    out.mkdir(parents=True, exist_ok=True)
    plan.write_text(_PLAN)
    steps = (
        ("2. sync: do the streams agree in time?", ["sync", *recordings, "--out", str(out / "sync")]),
        ("3. build-shards", ["build-shards", *recordings, "--out", str(shards)]),
        ("4. verify", ["verify", str(shards)]),
        ("5. report", ["report", str(shards)]),
        ("6. mixture: what the plan will draw", ["mixture", str(plan)]),
        ("7. stream: packed rows, read and decoded", ["stream", str(plan), "--rows", "16", "--benchmark"]),
        ("8. show-row: what a model sees", ["show-row", str(plan), "0", "--out", str(page)]),
    )
    for title, arguments in steps:
        _console.rule(title)
        status = _command("mmpack", *arguments)
        if status:
            return status
    _console.rule("9. train: a small decoder on a CPU")
    status = _train(out, shards)
    if status:
        return status
    _console.rule("what was made")
    for path, what in (
        (shards / "shards", "WebDataset tars"),
        (shards / "index.parquet", "one row per sample"),
        (shards / "manifest.json", "settings, offsets, digests"),
        (shards / "quarantine.parquet", "what was set aside, and why"),
        (out / "sync" / "sync.png", "picture: residuals by stream, timeline with gaps"),
        (shards / "report.png", "picture: the same, of the finished shards"),
        (plan, "what is streamed, and how it is mixed and packed"),
        (page, "page: a training row, its sensors side by side, and who sees whom"),
        (out / "train" / "metrics.jsonl", "the training run, a line a step"),
    ):
        _console.print(f"{path}: {what}")
    return 0


def _train(out: Path, shards: Path) -> int:
    """Trains the recipe for CPUs, on rows long enough for any slice that was built."""
    longest = int(ShardSet(str(shards)).index["tokens"].to_numpy().max(initial=0)) + _WRAPPING
    # The recipe's own plan, for these shards and rows that hold the longest slice.
    told = (_RECIPES / "cpu_demo.plan.toml").read_text()
    told = told.replace('"../../demo/shards"', '"shards"')
    if longest > _PLACES:
        told = told.replace(f"max_seq_len = {_PLACES}", f"max_seq_len = {-(-longest // 128) * 128}")
    plan = out / "train.plan.toml"
    plan.write_text(told)
    recipe = _RECIPES / "cpu_demo.toml"
    return _command("mmpack-train", str(recipe), f"--data.plan={plan}", f"--out={out / 'train'}")


def _command(name: str, *arguments: str) -> int:
    _console.print(f"[bold]$ {name} {shlex.join(arguments)}[/]")
    sys.stdout.flush()
    command = Path(sysconfig.get_path("scripts")) / name
    return subprocess.run([command, *arguments], check=False).returncode


def _compare(recordings: list[Path], report: dict) -> int:
    """Prints the planted faults beside those found; 1 if one was missed or one was invented."""
    table = Table(box=None, padding=(0, 3, 0, 0))
    for column in ("recording", "planted", "stream", "at", "found as", "at", ""):
        table.add_column(column)
    comparisons = [
        compare_faults(path / "planted.json", {"recordings": [facts]})
        for path, facts in zip(recordings, report["recordings"], strict=True)
    ]
    for path, comparison in zip(recordings, comparisons, strict=True):
        for row in comparison.rows:
            verdict = "[green]found[/]" if row.ok else "[red]missed[/]"
            found_at = f"{row.found_ns / 1e9:.3f} s" if row.found_ns is not None else ""
            planted_at = f"{row.t_ns / 1e9:.3f} s"
            table.add_row(path.name, row.kind, row.stream, planted_at, row.found_as, found_at, verdict)
        for finding in comparison.invented:
            table.add_row(path.name, "nothing", finding.stream, "", finding.kind, "", "[red]invented[/]")
        if not comparison.rows and comparison.ok:
            table.add_row(path.name, "nothing", "", "", "nothing", "", "[green]right[/]")
    _console.print(table)
    return 0 if all(comparison.ok for comparison in comparisons) else 1


if __name__ == "__main__":
    main()
