"""Benchmark of data in training steps: the time spent waiting for rows, and the time saved by packing, on a CPU model.

    python -m benchmarks.trainer_data [--quick]

1. The share of a training step spent waiting for rows that are read on request, or prefetched in threads or in a process.
2. Packed and padded rows: the same documents packed, or one document per row with padding, to the full row length or to the
   longest of eight documents. Forward and backward passes without optimizer, on rows in memory, in CPU time. Attention is
   computed per document, so padding has all costs except attention; with a dense mask it would cost more.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

from benchmarks.support.measure import ROOT, describe_machine
from mmpack.ingest import BuildConfig, build_shards
from mmpack.plan.planned_rows import PlannedRow
from mmpack.rows.row import Row
from mmpack.settings import parse_settings
from mmpack.stream.row_pipeline import RowPipelineSpec
from mmpack.stream.torch import collate_tensors
from mmpack_trainer.batch import MicroBatch
from mmpack_trainer.config.schema import TrainConfig
from mmpack_trainer.losses import loss_of, totals
from mmpack_trainer.train import Trainer
from tools.make_recording import CameraSettings, make_recording

RESULT = ROOT / "benchmarks" / "results" / "trainer_data.json"
SEQ_LEN, ROWS_PER_STEP, GROUP = 1024, 2, 8
READERS: tuple[tuple[str, dict[str, int]], ...] = (
    ("when asked for", {"workers": 0, "threads": 0}),
    ("ahead, 1 thread", {"workers": 0, "threads": 1}),
    ("ahead, 2 threads", {"workers": 0, "threads": 2}),
    ("ahead, 1 process", {"workers": 1, "threads": 1}),
)
_LAYOUT = {
    "vision": {"patch_size": 8, "merge": 2, "max_tokens": 24},
    "numeric": [{"name": "imu", "width": 6}, {"name": "action", "width": 3, "role": "action"}],
}


def make_plan(folder: Path) -> Path:
    """Builds shards of two drives and 600 texts of uneven length; writes a plan over them and returns its path."""
    for index in range(2):
        make_recording(
            folder / f"drive-{index}", CameraSettings(seconds=6.0, size=(96, 128)), seed=index, faults=False
        )
    random = np.random.default_rng(11)
    lengths = np.clip(np.rint(random.lognormal(4, 1, 600)), 4, 900).astype(int)
    texts = [json.dumps({"text": "the car turns left " * (length // 4)}) for length in lengths.tolist()]
    (folder / "texts.jsonl").write_text("\n".join(texts) + "\n")
    config = parse_settings(
        {
            "recordings": [str(folder / f"drive-{index}") for index in range(2)],
            "samples": [{"name": "texts", "kind": "text", "path": str(folder / "texts.jsonl")}],
            "sync": {"streams": {"imu": {"policy": "window"}}},
            "layout": _LAYOUT,
        },
        BuildConfig,
        where="build.toml",
    )
    result = build_shards(config, str(folder / "shards"))
    if result.manifest is None:
        raise RuntimeError(f"the build failed: {result.failures}")
    plan = folder / "plan.toml"
    plan.write_text(
        f"max_seq_len = {SEQ_LEN}\nglobal_batch = {ROWS_PER_STEP}\nwindow_steps = 16\n"
        '[[datasets]]\nname = "drives"\nshards = "shards"\nselect = ["drive*"]\n'
        '[[datasets]]\nname = "texts"\nshards = "shards"\nselect = ["texts"]\n'
    )
    return plan


def make_config(plan: Path, steps: int) -> TrainConfig:
    """Returns a recipe for a dense float32 model with two layers of width 64."""
    return parse_settings(
        {
            "out": str(plan.parent / "run"),
            "steps": steps,
            "micro_batch": 1,
            "data": {"plan": str(plan)},
            "model": {"dim": 64, "layers": 2, "heads": 4, "kv_heads": 2, "hidden_dim": 192},
            "loss": {"action": 0.1},
            "optimizer": {"lr": 1e-3},
            "schedule": {"warmup_steps": 1},
            "compute": {"precision": "float32"},
        },
        TrainConfig,
        where="run.toml",
    )


def measure_waiting(config: TrainConfig, steps: int) -> list[dict[str, Any]]:
    """Measures waiting time and wall time with each reader setting; excludes the first step, which starts the readers."""
    lines = []
    for name, reader in READERS:
        trainer = Trainer(replace(config, data=replace(config.data, **reader)))
        results = [trainer.step() for _ in range(steps + 1)][1:]
        trainer.close()
        seconds, waited = sum(step.seconds for step in results), sum(step.waited for step in results)
        lines.append(
            {
                "rows": name,
                **reader,
                "steps": steps,
                "step_ms": 1e3 * statistics.median(step.seconds for step in results),
                "waited_ms": 1e3 * statistics.median(step.waited for step in results),
                "share": waited / seconds,
                "tokens_per_s": sum(step.tokens for step in results) / seconds,
            }
        )
    return lines


def assemble_rows(trainer: Trainer, count: int) -> dict[str, list[list[Row]]]:
    """Assembles the documents of the first `count` rows of the plan in batches: packed, and one document per row."""
    plan = trainer.stream.plan
    planned = [plan.row(number) for number in range(count)]
    single = [
        PlannedRow(number, (document,)) for number, row in enumerate(planned) for document in row.documents
    ]
    spec = RowPipelineSpec.from_plan(plan, trainer.stream.reader)
    pipeline = spec()
    packed = [pipeline(row)[0] for row in planned]
    padded = [pipeline(row)[0] for row in single]
    pipeline.close()
    grouped = []
    for start in range(0, len(single), GROUP):
        group = single[start : start + GROUP]
        max_length = max(int(row.cu_seqlens[-1]) for row in padded[start : start + GROUP])
        short_pipeline = RowPipelineSpec(
            urls=spec.urls,
            statistics=spec.statistics,
            layout=spec.layout,
            rows=spec.rows,
            reader=spec.reader,
            max_seq_len=max_length,
        )()
        grouped.append([short_pipeline(row)[0] for row in group])
        short_pipeline.close()
    return {
        "packed": [[row] for row in packed],
        f"padded to the longest of {GROUP}": grouped,
        f"padded to {SEQ_LEN:,}": [[row] for row in padded],
    }


def measure_pass_s(trainer: Trainer, batches: Sequence[MicroBatch]) -> float:
    """Measures the CPU time of forward and backward passes over all batches, in seconds."""
    sums = totals(batches, trainer.world)
    start_s = time.process_time()
    for batch in batches:
        loss = loss_of(
            trainer.model(batch.inputs, batch.targets.ids),
            batch.targets,
            trainer.config.loss,
            sums,
            None,
            first=0,
            shares=len(batches),
        )
        loss.value.backward()
    pass_s = time.process_time() - start_s
    trainer.optimizer.zero_grad()
    return pass_s


def measure_packing(config: TrainConfig, rows: int, repetitions: int) -> list[dict[str, Any]]:
    """Measures tokens per second with packed and padded rows of the same documents, alternating between them."""
    trainer = Trainer(replace(config, data=replace(config.data, threads=0, workers=0)))
    rows_by_name = assemble_rows(trainer, rows)
    batches_by_name = {
        name: [trainer.batches(collate_tensors(batch)) for batch in batches]
        for name, batches in rows_by_name.items()
    }
    times: dict[str, list[float]] = {name: [] for name in batches_by_name}
    for repetition in range(repetitions + 1):
        for name, batches in batches_by_name.items():
            pass_s = measure_pass_s(trainer, batches)
            # The first repetition fills caches and is not counted.
            if repetition:
                times[name].append(pass_s)
    trainer.close()
    lines = []
    for name, batches in rows_by_name.items():
        tokens = sum(row.tokens for batch in batches for row in batch)
        positions = sum(row.seq_len for batch in batches for row in batch)
        seconds = statistics.median(times[name])
        lines.append(
            {
                "rows": name,
                "count": sum(map(len, batches)),
                "documents": sum(len(row.document_valid) for batch in batches for row in batch),
                "tokens": tokens,
                "fill": tokens / positions,
                "seconds": seconds,
                "tokens_per_s": tokens / seconds,
            }
        )
    for line in lines:
        line["of_packed"] = line["tokens_per_s"] / lines[0]["tokens_per_s"]
    return lines


def make_table(
    title: str, lines: Sequence[Mapping[str, Any]], columns: Mapping[str, tuple[str, str]]
) -> Table:
    """Builds a table; `columns` has the heading and the number format of each key."""
    table = Table(title=title, title_justify="left")
    for key, (heading, _) in columns.items():
        table.add_column(heading, justify="left" if key == "rows" else "right")
    for line in lines:
        table.add_row(*(format(line[key], format_) for key, (_, format_) in columns.items()))
    return table


def main() -> None:
    """Measures, prints and, without --quick, writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="measure only a few steps and write no results")
    arguments = parser.parse_args()
    steps, rows, repetitions = (3, 3, 1) if arguments.quick else (12, 6, 3)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(make_plan(Path(folder)), steps)
        waiting = measure_waiting(config, steps)
        packing = measure_packing(config, rows, repetitions)
    console = Console(width=140)
    console.print(
        make_table(
            f"Waiting for rows, {steps} steps of {ROWS_PER_STEP} rows of {SEQ_LEN:,} positions",
            waiting,
            {
                "rows": ("reading", ""),
                "step_ms": ("step, ms (median)", ",.0f"),
                "waited_ms": ("waiting, ms (median)", ",.1f"),
                "share": ("share of waiting", ".1%"),
                "tokens_per_s": ("tokens/s", ",.0f"),
            },
        )
    )
    console.print(
        make_table(
            "The same documents packed and padded, forward and backward",
            packing,
            {
                "rows": ("layout of rows", ""),
                "count": ("rows", ",d"),
                "documents": ("documents", ",d"),
                "fill": ("fill", ".1%"),
                "seconds": ("CPU s (median)", ",.2f"),
                "tokens_per_s": ("tokens/s", ",.0f"),
                "of_packed": ("relative to packed", ".1%"),
            },
        )
    )
    if not arguments.quick:
        report = {
            "date": datetime.date.today().isoformat(),
            "machine": {**describe_machine(), "torch": torch.__version__, "threads": torch.get_num_threads()},
            "seq_len": SEQ_LEN,
            "rows_a_step": ROWS_PER_STEP,
            "waiting": waiting,
            "packing": packing,
        }
        RESULT.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
