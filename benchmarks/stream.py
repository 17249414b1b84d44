"""Comparison of streaming loaders: speed, time to the first sample, memory, and the samples after a resume.

    python -m benchmarks.stream [--quick] [--python PEERS_VENV/bin/python]

Each measurement runs in a process of its own, with the interpreter that `--python` or MMPACK_PEERS_PYTHON names. Create
its environment once, with this repository installed in it:

    python3 -m venv .peers
    .peers/bin/python -m pip install --requirement benchmarks/peers.txt --editable .

All loaders deliver the same samples (benchmarks/support/stream_inputs.py), each from its own format, with the same decoder,
one at a time; the consumer does not read the payload. The loaders run in turn, and each repetition starts with another
loader. Tables show medians. The floor is a loop of `pread` and the decoder; its worker processes send sample ids only.
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

from benchmarks.support.measure import ROOT, describe_machine
from benchmarks.support.process_tree import resident_bytes
from benchmarks.support.stream_inputs import BenchmarkSamples, write_samples
from benchmarks.support.stream_peers import LOADERS, Loader

RESULT = ROOT / "benchmarks" / "results" / "stream.json"
COUNTS = {"bytes": 2000, "six": 120, "clip": 40}
QUICK = {"bytes": 400, "six": 24, "clip": 12}
WORKERS = (0, 2)
OTHER_WORKERS = (0, 1, 3)
TITLES = {
    "bytes": "bytes: 74 kB per sample, not decoded",
    "six": "six JPEGs of 1600x900 per sample, decoded to 800x450",
    "clip": "2 s of H.264 per sample, 60 frames of 424x240, decoded",
}
NOT_MEASURED = (
    "object stores, networks and a cold page cache: everything is read from the page cache",
    "several ranks; resuming on another number of ranks",
    "batches of several samples, pinned memory, accelerators",
    "mixtures, online packing, filters, damaged samples",
    "Grain's threads (off, as in the other loaders), and settings of a loader other than its defaults",
)
_SAMPLED_S = 0.25


@dataclass(frozen=True)
class StreamBenchmark:
    """The settings of the child processes that measure.

    Attributes:
        python: interpreter whose environment has the other loaders.
        timeout_s: seconds after which a child process is killed.
        home: folder for states and logs.
    """

    python: str
    timeout_s: float
    home: Path

    def run(
        self, job: str, loader: str, samples: BenchmarkSamples, workers: int = 0, *more: str
    ) -> dict[str, Any]:
        """Runs one measurement in a child process.

        Returns:
            The values that the child printed, and `resident`: a list of (time, resident bytes, resident bytes that are
            not file-backed), sampled while it ran. Only `error` if it failed.
        """
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
        # The workers of some loaders outlive the loader's process.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        lines = out.read_text().splitlines()
        if timed_out:
            return {"error": f"no result within {self.timeout_s:.0f} s"}
        if child.returncode or not lines:
            return {"error": _reason(errors.read_text()) or f"exit code {child.returncode}"}
        return json.loads(lines[-1]) | {"resident": resident}

    def versions(self, packages: Sequence[str]) -> dict[str, str]:
        """Returns the versions of packages in the environment of the child processes."""
        program = "import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]))"
        completed = subprocess.run(
            [self.python, "-c", program, *packages], check=True, capture_output=True, text=True
        )
        return dict(zip(packages, completed.stdout.split(), strict=True))


def _reason(log: str) -> str:
    """Returns the first exception of a log, with the line before it if the exception has no message."""
    lines = [line for line in log.splitlines() if line.strip(" ^~")]
    for index, line in enumerate(lines):
        name, _, text = line.partition(":")
        if name.isidentifier() and name.endswith("Error"):
            return (line if text else f"{name}: {lines[index - 1].strip()}")[:200]
    return lines[-1][:200] if lines else ""


def measure_speed(
    bench: StreamBenchmark, samples: BenchmarkSamples, names: Sequence[str], repetitions: int
) -> list[dict[str, Any]]:
    """Measures the speed of each loader with each number of workers; returns one entry for each."""
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {(n, w): [] for w in WORKERS for n in names}
    for repetition in range(repetitions):
        first = repetition % len(names)
        for workers in WORKERS:
            for name in (*names[first:], *names[:first]):
                check = ["--check"] if repetition == 0 else []
                runs[name, workers].append(bench.run("speed", name, samples, workers, *check))
    return [
        {"loader": name, "workers": workers, **_summarise_speed(results)}
        for (name, workers), results in runs.items()
    ]


def _summarise_speed(runs: list[dict[str, Any]]) -> dict[str, Any]:
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
    """Measures the peak, the last value and the growth per epoch of the memory, with two workers.

    The growth does not include the first epoch and file-backed memory.
    """
    lines: list[dict[str, Any]] = []
    for name in names:
        run = bench.run("memory", name, samples, 2, "--epochs", str(epochs))
        line: dict[str, Any] = {"loader": name, "epochs": epochs, "workers": 2}
        if "error" in run:
            lines.append(line | {"error": run["error"]})
            continue
        ends, resident = run["epoch_ends"], run["resident"]
        peaks: list[tuple[int, int]] = []
        for epoch, (start, end) in enumerate(pairwise(ends)):
            values = [anonymous for time_s, _, anonymous in resident if start <= time_s < end]
            if epoch and values:
                peaks.append((epoch, max(values)))
        slope = float(np.polyfit(*np.array(peaks, float).T, deg=1)[0]) if len(peaks) > 2 else None
        # A process that has ended has no resident memory.
        alive = [(time_s, size) for time_s, size, _ in resident if size]
        sizes = [size for time_s, size in alive if ends[0] <= time_s < ends[-1]] or [alive[-1][1]]
        line |= {"peak_bytes": max(sizes), "last_bytes": sizes[-1], "slope_bytes_per_epoch": slope}
        lines.append(line | {"epochs_seen": len(peaks)})
    return lines


def measure_resume(
    bench: StreamBenchmark, samples: BenchmarkSamples, names: Sequence[str], others: Sequence[int]
) -> list[dict[str, Any]]:
    """Saves each loader's state at half an epoch with two workers, and resumes with two and with other numbers of workers.

    Returns:
        One entry per loader: size of the state, seconds to save it, and the outcome for each number of workers.
    """
    lines: list[dict[str, Any]] = []
    for name in names:
        line: dict[str, Any] = {"loader": name, "set": samples.kind}
        lines.append(line)
        if not LOADERS[name].has_state:
            line["error"] = "has no state"
            continue
        state = bench.home / "state"
        saved = bench.run("save", name, samples, 2, "--state", str(state))
        if "error" in saved:
            line["error"] = saved["error"]
            continue
        line |= {key: saved[key] for key in ("state_bytes", "save_s")}
        expected = saved["ids"][len(samples.ranges) // 2 :]
        for workers in (2, *others):
            run = bench.run("resume", name, samples, workers, "--state", str(state))
            line[f"to_{workers}"] = _compare_resumed(run, expected)
    return lines


def _compare_resumed(run: dict[str, Any], expected: list[int]) -> dict[str, Any]:
    """Compares the sample ids after a resume with those of the uninterrupted epoch."""
    if "error" in run:
        return {"outcome": "fails", "error": run["error"]}
    ids = run["ids"]
    if ids == expected:
        outcome = "exact"
    elif sorted(ids) == sorted(expected):
        outcome = "same samples, another order"
    else:
        num_lost, num_other = len(set(expected) - set(ids)), len(set(ids) - set(expected))
        outcome = f"differs: {num_lost} of {len(expected)} lost, {num_other} others"
    return {"outcome": outcome, "first_s": run["first_s"]}


def measure(
    bench: StreamBenchmark, names: Sequence[str], counts: dict[str, int], repetitions: int, epochs: int
) -> dict[str, Any]:
    """Runs all measurements and returns the report."""
    print_progress = Console(stderr=True).print
    print_progress("writing the samples")
    sets = write_samples(bench.home / "samples", counts)
    prepared: dict[str, dict[str, Any]] = {}
    for kind, samples in sets.items():
        for name in names:
            if LOADERS[name].prepare is Loader.prepare:
                continue  # the loader reads the tars directly
            run = bench.run("prepare", name, samples)
            prepared.setdefault(kind, {})[name] = run.get("error") or run["prepare_s"]
    speed: dict[str, Any] = {}
    for kind, samples in sets.items():
        print_progress(f"speed: {kind}")
        speed[kind] = measure_speed(bench, samples, names, repetitions)
        _compare_payloads(speed[kind])
    print_progress("resuming")
    resumed = measure_resume(bench, sets["bytes"], names, OTHER_WORKERS)
    resumed += measure_resume(bench, sets["six"], names, ()) if repetitions > 1 else []
    print_progress("memory")
    memory = measure_memory(bench, sets["bytes"], names, epochs)
    return {
        "benchmark": "stream",
        "date": datetime.date.today().isoformat(),
        "command": "python -m benchmarks.stream",
        "machine": describe_machine(),
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


def _compare_payloads(lines: list[dict[str, Any]]) -> None:
    """Adds to each line whether its payloads equal those of the floor, for samples whose checksum the floor has."""
    floor = next(line["checksums"] for line in lines if line["loader"] == "floor")
    for line in lines:
        if checksums := line.pop("checksums", None):
            line["same_payloads"] = all(floor.get(id_, value) == value for id_, value in checksums.items())


def print_report(report: dict[str, Any], console: Console) -> None:
    """Prints the tables of a report."""
    for kind, lines in report["speed"].items():
        _print_speed(console, f"{TITLES[kind]}; {report['samples'][kind]['count']} samples", lines)
    outcomes = [f"to_{workers}" for workers in (2, *OTHER_WORKERS)]
    headings = (
        "loader",
        "set",
        "state",
        "first sample, 2 to 2 workers",
        *(f"2 to {name[3:]} workers" for name in outcomes),
    )
    table = Table(*headings, title="Resumed at half an epoch with 2 workers")
    for line in report["resume"]:
        if "error" in line:
            table.add_row(line["loader"], line["set"], line["error"])
            continue
        latency = line["to_2"].get("first_s")
        cells = [line[name]["outcome"] if name in line else "" for name in outcomes]
        latency_text = f"{1000 * latency:.0f} ms" if latency is not None else ""
        table.add_row(line["loader"], line["set"], f"{line['state_bytes']:,} B", latency_text, *cells)
    console.print(table)
    table = Table(
        "loader", "peak", "last", "growth per epoch", title="Memory of all processes: bytes, 2 workers"
    )
    for line in report["memory"]:
        if "error" in line:
            table.add_row(line["loader"], line["error"])
            continue
        slope = line["slope_bytes_per_epoch"]
        growth = "too few epochs" if slope is None else f"{slope / 1e6:+.2f} MB"
        table.add_row(
            line["loader"], f"{line['peak_bytes'] / 1e6:.0f} MB", f"{line['last_bytes'] / 1e6:.0f} MB", growth
        )
    console.print(table)
    for line in report["resume"]:
        for name in outcomes:
            if "error" in line.get(name, {}):
                console.print(
                    f"{line['loader']}, {line['set']}, 2 to {name[3:]}: {line[name]['error']}", markup=False
                )
    console.print("Not measured:", *(f"- {line}" for line in report["not_measured"]), sep="\n")
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    computer = report["machine"]
    console.print(f"{computer['cpu']}, {computer['cores']} cores, {report['date']}; {versions}")
    console.print(*(f"{kind}: {entry['origin']}" for kind, entry in report["samples"].items()), sep="\n")


def _print_speed(console: Console, title: str, lines: list[dict[str, Any]]) -> None:
    columns = ("samples/s", "CPU ms per sample", "first sample", "since start", "peak")
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
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Compare streaming loaders.")
    parser.add_argument("--python", default=os.environ.get("MMPACK_PEERS_PYTHON", sys.executable))
    parser.add_argument("--quick", action="store_true", help="measure few samples once, and write no results")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--loaders", nargs="+", choices=LOADERS, default=list(LOADERS))
    parser.add_argument("--timeout", type=float, default=120.0, help="limit in seconds for one measurement")
    arguments = parser.parse_args()
    names = list(dict.fromkeys(["floor", *arguments.loaders]))
    quick = arguments.quick
    with tempfile.TemporaryDirectory(prefix="mmpack-bench-") as folder:
        (Path(folder) / "samples").mkdir()
        bench = StreamBenchmark(arguments.python, arguments.timeout, Path(folder))
        repetitions, epochs = (1, 3) if quick else (arguments.repetitions, 10)
        report = measure(bench, names, QUICK if quick else COUNTS, repetitions, epochs)
    if not quick:
        RESULT.write_text(json.dumps(report, indent=1) + "\n")
    print_report(report, Console(width=None if sys.stdout.isatty() else 200))


if __name__ == "__main__":
    main()
