"""Streaming loaders side by side: how fast, how soon, how much memory, and what a resumed run delivers.

    python -m benchmarks.stream [--quick] [--python PEERS_VENV/bin/python]

Every measurement is a process of its own, of the interpreter that `--python` or MMPACK_PEERS_PYTHON names. Make its
environment once, with this repository in it:

    python3 -m venv .peers
    .peers/bin/python -m pip install --requirement benchmarks/peers.txt --editable .

All loaders get the same samples (benchmarks/support/stream_inputs.py), each in its own format, the same decoder, one sample
at a time, and pass over the payload without reading it. They run in turn, each repetition starting with another one;
medians are shown. The floor is a loop of `pread` and the decoder; its second process hands over ids alone.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.support.measure import ROOT, machine
from benchmarks.support.process_tree import resident_bytes
from benchmarks.support.stream_inputs import BenchmarkSamples, write_samples
from benchmarks.support.stream_peers import LOADERS, Loader

RESULT = ROOT / "benchmarks" / "results" / "stream.json"
COUNTS = {"bytes": 2000, "six": 120, "clip": 40}
QUICK = {"bytes": 400, "six": 24, "clip": 12}
WORKERS = (0, 2)
OTHER_WORKERS = (0, 1, 3)
TITLES = {
    "bytes": "bytes: 74 kB a sample, as they are",
    "six": "six JPEGs of 1600x900 a sample, decoded to 800x450",
    "clip": "2 s of H.264 a sample, 60 frames of 424x240, decoded",
}
NOT_MEASURED = (
    "object stores, networks, a cold page cache: everything is read from the page cache",
    "several ranks; another number of ranks on resume",
    "batches of several samples, pinned memory, accelerators",
    "mixtures, packing on line, filters, damaged samples",
    "Grain's threads (off here, as in the others) and each loader's own tuning beyond its defaults",
)
_SAMPLED_S = 0.25


@dataclass(frozen=True)
class StreamBenchmark:
    """Where the children run.

    Attributes:
        python: interpreter that has the peers.
        timeout_s: after which a child is given up.
        home: folder for states and logs.
    """

    python: str
    timeout_s: float
    home: Path

    def run(
        self, job: str, loader: str, samples: BenchmarkSamples, workers: int = 0, *more: str
    ) -> dict[str, Any]:
        """What the child printed, with `resident`: (time, bytes, bytes not from files) as it ran; or `error`."""
        command = [self.python, "-m", "benchmarks.support.stream_child", job, loader, str(samples.folder)]
        command += ["--workers", str(workers), "--started", repr(time.time()), *more]
        out, errors = self.home / "out", self.home / "errors"
        with out.open("w") as stdout, errors.open("w") as stderr:
            child = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=stdout,
                stderr=stderr,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        resident: list[tuple[float, int, int]] = []
        deadline = time.monotonic() + self.timeout_s
        while child.poll() is None and time.monotonic() < deadline:
            resident.append((time.time(), *resident_bytes(child.pid)))
            time.sleep(_SAMPLED_S)
        timed_out = child.poll() is None
        with contextlib.suppress(ProcessLookupError):  # workers outlive some loaders' processes
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        lines = out.read_text().splitlines()
        if timed_out:
            return {"error": f"no answer within {self.timeout_s:.0f} s"}
        if child.returncode or not lines:
            return {"error": _reason(errors.read_text()) or f"ended with {child.returncode}"}
        return json.loads(lines[-1]) | {"resident": resident}

    def versions(self, packages: Sequence[str]) -> dict[str, str]:
        """Of packages of the children's interpreter."""
        program = "import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]))"
        done = subprocess.run(
            [self.python, "-c", program, *packages], check=True, capture_output=True, text=True
        )
        return dict(zip(packages, done.stdout.split(), strict=True))


def _reason(log: str) -> str:
    """The first exception of a child's log; with the line that raised it, if it says no more than its name."""
    lines = [line for line in log.splitlines() if line.strip(" ^~")]
    for number, line in enumerate(lines):
        name, _, text = line.partition(":")
        if name.isidentifier() and name.endswith("Error"):
            return (line if text else f"{name}: {lines[number - 1].strip()}")[:200]
    return lines[-1][:200] if lines else ""


def measure_speed(
    bench: StreamBenchmark, samples: BenchmarkSamples, names: Sequence[str], repetitions: int
) -> list[dict[str, Any]]:
    """One line per loader and number of workers."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {(n, w): [] for w in WORKERS for n in names}
    for repetition in range(repetitions):
        turn = repetition % len(names)
        for workers in WORKERS:
            for name in (*names[turn:], *names[:turn]):
                check = ["--check"] if repetition == 0 else []
                found[name, workers].append(bench.run("speed", name, samples, workers, *check))
    return [{"loader": name, "workers": workers, **_speed(runs)} for (name, workers), runs in found.items()]


def _speed(runs: list[dict[str, Any]]) -> dict[str, Any]:
    failed = [run["error"] for run in runs if "error" in run]
    if failed:
        return {"error": failed[0], "failed": len(failed), "runs": len(runs)}
    rates = [(run["samples"] - 1) / run["wall_s"] for run in runs]
    return {
        "samples_per_s": statistics.median(rates),
        "cpu_ms_per_sample": statistics.median(1000 * run["cpu_s"] / (run["samples"] - 1) for run in runs),
        "first_s": statistics.median(run["first_s"] for run in runs),
        "first_since_start_s": statistics.median(run["first_since_start_s"] for run in runs),
        "peak_bytes": max(size for run in runs for _, size, _ in run["resident"]),
        "all_samples_per_s": rates,
        "samples": runs[0]["samples"],
        "distinct": min(run["distinct"] for run in runs),
        "checksums": runs[0]["checksums"],
    }


def measure_memory(
    bench: StreamBenchmark, samples: BenchmarkSamples, names: Sequence[str], epochs: int
) -> list[dict[str, Any]]:
    """Peak, last and slope over epochs, two workers. The slope leaves out the first epoch and what maps files."""
    lines: list[dict[str, Any]] = []
    for name in names:
        run = bench.run("memory", name, samples, 2, "--epochs", str(epochs))
        line: dict[str, Any] = {"loader": name, "epochs": epochs, "workers": 2}
        if "error" in run:
            lines.append(line | {"error": run["error"]})
            continue
        ends, resident = run["epoch_ends"], run["resident"]
        tops: list[tuple[int, int]] = []
        for number, (start, end) in enumerate(pairwise(ends)):
            inside = [anonymous for at, _, anonymous in resident if start <= at < end]
            if number and inside:
                tops.append((number, max(inside)))
        slope = float(np.polyfit(*np.array(tops, float).T, deg=1)[0]) if len(tops) > 2 else None
        alive = [(at, size) for at, size, _ in resident if size]  # an ended process has none
        sizes = [size for at, size in alive if ends[0] <= at < ends[-1]] or [alive[-1][1]]
        line |= {"peak_bytes": max(sizes), "last_bytes": sizes[-1], "slope_bytes_per_epoch": slope}
        lines.append(line | {"epochs_seen": len(tops)})
    return lines


def measure_resume(
    bench: StreamBenchmark, samples: BenchmarkSamples, names: Sequence[str], others: Sequence[int]
) -> list[dict[str, Any]]:
    """State at half an epoch of two workers, and what follows from it with two and with other numbers."""
    lines: list[dict[str, Any]] = []
    for name in names:
        line: dict[str, Any] = {"loader": name, "set": samples.kind}
        lines.append(line)
        if not LOADERS[name].saves:
            line["error"] = "has no state"
            continue
        state = bench.home / "state"
        saved = bench.run("save", name, samples, 2, "--state", str(state))
        if "error" in saved:
            line["error"] = saved["error"]
            continue
        line |= {key: saved[key] for key in ("state_bytes", "save_s")}
        wanted = saved["ids"][len(samples.ranges) // 2 :]
        for workers in (2, *others):
            run = bench.run("resume", name, samples, workers, "--state", str(state))
            line[f"to_{workers}"] = _resumed(run, wanted)
    return lines


def _resumed(run: dict[str, Any], wanted: list[int]) -> dict[str, Any]:
    if "error" in run:
        return {"outcome": "fails", "error": run["error"]}
    ids = run["ids"]
    if ids == wanted:
        outcome = "exact"
    elif sorted(ids) == sorted(wanted):
        outcome = "same samples, another order"
    else:
        lost, again = len(set(wanted) - set(ids)), len(set(ids) - set(wanted))
        outcome = f"differs: {lost} of {len(wanted)} lost, {again} others"
    return {"outcome": outcome, "first_s": run["first_s"]}


def measure(
    bench: StreamBenchmark, names: Sequence[str], counts: dict[str, int], repetitions: int, epochs: int
) -> dict[str, Any]:
    """All of it."""
    say = Console(stderr=True).print
    say("writing the samples")
    sets = write_samples(bench.home / "samples", counts)
    prepared: dict[str, dict[str, Any]] = {}
    for kind, samples in sets.items():
        for name in names:
            if LOADERS[name].prepare is Loader.prepare:
                continue  # it reads the tars as they are
            run = bench.run("prepare", name, samples)
            prepared.setdefault(kind, {})[name] = run.get("error") or run["prepare_s"]
    speed: dict[str, Any] = {}
    for kind, samples in sets.items():
        say(f"speed: {kind}")
        speed[kind] = measure_speed(bench, samples, names, repetitions)
        _compare(speed[kind])
    say("resuming")
    resumed = measure_resume(bench, sets["bytes"], names, OTHER_WORKERS)
    resumed += measure_resume(bench, sets["six"], names, ()) if repetitions > 1 else []
    say("memory")
    memory = measure_memory(bench, sets["bytes"], names, epochs)
    return {
        "benchmark": "stream",
        "date": datetime.date.today().isoformat(),
        "command": "python -m benchmarks.stream",
        "machine": machine(),
        "versions": bench.versions([LOADERS[name].package for name in names if LOADERS[name].package]),
        "samples": {
            kind: {"count": counts[kind], "origin": samples.origin} for kind, samples in sets.items()
        },
        "repetitions": repetitions,
        "prepare_s": prepared,
        "speed": speed,
        "resume": resumed,
        "memory": memory,
        "not_measured": NOT_MEASURED,
    }


def _compare(lines: list[dict[str, Any]]) -> None:
    """Marks each line whose payloads are not the floor's. Those the floor has no checksums of are left out."""
    floor = next(line["checksums"] for line in lines if line["loader"] == "floor")
    for line in lines:
        if found := line.pop("checksums", None):
            line["same_payloads"] = all(floor.get(number, value) == value for number, value in found.items())


def show(found: dict[str, Any], console: Console) -> None:
    """The tables."""
    for kind, lines in found["speed"].items():
        _show_speed(console, f"{TITLES[kind]}; {found['samples'][kind]['count']} samples", lines)
    outcomes = [f"to_{workers}" for workers in (2, *OTHER_WORKERS)]
    headings = (
        "loader",
        "set",
        "state",
        "first sample, 2 to 2",
        *(f"2 to {name[3:]} workers" for name in outcomes),
    )
    table = Table(*headings, title="Resumed at half an epoch of 2 workers")
    for line in found["resume"]:
        if "error" in line:
            table.add_row(line["loader"], line["set"], line["error"])
            continue
        latency = line["to_2"].get("first_s")
        cells = [line[name]["outcome"] if name in line else "" for name in outcomes]
        shown = f"{1000 * latency:.0f} ms" if latency is not None else ""
        table.add_row(line["loader"], line["set"], f"{line['state_bytes']:,} B", shown, *cells)
    console.print(table)
    table = Table(
        "loader", "peak", "last", "growth per epoch", title="Memory of bytes, 2 workers, all processes"
    )
    for line in found["memory"]:
        if "error" in line:
            table.add_row(line["loader"], line["error"])
            continue
        slope = line["slope_bytes_per_epoch"]
        grown = "too short to tell" if slope is None else f"{slope / 1e6:+.2f} MB"
        table.add_row(
            line["loader"], f"{line['peak_bytes'] / 1e6:.0f} MB", f"{line['last_bytes'] / 1e6:.0f} MB", grown
        )
    console.print(table)
    for line in found["resume"]:
        for name in outcomes:
            if "error" in line.get(name, {}):
                console.print(
                    f"{line['loader']}, {line['set']}, 2 to {name[3:]}: {line[name]['error']}", markup=False
                )
    console.print("Not measured:", *(f"- {line}" for line in found["not_measured"]), sep="\n")
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    facts = found["machine"]
    console.print(f"{facts['cpu']}, {facts['cores']} cores, {found['date']}; {versions}")
    console.print(*(f"{kind}: {entry['origin']}" for kind, entry in found["samples"].items()), sep="\n")


def _show_speed(console: Console, title: str, lines: list[dict[str, Any]]) -> None:
    columns = ("samples/s", "CPU ms a sample", "first sample", "since start", "peak")
    table = Table("loader", *(f"{name}, {workers}" for workers in WORKERS for name in columns), title=title)
    for name in dict.fromkeys(line["loader"] for line in lines):
        cells: list[str] = []
        for line in (line for line in lines if line["loader"] == name):
            if "error" in line:
                cells += [line["error"], *[""] * (len(columns) - 1)]
                continue
            marks = "" if line.get("same_payloads", True) else " (other payloads)"
            marks += "" if line["distinct"] == line["samples"] else f" ({line['distinct']} distinct)"
            cells += [
                f"{line['samples_per_s']:,.1f}{marks}",
                f"{line['cpu_ms_per_sample']:.2f}",
                f"{1000 * line['first_s']:.0f} ms",
                f"{line['first_since_start_s']:.2f} s",
                f"{line['peak_bytes'] / 1e6:.0f} MB",
            ]
        table.add_row(name, *cells)
    console.print(table)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Streaming loaders side by side.")
    parser.add_argument("--python", default=os.environ.get("MMPACK_PEERS_PYTHON", sys.executable))
    parser.add_argument("--quick", action="store_true", help="few samples, once; writes no results")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--loaders", nargs="+", choices=LOADERS, default=list(LOADERS))
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for one measurement")
    arguments = parser.parse_args()
    names = list(dict.fromkeys(["floor", *arguments.loaders]))
    quick = arguments.quick
    with tempfile.TemporaryDirectory(prefix="mmpack-bench-") as folder:
        (Path(folder) / "samples").mkdir()
        bench = StreamBenchmark(arguments.python, arguments.timeout, Path(folder))
        repetitions, epochs = (1, 3) if quick else (arguments.repetitions, 10)
        found = measure(bench, names, QUICK if quick else COUNTS, repetitions, epochs)
    if not quick:
        RESULT.write_text(json.dumps(found, indent=1) + "\n")
    show(found, Console(width=None if sys.stdout.isatty() else 200))


if __name__ == "__main__":
    main()
