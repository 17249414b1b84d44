"""Benchmark of planning: opening an index of ten million samples, planning, saving a state and resuming from it.

    python -m benchmarks.plan [--samples 10000000] [--rows 1000000]

Opening and resuming are measured in fresh processes. The index is synthetic, without media. The mix at the end consists of
real recordings and is measured only if they are available.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.support.measure import REAL_DATA, ROOT, describe_machine
from mmpack.mixture import PhaseConfig
from mmpack.plan import read_state
from mmpack.plan.balance_report import compare_balance_modes
from mmpack.plan.plan_config import DatasetConfig
from mmpack.serialisation import from_json
from mmpack.stream import PlanConfig, load_plan_config, open_plan
from tools.make_index import IndexSource, make_index

RESULTS = Path(__file__).resolve().parent / "results" / "plan.json"
NAMES = ("drive", "robot", "texts", "speech")
#: Number of tokens of a phase, so large that the benchmark never leaves the first phase.
_LONG = "1T"


def make_index_folder(folder: Path, samples: int) -> Path:
    """Writes a synthetic index: half of the samples are texts, the others are speech and slices of two sources in runs."""
    random = np.random.default_rng(20260823)
    drive, robot, speech = samples // 5, samples // 10, samples // 10
    texts = samples - drive - robot - speech
    return make_index(
        folder,
        [
            IndexSource(name="drive", kind="slice", tokens=np.full(drive, 1600), runs=np.arange(drive) // 40),
            IndexSource(name="robot", kind="slice", tokens=np.full(robot, 416), runs=np.arange(robot) // 300),
            IndexSource(
                name="texts",
                kind="text",
                tokens=np.clip(np.rint(random.lognormal(np.log(400) - 0.5, 1, texts)), 5, 8000).astype(
                    np.int64
                ),
            ),
            IndexSource(
                name="speech",
                kind="text",
                tokens=np.rint(50 * np.clip(random.lognormal(np.log(8), 0.8, speech), 1, 60)).astype(np.int64)
                + 4,
            ),
        ],
    )


def make_config(folder: Path, num_datasets: int = len(NAMES)) -> PlanConfig:
    """Returns a plan with three phases over :func:`make_index_folder`.

    If there are more data sets than sources, several data sets have the same source.
    """
    return PlanConfig(
        max_seq_len=8192,
        global_batch=24,
        datasets=tuple(
            DatasetConfig(name=f"{NAMES[i % 4]}{i // 4 or ''}", shards=str(folder), select=(NAMES[i % 4],))
            for i in range(num_datasets)
        ),
        phases=(
            PhaseConfig(name="cold", tokens=_LONG, temperature=1.2),
            PhaseConfig(name="mid", tokens=_LONG, temperature=(3.0, 5.0)),
            PhaseConfig(name="hot", temperature=1.5),
        ),
    )


def read_memory_usage() -> dict[str, int]:
    """Returns the resident memory of this process in bytes: total, anonymous, and pages of mapped files."""
    lines = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line
    )
    return {name: int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon", "RssFile")}


def child_open(folder: str) -> dict[str, Any]:
    """Opens the index and plans; returns times and memory usage."""
    before = read_memory_usage()
    start, start_cpu = time.perf_counter(), time.process_time()
    plan = open_plan(make_config(Path(folder)), window_starts=False)
    report: dict[str, Any] = {
        "samples": len(plan.catalogs[0]),
        "open_s": time.perf_counter() - start,
        "open_cpu_s": time.process_time() - start_cpu,
        "before": before,
        "opened": read_memory_usage(),
    }
    start = time.perf_counter()
    plan.row(0)
    report["first_row_s"] = time.perf_counter() - start
    start, documents, tokens, rows = time.process_time(), 0, 0, 0
    for number in range(1, 41):
        window = plan.window(number)
        documents, tokens, rows = (
            documents + len(window.tokens),
            tokens + int(window.tokens.sum()),
            rows + window.rows,
        )
    planning_s = time.process_time() - start
    report |= {
        "documents": documents,
        "us_per_document": 1e6 * planning_s / documents,
        "ms_per_window": 1e3 * planning_s / 40,
        "fill": tokens / (rows * plan.config.max_seq_len),
        "planned": read_memory_usage(),
    }
    start = time.process_time()
    for number in range(400):
        plan.row(41 * plan.rows_per_window + number)
    report["ms_per_row_handed_out"] = 1e3 * (time.process_time() - start) / 400
    return report


def child_resume(folder: str, state: str) -> dict[str, Any]:
    """Opens the plan, loads a state and plans the next row; returns the times."""
    start = time.perf_counter()
    plan = open_plan(make_config(Path(folder)), window_starts=False)
    opened = time.perf_counter()
    saved = read_state(from_json(Path(state).read_bytes()))
    plan.load_state(saved)
    row = plan.row(saved.row)
    return {
        "open_s": opened - start,
        "resume_s": time.perf_counter() - opened,
        "row": row.number,
        "first": row.documents[0].samples[0].key,
    }


def child_past(folder: str, row: str) -> dict[str, Any]:
    """Plans an earlier row again, whose window start is recorded on disk; returns the time."""
    plan = open_plan(make_config(Path(folder)))
    # The first row loads the compiled functions, which is not measured.
    plan.row(0)
    start = time.perf_counter()
    planned = plan.row(int(row))
    return {"past_row_ms": 1e3 * (time.perf_counter() - start), "first": planned.documents[0].samples[0].key}


def run_in_child(*arguments: str) -> dict[str, Any]:
    """Runs a child function of this file in a fresh process and returns its report."""
    completed = subprocess.run(
        [sys.executable, "-m", "benchmarks.plan", "--child", *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    return json.loads(completed.stdout.splitlines()[-1])


def measure(folder: Path, samples: int, rows: int) -> dict[str, Any]:
    """Measures opening, planning and resuming on a synthetic index."""
    make_index_folder(folder, samples)
    index_bytes = (folder / "index.parquet").stat().st_size
    first_open = run_in_child("open", str(folder))
    reopened = [run_in_child("open", str(folder)) for _ in range(3)]
    plan = open_plan(make_config(folder))
    half = rows // 2 // plan.config.global_batch * plan.config.global_batch
    start = time.process_time()
    expected = plan.row(half)
    forward_s = time.process_time() - start
    state = msgspec.json.encode(plan.state(half, 1))
    (folder / "state.json").write_bytes(state)
    resumed = [run_in_child("resume", str(folder), str(folder / "state.json")) for _ in range(3)]
    if any(report["first"] != expected.documents[0].samples[0].key for report in resumed):
        raise SystemExit("a resumed plan gives another row")
    past = run_in_child("past", str(folder), str(half // 3))
    sizes = {}
    for count in (4, 10, 16, 50):
        larger_plan = open_plan(make_config(folder, count), window_starts=False)
        larger_plan.row(0)
        sizes[count] = len(msgspec.json.encode(larger_plan.state(larger_plan.rows_per_window, 8)))
    columns = plan.catalogs[0].columns.arrays
    return {
        "index_bytes": index_bytes,
        "bytes_per_sample": sum(array.itemsize for array in columns.values()),
        "first_open": first_open,
        "open": reopened,
        "rows": rows,
        "planned_to_half_cpu_s": forward_s,
        "resume": resumed,
        "past": past,
        "state_bytes": {"4 data sets": len(state)}
        | {f"{n} data sets, start": size for n, size in sizes.items()},
    }


def real_mix(folder: Path) -> dict[str, Any] | None:
    """Measures fill, balance and the time share of planning on a mix of real recordings; returns None without them."""
    if not REAL_DATA.is_dir():
        return None
    from mmpack.stream.profile import profile_rows
    from tools.real_mix import make_real_mix

    make_real_mix(folder, REAL_DATA)
    config = load_plan_config(folder / "plan.toml")
    report: dict[str, Any] = {"windows": {}}
    for steps in (config.window_steps, 64):
        plan = open_plan(msgspec.structs.replace(config, window_steps=steps), window_starts=False)
        rows = tokens = documents = 0
        for number in range(1000):
            window = plan.window(number)
            rows, tokens = rows + window.rows, tokens + int(window.tokens.sum())
            documents += len(window.tokens)
            if window.end is None:
                break
        entry: dict[str, Any] = {
            "rows": rows,
            "documents": documents,
            "fill": tokens / rows / config.max_seq_len,
            "balance": {},
        }
        for ranks in (24, 8, 4):
            windows = -(-rows // plan.rows_per_window)
            entry["balance"][str(ranks)] = [
                {"mode": mode.mode, "utilisation": mode.utilisation, "worst_step": mode.worst_step,
                 "length_spread": mode.length_spread, "share_error": mode.share_error, "fill": mode.fill}
                for mode in compare_balance_modes(plan, ranks=ranks, windows=windows)
            ]  # fmt: skip
        report["windows"][str(steps)] = entry
    plan = open_plan(config, window_starts=False)
    ms_per_row = profile_rows(plan, rows=24, first_step=10)
    report["ms_per_row"] = ms_per_row
    report["plan_share"] = ms_per_row["plan"] / sum(ms_per_row.values())
    return report


def show(console: Console, results: dict[str, Any]) -> None:
    """Prints the results as tables."""
    synthetic, first_open = results["made"], results["made"]["first_open"]
    middle = sorted(synthetic["open"], key=lambda report: report["open_s"])[1]
    resumed = sorted(synthetic["resume"], key=lambda report: report["resume_s"])[1]
    table = Table(title=f"A plan over {first_open['samples']:,} samples", show_header=False)
    mb = 1e-6
    for name, value in (
        ("index.parquet", f"{mb * synthetic['index_bytes']:.0f} MB"),
        ("first opening, which fills the cache", f"{first_open['open_s']:.2f} s"),
        ("opening, fresh process", f"{middle['open_s']:.3f} s"),
        (
            "resident memory after opening (of which imports)",
            f"{mb * middle['opened']['VmRSS']:.0f} MB ({mb * middle['before']['VmRSS']:.0f})",
        ),
        (
            "resident memory after 41 windows (own / pages of the index)",
            f"{mb * middle['planned']['RssAnon']:.0f} / {mb * middle['planned']['RssFile']:.0f} MB",
        ),
        ("first row after opening", f"{middle['first_row_s']:.3f} s"),
        ("planning, per document", f"{middle['us_per_document']:.2f} us CPU"),
        ("planning, per window of 1,536 rows", f"{middle['ms_per_window']:.1f} ms CPU"),
        ("looking up the samples of a row", f"{middle['ms_per_row_handed_out']:.2f} ms CPU"),
        ("fill", f"{middle['fill']:.3%}"),
        (f"resume at 50 % of {synthetic['rows']:,} rows, after opening", f"{resumed['resume_s']:.3f} s"),
        ("resume including opening", f"{resumed['open_s'] + resumed['resume_s']:.3f} s"),
        ("an earlier row with recorded window starts", f"{synthetic['past']['past_row_ms']:.0f} ms"),
        (
            "an earlier row without them: planning all rows before",
            f"{synthetic['planned_to_half_cpu_s']:.1f} s CPU",
        ),
        *((f"state, {name}", f"{size} bytes") for name, size in synthetic["state_bytes"].items()),
    ):
        table.add_row(name, value)
    console.print(table)
    mix = results["real_mix"]
    if mix is None:
        console.print("the mix of real recordings was not measured, because there are no real recordings")
        return
    table = Table(title="The mix of real recordings")
    for column in (
        "window",
        "rows",
        "fill",
        "ranks",
        "balance",
        "utilisation",
        "worst step",
        "length spread",
        "share error",
    ):
        table.add_column(column, justify="right")
    for steps, entry in mix["windows"].items():
        for ranks, modes in entry["balance"].items():
            for mode in modes:
                table.add_row(
                    f"{steps} steps", f"{entry['rows']:,}", f"{mode['fill']:.3%}", ranks, mode["mode"],
                    *(f"{mode[name]:.4f}" for name in ("utilisation", "worst_step", "length_spread", "share_error")),
                )  # fmt: skip
    console.print(table)
    times = ", ".join(f"{name} {ms:.2f} ms" for name, ms in mix["ms_per_row"].items())
    console.print(f"CPU time of one row in one thread: {times}; share of planning: {mix['plan_share']:.2%}")


def main() -> None:
    """Measures, prints and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, *arguments = options.child
        jobs = {"open": child_open, "resume": child_resume, "past": child_past}
        print(json.dumps(jobs[name](*arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MMPACK_CACHE"] = str(Path(folder) / "cache")
        results = {
            "machine": describe_machine(),
            "made": measure(Path(folder) / "index", options.samples, options.rows),
            "real_mix": real_mix(Path(folder) / "mix"),
        }
    if options.samples >= 10_000_000:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    show(Console(width=None if sys.stdout.isatty() else 160), results)


if __name__ == "__main__":
    main()
