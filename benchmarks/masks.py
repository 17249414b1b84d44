"""CPU time of a BlockMask from spans, compared with torch's create_block_mask (eager, compiled) and a dense mask.

    python -m benchmarks.masks

Documents of 1,000 positions on average (geometric distribution) fill the row; blocks have 128 positions. One thread of
one process. A job that would take more than a minute or 12 GB is skipped, and its reason is printed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch.nn.attention.flex_attention import create_block_mask

from benchmarks.support.measure import ROOT, describe_machine
from mmpack.masks import build_block_index, build_block_mask, cu_seqlens, document_ids
from mmpack.masks.blocks import FIELDS

RESULT = ROOT / "benchmarks" / "results" / "masks.json"
SEQ_LENS = (4_096, 8_192, 32_768, 131_072)
TARGET_MS = 0.1
TARGET_SEQ_LEN = 32_768
MAX_S, MAX_BYTES = 60.0, 12 << 30
# Peak bytes per entry of the L x L mask, measured at L = 16,384.
ENTRY_BYTES = {"eager": 10, "compiled": 1, "dense": 1}
IMAGE_TOKENS = 256


def make_row(seq_len: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Returns cu_seqlens of documents that fill the row, and one image span in each document that is long enough."""
    random = np.random.default_rng(20260823)
    ends = np.unique(np.minimum(cu_seqlens(random.geometric(1 / 1000, seq_len // 100)), seq_len))
    starts = ends[:-1][np.diff(ends) >= IMAGE_TOKENS]
    return ends, np.stack([starts, starts + IMAGE_TOKENS], axis=1).astype(np.int64)


def median_ms(job: Callable[[], object], *, calls: int, repetitions: int = 15) -> float:
    """Measures the CPU time of one call in ms: the median over the repetitions."""
    job()
    times_ms = []
    for _ in range(repetitions):
        start_s = time.process_time()
        for _ in range(calls):
            job()
        times_ms.append((time.process_time() - start_s) / calls * 1e3)
    return statistics.median(times_ms)


def cold_ms(job: Callable[[], object], repetitions: int = 15) -> float:
    """Measures the median CPU time in ms of a call with cold caches, after 64 MB of other data were touched."""
    other = np.ones(8 << 20)
    times_ms = []
    for _ in range(repetitions):
        other += 1
        start_s = time.process_time()
        job()
        times_ms.append((time.process_time() - start_s) * 1e3)
    return statistics.median(times_ms)


def measure_alternatives(
    seq_len: int, ends: NDArray[np.int32], entry_s: dict[str, float]
) -> dict[str, float | str]:
    """Measures the other ways to make a mask in ms, or returns the reason why a way was skipped.

    Args:
        seq_len: number of positions of the row.
        ends: cu_seqlens of the row.
        entry_s: seconds of each way per entry of the L x L mask, measured at the previous length.

    Raises:
        AssertionError: torch's index tensors differ from mmpack's.
    """
    documents = torch.from_numpy(document_ids(ends, seq_len))

    def mask_mod(b: torch.Tensor, h: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (documents[query] == documents[key]) & (documents[query] >= 0) & (key <= query)

    # A second length would be compiled with dynamic shapes, which run slower.
    torch.compiler.reset()
    create_compiled = torch.compile(create_block_mask, dynamic=False)
    ways: dict[str, Callable[[], Any]] = {
        "eager": lambda: create_block_mask(mask_mod, None, None, seq_len, seq_len, "cpu"),
        "compiled": lambda: create_compiled(mask_mod, None, None, seq_len, seq_len, "cpu"),
        "dense": lambda: (documents[:, None] == documents).logical_and_((documents >= 0)[:, None]).tril_(),
    }
    result: dict[str, float | str] = {}
    for name, way in ways.items():
        needed_bytes = ENTRY_BYTES[name] * seq_len**2
        needed_s = entry_s.get(name, 0.0) * seq_len**2
        if needed_bytes > MAX_BYTES or needed_s > MAX_S:
            result[f"{name}_ms"] = f"skipped: {needed_bytes / 1e9:.0f} GB, about {needed_s:.0f} s"
            continue
        start_s = time.perf_counter()
        mask = way()
        result[f"{name}_first_s"] = time.perf_counter() - start_s
        if name != "dense":
            own_mask = build_block_mask(ends, seq_len)
            for field in FIELDS:
                if not torch.equal(getattr(mask, field), getattr(own_mask, field)):
                    raise AssertionError(f"{field} of {name} differs at {seq_len}")
        result[f"{name}_ms"] = median_ms(way, calls=1, repetitions=3)
    return result


def measure(seq_len: int, entry_s: dict[str, float]) -> dict[str, Any]:
    """Measures all jobs at one length."""
    ends, images = make_row(seq_len)
    calls = max(4, 2**23 // seq_len)
    result: dict[str, Any] = {
        "seq_len": seq_len,
        "documents": len(ends) - 1,
        "images": len(images),
        "index_ms": median_ms(lambda: build_block_index(ends, seq_len), calls=calls),
        "causal_ms": median_ms(lambda: build_block_mask(ends, seq_len), calls=calls),
        "images_ms": median_ms(lambda: build_block_mask(ends, seq_len, image_spans=images), calls=calls),
        "cold_ms": cold_ms(lambda: build_block_mask(ends, seq_len)),
        "size_bytes": sum(getattr(build_block_index(ends, seq_len), name).nbytes for name in FIELDS),
    }
    return result | measure_alternatives(seq_len, ends, entry_s)


def format_table(results: list[dict[str, Any]]) -> Table:
    """Formats the results as a table."""
    table = Table(title="BlockMask of one row, ms of CPU time (medians)", title_justify="left")
    names = {
        "index_ms": "arrays alone",
        "causal_ms": "mmpack, causal",
        "images_ms": "mmpack, bidirectional images",
        "cold_ms": "mmpack, cold caches",
        "eager_ms": "create_block_mask, eager",
        "compiled_ms": "create_block_mask, compiled",
        "compiled_first_s": "compiled, first call, s of wall time",
        "dense_ms": "dense bool",
    }
    table.add_column("")
    for result in results:
        table.add_column(f"{result['seq_len']:,}", justify="right")
    for name, title in names.items():
        values = [result.get(name, "") for result in results]
        table.add_row(title, *(v if isinstance(v, str) else f"{v:,.3f}" for v in values))
    return table


def main() -> None:
    """Measures, prints and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seq-lens", type=int, nargs="+", default=SEQ_LENS, help="row lengths to measure")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: list[dict[str, Any]] = []
    entry_s: dict[str, float] = {}
    for seq_len in arguments.seq_lens:
        result = measure(seq_len, entry_s)
        results.append(result)
        print(json.dumps(result), flush=True)
        for name in ENTRY_BYTES:
            if isinstance(result[f"{name}_ms"], float):
                entry_s[name] = result[f"{name}_ms"] / 1e3 / seq_len**2
    Console(width=140).print(format_table(results))
    hot = {result["seq_len"]: result["images_ms"] for result in results}.get(TARGET_SEQ_LEN)
    if hot is not None:
        verdict = "met" if hot <= TARGET_MS else "missed"
        print(f"target at {TARGET_SEQ_LEN:,}, hot: {TARGET_MS} ms, {verdict} ({hot:.3f} ms)")
    if tuple(arguments.seq_lens) == SEQ_LENS:
        report = {
            "date": datetime.date.today().isoformat(),
            "machine": {**describe_machine(), "torch": torch.__version__},
            "block_size": 128,
            "target_ms": TARGET_MS,
            "results": results,
        }
        RESULT.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
