"""What packing costs and how full rows get, beside other packers, and how even balanced steps are.

    python -m benchmarks.packing

CPU seconds without compilation, medians of interleaved runs in one process. The floor is a counting sort of the
lengths and a gather at random places: what handing out items costs when the plan is free. Peers that are not
installed are named as such. They are given what they take (a list or an array) before the clock starts.
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
from mmpack.packing import balance_rows, pack, pack_runs, pack_stream, row_costs

RESULTS = Path(__file__).resolve().parent / "results" / "packing.json"
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
#: A peer is not timed on more items than these, to end within minutes.
LARGEST = {
    "LightBinPack obfd": 10_000_000,
    "next-fit": 1_000_000,
    "TRL best fit": 1_000_000,
    "binpacking": 10_000,
}
Rows = Sequence[Sequence[int]]


@njit(cache=True)
def _floor(lengths: Any, places: Any, capacity: int) -> Any:
    place = np.zeros(capacity + 2, np.uint64)
    for i in range(lengths.size):
        place[np.uint64(lengths[i]) + np.uint64(1)] += np.uint64(1)
    for v in range(1, capacity + 2):
        place[v] += place[v - 1]
    ordered = np.empty(lengths.size, np.int32)
    for i in range(lengths.size):
        v = np.uint64(lengths[i])
        ordered[place[v]] = i
        place[v] += np.uint64(1)
    ids = np.empty(lengths.size, np.int64)
    for i in range(lengths.size):
        ids[i] = ordered[places[i]]
    return ids


def next_fit(lengths: list[int], capacity: int) -> Rows:
    """The plain baseline: a row is closed by the first item that does not fit."""
    rows: list[list[int]] = []
    hole = -1
    for item, length in enumerate(lengths):
        if length > hole:
            rows.append([])
            hole = capacity
        rows[-1].append(item)
        hole -= length
    return rows


def peers() -> dict[str, Callable[[list[int], int], int | tuple[int, float]]]:
    """By name: (lengths, capacity) to how many rows; only what is installed."""
    found: dict[str, Callable[[list[int], int], int | tuple[int, float]]] = {
        "next-fit": lambda items, c: len(next_fit(items, c))
    }
    if importlib.util.find_spec("lightbinpack"):
        lightbinpack = importlib.import_module("lightbinpack")
        found["LightBinPack obfd"] = lambda items, c: len(lightbinpack.obfd(items, c))
    if importlib.util.find_spec("binpacking"):
        binpacking = importlib.import_module("binpacking")
        found["binpacking"] = lambda items, c: len(binpacking.to_constant_volume(dict(enumerate(items)), c))
    spec = importlib.util.find_spec("trl")
    if spec and spec.origin:
        found["TRL best fit"] = _trl(Path(spec.origin).parent / "data_utils.py")
    return found


class _PackingPlannedError(Exception):
    """Raised where TRL would begin to copy tokens; carries (rows, CPU seconds of its packing)."""


def _trl(path: Path) -> Callable[[list[int], int], tuple[int, float]]:
    """TRL's own `_pack_bfd`, run from where it is installed, and timed from its segment tree to its copying of tokens.

    `trl` itself cannot be imported without transformers; what moves tokens about takes several times as long as packing and
    is not what is compared.
    """
    wanted = {"_SegmentTree", "_pack_bfd", "_check_if_columns_can_be_packed"}
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if getattr(node, "name", None) in wanted]
    began = [0.0]

    class Compute:
        def __getattr__(self, name: str) -> Any:
            return getattr(pc, name)

        def take(self, *_: object) -> None:
            taken_s = time.process_time() - began[0]
            raise _PackingPlannedError(len(sys._getframe(1).f_locals["bins"]), taken_s)

    names: dict[str, Any] = {"pyarrow": pa, "pa": pa, "pc": Compute(), "np": np, "Literal": Literal}
    names |= {"defaultdict": defaultdict, "deque": deque}
    exec(compile(tree, str(path), "exec"), names)
    segment_tree = names["_SegmentTree"]

    def timed_tree(capacity: int) -> Any:
        began[0] = time.process_time()
        return segment_tree(capacity)

    names["_SegmentTree"] = timed_tree

    def packed(items: list[int], capacity: int) -> tuple[int, float]:
        offsets = np.concatenate([[0], np.cumsum(items)])
        tokens = pa.array(np.zeros(int(offsets[-1]), np.int8))
        table = pa.table({"tokens": pa.LargeListArray.from_arrays(pa.array(offsets), tokens)})
        try:
            names["_pack_bfd"](table, capacity)
        except _PackingPlannedError as planned:
            rows, taken_s = planned.args
            return rows, taken_s
        raise RuntimeError("TRL's packing no longer ends in pc.take: time it anew")

    return packed


def seconds(job: Callable[[], object], repetitions: int) -> float:
    """Median CPU seconds of a job that was run once before."""
    return statistics.median(
        measure_interleaved({"job": lambda: (job(), None)[1]}, repetitions=repetitions)["job"]
    )


def run_once(job: Callable[[], int | tuple[int, float]]) -> tuple[int, float]:
    """(rows, CPU seconds) of a single run; a job that times itself is believed."""
    gc.collect()
    start_s = time.process_time()
    result = job()
    return result if isinstance(result, tuple) else (result, time.process_time() - start_s)


def speed() -> list[dict[str, Any]]:
    """Ours against the floor, and peers, at each size of the lognormal mix."""
    done = []
    for n in SIZES:
        lengths, capacity = lognormal(n)
        places = np.random.default_rng(0).permutation(n).astype(np.int32)
        jobs = {
            "floor": lambda lengths=lengths, places=places, capacity=capacity: _floor(
                lengths, places, capacity
            ),
            "pack": lambda lengths=lengths, capacity=capacity: pack(lengths, capacity),
            "best fit decreasing alone": lambda lengths=lengths, capacity=capacity: pack(
                lengths, capacity, effort=0
            ),
        }
        times = measure_interleaved(jobs, repetitions=5 if n > 1_000_000 else 15)
        entry = {"n": n, "over_floor": 1 / median_ratio(times, "floor", "pack")}
        entry["cpu_s"] = {name: statistics.median(taken) for name, taken in times.items()}
        entry["fill"] = {"pack": pack(lengths, capacity).fill}
        items = lengths.tolist()
        tokens = int(lengths.sum())
        for name, job in peers().items():
            if n > LARGEST[name]:
                continue
            slow = name in ("TRL best fit", "binpacking") or n > 1_000_000
            rows, taken_s = run_once(lambda job=job, items=items, capacity=capacity: job(items, capacity))
            if not slow:
                taken_s = seconds(lambda job=job, items=items, capacity=capacity: job(items, capacity), 3)
            entry["cpu_s"][name] = taken_s
            entry["fill"][name] = tokens / (rows * capacity)
        done.append(entry)
    return done


def fills(n: int = 100_000) -> list[dict[str, Any]]:
    """Fill of every mix by every packer."""
    done = []
    for name, (lengths, capacity) in {**mixes(n), **python_text_lengths()}.items():
        tokens, items = int(lengths.sum()), lengths.tolist()
        ours = pack(lengths, capacity)

        def share(rows: int, tokens: int = tokens, capacity: int = capacity) -> float:
            return tokens / (rows * capacity)

        fill = {
            "bound": ours.fill_bound,
            "pack": ours.fill,
            "best fit decreasing": pack(lengths, capacity, effort=0).fill,
            "pack_stream 1,000": share(sum(1 for _ in pack_stream(items, capacity, length=int))),
            "pack_stream 64": share(sum(1 for _ in pack_stream(items, capacity, pool=64, length=int))),
        }
        if name == "mm8k":
            cut = pack_runs(*multimodal_runs(n, capacity), capacity)
            fill["cut_chains"] = cut.packing.fill
        for peer, job in peers().items():
            if lengths.size <= LARGEST[peer]:
                rows = job(items, capacity)
                fill[peer] = share(rows[0] if isinstance(rows, tuple) else rows)
        entry = {
            "mix": name,
            "n": lengths.size,
            "capacity": capacity,
            "distinct": int(np.unique(lengths).size),
        }
        entry |= {"rows": ours.rows, "gap": ours.excess_rows, "fill": fill}
        entry["cpu_s"] = seconds(lambda lengths=lengths, capacity=capacity: pack(lengths, capacity), 5)
        done.append(entry)
    return done


def others(n: int = 100_000) -> dict[str, Any]:
    """What the stream and the chains cost, and how many cuts are made."""
    slices, offsets = multimodal_runs(n, 8192)
    items = lognormal(1_000_000)[0].tolist()
    done: dict[str, Any] = {
        "stream_1e6_cpu_s": seconds(lambda: list(pack_stream(items, 4096, length=int)), 3)
    }
    done["cuts"] = []
    for fill in (0.0, 0.999, 0.9998, 1.0):
        cut = pack_runs(slices, offsets, 8192, fill=fill)
        cpu_s = seconds(lambda fill=fill: pack_runs(slices, offsets, 8192, fill=fill), 3)
        done["cuts"].append(
            {"asked": fill, "fill": cut.packing.fill, "cuts": cut.cuts, "gap": cut.packing.excess_rows}
        )
        done["cuts"][-1]["cpu_s"] = cpu_s
    return done


def balances() -> list[dict[str, Any]]:
    """Mean utilisation of the steps, and the whole schedule's, for the long texts."""
    lengths, capacity = long_texts()
    done = []
    for level in (False, True):
        for linear in (0.0, 24_576.0):
            for ranks in (8, 64):
                whole = _even(lengths, capacity, ranks, level, linear)
                items = 64 * ranks * capacity // 2500
                windows = [
                    _even(lengths[start : start + items], capacity, ranks, level, linear)
                    for start in range(0, lengths.size - items + 1, items)
                ]
                entry = {"level": level, "linear": linear, "ranks": ranks}
                for name, found in (("all", whole), ("window", np.mean(windows, axis=0))):
                    entry[name] = dict(zip(("steps", "schedule", "fill"), map(float, found), strict=True))
                done.append(entry)
    return done


def _even(lengths: NDArray[np.int64], capacity: int, ranks: int, level: bool, linear: float) -> list[float]:
    packing = pack(lengths, capacity, level=level)
    dealt = balance_rows(row_costs(packing, lengths, linear=linear), global_batch=ranks, ranks=ranks)
    return [float(dealt.utilisation.mean()), dealt.efficiency, packing.fill]


def show(console: Console, results: dict[str, Any]) -> None:
    """The tables."""
    table = Table(title="CPU seconds, lognormal, ids included")
    names = list(dict.fromkeys(name for entry in results["speed"] for name in entry["cpu_s"]))
    for column in ("n", *names, "pack / floor"):
        table.add_column(column, justify="right")
    for entry in results["speed"]:
        times = (entry["cpu_s"].get(name) for name in names)
        shown = [f"{taken:.4g}" if taken is not None else "" for taken in times]
        table.add_row(f"{entry['n']:,}", *shown, f"{entry['over_floor']:.2f}")
    console.print(table)
    table = Table(title="Fill, %")
    names = list(dict.fromkeys(name for entry in results["fills"] for name in entry["fill"]))
    for column in ("mix", "items", *names, "rows above the bound", "ms"):
        table.add_column(column, justify="right")
    for entry in results["fills"]:
        shown = [f"{100 * entry['fill'][name]:.3f}" if name in entry["fill"] else "" for name in names]
        table.add_row(
            entry["mix"],
            f"{entry['n']:,}",
            *shown,
            f"{entry['gap']} of {entry['rows']:,}",
            f"{1e3 * entry['cpu_s']:.1f}",
        )
    console.print(table)
    for cut in results["others"]["cuts"]:
        console.print(
            f"chains, mm8k: fill {cut['fill']:.4%} with {cut['cuts']:,} cuts, {1e3 * cut['cpu_s']:.0f} ms"
        )
    console.print(f"pack_stream, 1e6 lognormal: {results['others']['stream_1e6_cpu_s']:.2f} CPU s")
    table = Table(
        title="Balance of long texts, one row per rank: mean over the steps / of the schedule / fill, %"
    )
    for column in ("level", "linear", "ranks", "all", "windows of 64 steps"):
        table.add_column(column, justify="right")
    for entry in results["balance"]:
        shown = [
            " / ".join(f"{100 * value:.2f}" for value in entry[key].values()) for key in ("all", "window")
        ]
        table.add_row(str(entry["level"]), f"{entry['linear']:.0f}", str(entry["ranks"]), *shown)
    console.print(table)
    for name in sorted(set(LARGEST) - set(peers())):
        console.print(f"{name}: not installed")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def main() -> None:
    """Measure, print, write."""
    results = {
        "machine": describe_machine()
        | {name: _version(name) for name in ("numba", "trl", "lightbinpack", "binpacking")},
        "speed": speed(),
        "fills": fills(),
        "others": others(),
        "balance": balances(),
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    show(Console(width=200 if not sys.stdout.isatty() else None), results)


if __name__ == "__main__":
    main()
