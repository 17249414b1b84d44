"""CPU time of packing and fill of the rows, compared with other packers, and the balance of steps.

    python -m benchmarks.packing

Times are CPU seconds without compilation, medians of interleaved runs in one process. The floor is a counting sort of
the lengths and a gather at random indices: the cost of returning the items if the plan itself were free. Peers that
are not installed are listed as such. Their inputs (a list or an array) are prepared before the clock starts.
"""

from __future__ import annotations

import ast
import gc
import importlib
import importlib.util
import json
import statistics
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.support.measure import describe_machine, measure_interleaved, median_ratio
from benchmarks.support.packing_inputs import (
    lognormal,
    long_texts,
    mixes,
    multimodal_runs,
    python_text_lengths,
)
from mmpack.packing import RunLengths, balance_rows, pack, pack_runs, pack_stream, row_costs

RESULTS = Path(__file__).resolve().parent / "results" / "packing.json"
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
#: Largest number of items on which each peer is timed, so that the benchmark ends within minutes.
MAX_PEER_ITEMS = {
    "LightBinPack obfd": 10_000_000,
    "next-fit": 1_000_000,
    "TRL best fit": 1_000_000,
    "binpacking": 10_000,
}
Rows = Sequence[Sequence[int]]


@njit(cache=True)
def _run_floor(lengths: Any, indices: Any, capacity: int) -> Any:
    start = np.zeros(capacity + 2, np.uint64)
    for i in range(lengths.size):
        start[np.uint64(lengths[i]) + np.uint64(1)] += np.uint64(1)
    for v in range(1, capacity + 2):
        start[v] += start[v - 1]
    ordered = np.empty(lengths.size, np.int32)
    for i in range(lengths.size):
        v = np.uint64(lengths[i])
        ordered[start[v]] = i
        start[v] += np.uint64(1)
    ids = np.empty(lengths.size, np.int64)
    for i in range(lengths.size):
        ids[i] = ordered[indices[i]]
    return ids


def next_fit(lengths: list[int], capacity: int) -> Rows:
    """Packs with next-fit, the simplest baseline: the first item that does not fit closes the row."""
    rows: list[list[int]] = []
    free_space = -1
    for item, length in enumerate(lengths):
        if length > free_space:
            rows.append([])
            free_space = capacity
        rows[-1].append(item)
        free_space -= length
    return rows


def find_peers() -> dict[str, Callable[[list[int], int], int | tuple[int, float]]]:
    """Returns the installed peers by name: functions from (lengths, capacity) to the number of rows."""
    packers: dict[str, Callable[[list[int], int], int | tuple[int, float]]] = {
        "next-fit": lambda items, c: len(next_fit(items, c))
    }
    if importlib.util.find_spec("lightbinpack"):
        lightbinpack = importlib.import_module("lightbinpack")
        packers["LightBinPack obfd"] = lambda items, c: len(lightbinpack.obfd(items, c))
    if importlib.util.find_spec("binpacking"):
        binpacking = importlib.import_module("binpacking")
        packers["binpacking"] = lambda items, c: len(binpacking.to_constant_volume(dict(enumerate(items)), c))
    spec = importlib.util.find_spec("trl")
    if spec and spec.origin:
        packers["TRL best fit"] = _load_trl(Path(spec.origin).parent / "data_utils.py")
    return packers


class _PackingPlannedError(Exception):
    """An exception raised where TRL would start to copy tokens; its args are (rows, CPU seconds of the packing)."""


def _load_trl(path: Path) -> Callable[[list[int], int], tuple[int, float]]:
    """Loads TRL's own `_pack_bfd` from its source and times it from its segment tree to the copying of tokens.

    `trl` itself cannot be imported without transformers. Copying tokens takes several times as long as packing and is
    not part of the comparison.
    """
    required = {"_SegmentTree", "_pack_bfd", "_check_if_columns_can_be_packed"}
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if getattr(node, "name", None) in required]
    start_s = [0.0]

    class Compute:
        def __getattr__(self, name: str) -> Any:
            return getattr(pc, name)

        def take(self, *_: object) -> None:
            taken_s = time.process_time() - start_s[0]
            raise _PackingPlannedError(len(sys._getframe(1).f_locals["bins"]), taken_s)

    namespace: dict[str, Any] = {"pyarrow": pa, "pa": pa, "pc": Compute(), "np": np, "Literal": Literal}
    namespace |= {"defaultdict": defaultdict, "deque": deque}
    exec(compile(tree, str(path), "exec"), namespace)
    segment_tree = namespace["_SegmentTree"]

    def timed_tree(capacity: int) -> Any:
        start_s[0] = time.process_time()
        return segment_tree(capacity)

    namespace["_SegmentTree"] = timed_tree

    def pack_items(items: list[int], capacity: int) -> tuple[int, float]:
        offsets = np.concatenate([[0], np.cumsum(items)])
        tokens = pa.array(np.zeros(int(offsets[-1]), np.int8))
        table = pa.table({"tokens": pa.LargeListArray.from_arrays(pa.array(offsets), tokens)})
        try:
            namespace["_pack_bfd"](table, capacity)
        except _PackingPlannedError as planned:
            rows, taken_s = planned.args
            return rows, taken_s
        raise RuntimeError("TRL's packing no longer ends in pc.take: adapt the timing to the new version")

    return pack_items


def median_seconds(job: Callable[[], object], repetitions: int) -> float:
    """Measures the median CPU seconds of a job after one run that is not counted."""
    return statistics.median(
        measure_interleaved({"job": lambda: (job(), None)[1]}, repetitions=repetitions)["job"]
    )


def run_once(job: Callable[[], int | tuple[int, float]]) -> tuple[int, float]:
    """Returns (rows, CPU seconds) of a single run; a job that measures its own time returns both."""
    gc.collect()
    start_s = time.process_time()
    result = job()
    return result if isinstance(result, tuple) else (result, time.process_time() - start_s)


def measure_speed() -> list[dict[str, Any]]:
    """Measures mmpack, the floor and the peers at each size of the lognormal mix."""
    entries = []
    for n in SIZES:
        lengths, capacity = lognormal(n)
        indices = np.random.default_rng(0).permutation(n).astype(np.int32)
        jobs = {
            "floor": lambda lengths=lengths, indices=indices, capacity=capacity: _run_floor(
                lengths, indices, capacity
            ),
            "pack": lambda lengths=lengths, capacity=capacity: pack(lengths, capacity),
            "best fit decreasing alone": lambda lengths=lengths, capacity=capacity: pack(
                lengths, capacity, effort=0
            ),
        }
        times = measure_interleaved(jobs, repetitions=5 if n > 1_000_000 else 15)
        entry = {"n": n, "over_floor": 1 / median_ratio(times, "floor", "pack")}
        entry["cpu_s"] = {name: statistics.median(time_s) for name, time_s in times.items()}
        entry["fill"] = {"pack": pack(lengths, capacity).fill}
        items = lengths.tolist()
        tokens = int(lengths.sum())
        for name, job in find_peers().items():
            if n > MAX_PEER_ITEMS[name]:
                continue
            is_slow = name in ("TRL best fit", "binpacking") or n > 1_000_000
            rows, taken_s = run_once(lambda job=job, items=items, capacity=capacity: job(items, capacity))
            if not is_slow:
                taken_s = median_seconds(
                    lambda job=job, items=items, capacity=capacity: job(items, capacity), 3
                )
            entry["cpu_s"][name] = taken_s
            entry["fill"][name] = tokens / (rows * capacity)
        entries.append(entry)
    return entries


def measure_fill(n: int = 100_000) -> list[dict[str, Any]]:
    """Measures the fill of every mix by every packer."""
    entries = []
    for name, (lengths, capacity) in {**mixes(n), **python_text_lengths()}.items():
        tokens, items = int(lengths.sum()), lengths.tolist()
        packing = pack(lengths, capacity)

        def share(rows: int, tokens: int = tokens, capacity: int = capacity) -> float:
            return tokens / (rows * capacity)

        fill = {
            "bound": packing.fill_bound,
            "pack": packing.fill,
            "best fit decreasing": pack(lengths, capacity, effort=0).fill,
            "pack_stream 1,000": share(sum(1 for _ in pack_stream(items, capacity, length=int))),
            "pack_stream 64": share(sum(1 for _ in pack_stream(items, capacity, pool=64, length=int))),
        }
        if name == "mm8k":
            cut = pack_runs(RunLengths(*multimodal_runs(n, capacity)), capacity)
            fill["cut_chains"] = cut.packing.fill
        for peer, job in find_peers().items():
            if lengths.size <= MAX_PEER_ITEMS[peer]:
                rows = job(items, capacity)
                fill[peer] = share(rows[0] if isinstance(rows, tuple) else rows)
        entry = {
            "mix": name,
            "n": lengths.size,
            "capacity": capacity,
            "distinct": int(np.unique(lengths).size),
        }
        entry |= {"rows": packing.rows, "gap": packing.excess_rows, "fill": fill}
        entry["cpu_s"] = median_seconds(lambda lengths=lengths, capacity=capacity: pack(lengths, capacity), 5)
        entries.append(entry)
    return entries


def measure_stream_and_cuts(n: int = 100_000) -> dict[str, Any]:
    """Measures the cost of `pack_stream` and `pack_runs`, and the number of cuts."""
    runs = RunLengths(*multimodal_runs(n, 8192))
    items = lognormal(1_000_000)[0].tolist()
    result: dict[str, Any] = {
        "stream_1e6_cpu_s": median_seconds(lambda: list(pack_stream(items, 4096, length=int)), 3)
    }
    result["cuts"] = []
    for fill in (0.0, 0.999, 0.9998, 1.0):
        cut = pack_runs(runs, 8192, fill=fill)
        cpu_s = median_seconds(lambda fill=fill: pack_runs(runs, 8192, fill=fill), 3)
        result["cuts"].append(
            {"asked": fill, "fill": cut.packing.fill, "cuts": cut.cuts, "gap": cut.packing.excess_rows}
        )
        result["cuts"][-1]["cpu_s"] = cpu_s
    return result


def measure_balance() -> list[dict[str, Any]]:
    """Measures the mean utilisation of the steps and the efficiency of the schedule for the long texts."""
    lengths, capacity = long_texts()
    entries = []
    for level in (False, True):
        for linear in (0.0, 24_576.0):
            for ranks in (8, 64):
                full = _balance(lengths, capacity, ranks, level, linear)
                items = 64 * ranks * capacity // 2500
                windows = [
                    _balance(lengths[start : start + items], capacity, ranks, level, linear)
                    for start in range(0, lengths.size - items + 1, items)
                ]
                entry = {"level": level, "linear": linear, "ranks": ranks}
                for name, values in (("all", full), ("window", np.mean(windows, axis=0))):
                    entry[name] = dict(zip(("steps", "schedule", "fill"), map(float, values), strict=True))
                entries.append(entry)
    return entries


def _balance(
    lengths: NDArray[np.int64], capacity: int, ranks: int, level: bool, linear: float
) -> list[float]:
    packing = pack(lengths, capacity, level=level)
    schedule = balance_rows(row_costs(packing, lengths, linear=linear), global_batch=ranks, ranks=ranks)
    return [float(schedule.utilisation.mean()), schedule.efficiency, packing.fill]


def show(console: Console, results: dict[str, Any]) -> None:
    """Prints the tables."""
    table = Table(title="CPU seconds, lognormal mix, item ids included")
    names = list(dict.fromkeys(name for entry in results["speed"] for name in entry["cpu_s"]))
    for column in ("n", *names, "pack / floor"):
        table.add_column(column, justify="right")
    for entry in results["speed"]:
        times = (entry["cpu_s"].get(name) for name in names)
        cells = [f"{time_s:.4g}" if time_s is not None else "" for time_s in times]
        table.add_row(f"{entry['n']:,}", *cells, f"{entry['over_floor']:.2f}")
    console.print(table)
    table = Table(title="Fill, %")
    names = list(dict.fromkeys(name for entry in results["fills"] for name in entry["fill"]))
    for column in ("mix", "items", *names, "rows above the bound", "ms"):
        table.add_column(column, justify="right")
    for entry in results["fills"]:
        cells = [f"{100 * entry['fill'][name]:.3f}" if name in entry["fill"] else "" for name in names]
        table.add_row(
            entry["mix"],
            f"{entry['n']:,}",
            *cells,
            f"{entry['gap']} of {entry['rows']:,}",
            f"{1e3 * entry['cpu_s']:.1f}",
        )
    console.print(table)
    for cut in results["others"]["cuts"]:
        console.print(
            f"runs, mm8k: fill {cut['fill']:.4%} with {cut['cuts']:,} cuts, {1e3 * cut['cpu_s']:.0f} ms"
        )
    console.print(f"pack_stream, 1e6 lognormal: {results['others']['stream_1e6_cpu_s']:.2f} CPU s")
    table = Table(
        title="Balance of long texts, one row per rank: mean utilisation of steps / efficiency of the schedule / fill, %"
    )
    for column in ("level", "linear", "ranks", "all", "windows of 64 steps"):
        table.add_column(column, justify="right")
    for entry in results["balance"]:
        cells = [
            " / ".join(f"{100 * value:.2f}" for value in entry[key].values()) for key in ("all", "window")
        ]
        table.add_row(str(entry["level"]), f"{entry['linear']:.0f}", str(entry["ranks"]), *cells)
    console.print(table)
    for name in sorted(set(MAX_PEER_ITEMS) - set(find_peers())):
        console.print(f"{name}: not installed")


def _read_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def main() -> None:
    """Measures, prints and writes the result."""
    results = {
        "machine": describe_machine()
        | {name: _read_version(name) for name in ("numba", "trl", "lightbinpack", "binpacking")},
        "speed": measure_speed(),
        "fills": measure_fill(),
        "others": measure_stream_and_cuts(),
        "balance": measure_balance(),
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    show(Console(width=200 if not sys.stdout.isatty() else None), results)


if __name__ == "__main__":
    main()
