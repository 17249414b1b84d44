"""What data costs a training step, and what packing saves it, on a CPU model.

    python -m benchmarks.trainer_data [--quick]

1. The share of a step spent waiting for rows: steps of the trainer, reading rows made when they are asked for, or made
   ahead in threads or in a process.
2. Packed against padded: the same documents several to a row, or one to a row that pads fill up, to the row's full length
   and to the longest of eight documents. Forward and backward passes, no optimizer, rows made beforehand, in CPU time.
   The attention goes by documents, so pads cost everything but attention: with a dense mask they would cost more.
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

from benchmarks.support.measure import ROOT, machine
from mmpack.ingest import BuildConfig, build_shards
from mmpack.plan.planned import PlannedRow
from mmpack.rows.row import Row
from mmpack.settings import parse_settings
from mmpack.stream.row_pipeline import RowPipelineSpec
from mmpack.stream.torch import collate_tensors
from mmpack_trainer.batch import MicroBatch
from mmpack_trainer.config.schema import TrainConfig
from mmpack_trainer.losses import loss_of, totals
from mmpack_trainer.train import Trainer
from tools.make_recording import make_recording

RESULT = ROOT / "benchmarks" / "results" / "trainer_data.json"
SEQ_LEN, ROWS_A_STEP, GROUP = 1024, 2, 8
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
    """Shards of two drives and 600 texts of uneven length, and a plan over them."""
    for number in range(2):
        make_recording(folder / f"drive-{number}", seed=number, seconds=6.0, size=(96, 128), faults=False)
    random = np.random.default_rng(11)
    lengths = np.clip(np.rint(random.lognormal(4, 1, 600)), 4, 900).astype(int)
    texts = [json.dumps({"text": "the car turns left " * (length // 4)}) for length in lengths.tolist()]
    (folder / "texts.jsonl").write_text("\n".join(texts) + "\n")
    config = parse_settings(
        {
            "recordings": [str(folder / f"drive-{number}") for number in range(2)],
            "samples": [{"name": "texts", "kind": "text", "path": str(folder / "texts.jsonl")}],
            "sync": {"streams": {"imu": {"policy": "window"}}},
            "layout": _LAYOUT,
        },
        BuildConfig,
        where="build.toml",
    )
    outcome = build_shards(config, str(folder / "shards"), workers=0)
    if outcome.manifest is None:
        raise RuntimeError(f"the build failed: {outcome.failures}")
    plan = folder / "plan.toml"
    plan.write_text(
        f"max_seq_len = {SEQ_LEN}\nglobal_batch = {ROWS_A_STEP}\nwindow_steps = 16\n"
        '[[datasets]]\nname = "drives"\nshards = "shards"\nselect = ["drive*"]\n'
        '[[datasets]]\nname = "texts"\nshards = "shards"\nselect = ["texts"]\n'
    )
    return plan


def config_of(plan: Path, steps: int) -> TrainConfig:
    """A dense float32 model of two layers of 64."""
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
    """Waiting and wall time of each way to read; the first step, which starts reading, is not counted."""
    found = []
    for name, reader in READERS:
        trainer = Trainer(replace(config, data=replace(config.data, **reader)))
        done = [trainer.step() for _ in range(steps + 1)][1:]
        trainer.close()
        seconds, waited = sum(step.seconds for step in done), sum(step.waited for step in done)
        found.append(
            {
                "rows": name,
                **reader,
                "steps": steps,
                "step_ms": 1e3 * statistics.median(step.seconds for step in done),
                "waited_ms": 1e3 * statistics.median(step.waited for step in done),
                "share": waited / seconds,
                "tokens_per_s": sum(step.tokens for step in done) / seconds,
            }
        )
    return found


def rows_of(trainer: Trainer, count: int) -> dict[str, list[list[Row]]]:
    """The documents of the plan's first rows in batches: packed, and one to a row."""
    plan = trainer.stream.plan
    planned = [plan.row(number) for number in range(count)]
    single = [PlannedRow(number, (each,)) for number, row in enumerate(planned) for each in row.documents]
    spec = RowPipelineSpec.from_plan(plan, trainer.stream.reader)
    making = spec()
    packed = [making(row)[0] for row in planned]
    full = [making(row)[0] for row in single]
    making.close()
    grouped = []
    for start in range(0, len(single), GROUP):
        group = single[start : start + GROUP]
        longest = max(int(row.cu_seqlens[-1]) for row in full[start : start + GROUP])
        shorter = RowPipelineSpec(
            spec.urls, spec.statistics, spec.layout, spec.rows, spec.reader, max_seq_len=longest
        )()
        grouped.append([shorter(row)[0] for row in group])
        shorter.close()
    return {
        "packed": [[row] for row in packed],
        f"padded to the longest of {GROUP}": grouped,
        f"padded to {SEQ_LEN:,}": [[row] for row in full],
    }


def pass_s(trainer: Trainer, batches: Sequence[MicroBatch]) -> float:
    """CPU time of forward and backward passes over all batches."""
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
    taken_s = time.process_time() - start_s
    trainer.optimizer.zero_grad()
    return taken_s


def measure_packing(config: TrainConfig, rows: int, repetitions: int) -> list[dict[str, Any]]:
    """Tokens a second of each way to lay the same documents out, in turn."""
    trainer = Trainer(replace(config, data=replace(config.data, threads=0, workers=0)))
    laid = rows_of(trainer, rows)
    made = {
        name: [trainer.batches(collate_tensors(batch)) for batch in batches] for name, batches in laid.items()
    }
    times: dict[str, list[float]] = {name: [] for name in made}
    for repetition in range(repetitions + 1):
        for name, batches in made.items():
            taken_s = pass_s(trainer, batches)
            if repetition:  # the first warms caches
                times[name].append(taken_s)
    trainer.close()
    found = []
    for name, batches in laid.items():
        tokens = sum(row.tokens for batch in batches for row in batch)
        places = sum(row.seq_len for batch in batches for row in batch)
        seconds = statistics.median(times[name])
        found.append(
            {
                "rows": name,
                "count": sum(map(len, batches)),
                "documents": sum(len(row.document_valid) for batch in batches for row in batch),
                "tokens": tokens,
                "fill": tokens / places,
                "seconds": seconds,
                "tokens_per_s": tokens / seconds,
            }
        )
    for line in found:
        line["of_packed"] = line["tokens_per_s"] / found[0]["tokens_per_s"]
    return found


def table(title: str, lines: Sequence[Mapping[str, Any]], columns: Mapping[str, tuple[str, str]]) -> Table:
    """Lines for people; a column has its heading and its format."""
    shown = Table(title=title, title_justify="left")
    for key, (heading, _) in columns.items():
        shown.add_column(heading, justify="left" if key == "rows" else "right")
    for line in lines:
        shown.add_row(*(format(line[key], form) for key, (_, form) in columns.items()))
    return shown


def main() -> None:
    """Measures, prints and, unless --quick is given, writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps, nothing is written")
    arguments = parser.parse_args()
    steps, rows, repetitions = (3, 3, 1) if arguments.quick else (12, 6, 3)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(make_plan(Path(folder)), steps)
        waiting = measure_waiting(config, steps)
        packing = measure_packing(config, rows, repetitions)
    console = Console(width=140)
    console.print(
        table(
            f"Waiting for rows, {steps} steps of {ROWS_A_STEP} rows of {SEQ_LEN:,} places",
            waiting,
            {
                "rows": ("rows made", ""),
                "step_ms": ("step, ms (median)", ",.0f"),
                "waited_ms": ("of it waiting", ",.1f"),
                "share": ("share of all", ".1%"),
                "tokens_per_s": ("tokens/s", ",.0f"),
            },
        )
    )
    console.print(
        table(
            "The same documents packed and padded, forward and backward",
            packing,
            {
                "rows": ("rows", ""),
                "count": ("rows", ",d"),
                "documents": ("documents", ",d"),
                "fill": ("fill", ".1%"),
                "seconds": ("CPU s (median)", ",.2f"),
                "tokens_per_s": ("tokens/s", ",.0f"),
                "of_packed": ("of packed", ".1%"),
            },
        )
    )
    if not arguments.quick:
        facts = {
            "date": datetime.date.today().isoformat(),
            "machine": {**machine(), "torch": torch.__version__, "threads": torch.get_num_threads()},
            "seq_len": SEQ_LEN,
            "rows_a_step": ROWS_A_STEP,
            "waiting": waiting,
            "packing": packing,
        }
        RESULT.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
