"""Tokens per second, MFU and memory of the trainer on one GPU, compared with padding and torchtitan's llama3.

    python -m benchmarks.gpu_trainer [--tiny] [--only NAME ...]

1. Training steps (forward, backward, clipping, AdamW) of a dense model of 1B parameters at 4,096 and 8,192 positions and
   of a small mixture of experts, in bf16, and with float8 products if torchao is installed and the hardware supports them.
2. The same documents with one document per row, padded to the full length.
3. torchtitan's own llama3 of the same size with the same ids, masks and optimizer, as a baseline for the multimodal model.
4. The mask of a batch from its spans, and by torch's `create_block_mask`, eager and compiled.

Rows are assembled beforehand, so no step waits for data (`benchmarks.trainer_data` measures that). A case that does not fit
into memory is repeated with half the rows; a case that fails is listed with its reason. `--tiny` runs everything with small
sizes on any device, also without a GPU, and writes nothing.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.attention.flex_attention import create_block_mask

from benchmarks.support.gpu_trainer_inputs import FULL, TINY, Sizes, make_shards
from benchmarks.support.measure import ROOT, describe_machine
from benchmarks.support.torchtitan_llama import (
    make_llama3_step,  # imported first: makes torchtitan importable
)
from mmpack.masks import build_block_mask
from mmpack.plan.planned_rows import PlannedRow
from mmpack.rows.row import IGNORE_INDEX, Row
from mmpack.settings import parse_settings
from mmpack.stream.row_pipeline import RowPipelineSpec
from mmpack.stream.torch import collate_tensors
from mmpack_trainer.batch import MicroBatch
from mmpack_trainer.config.schema import TrainConfig
from mmpack_trainer.flops import Rates, Work, rates_of
from mmpack_trainer.hardware import Device, find_device, peak_flops
from mmpack_trainer.parameters import parameters_of
from mmpack_trainer.train import Trainer

RESULT = ROOT / "benchmarks" / "results" / "gpu_trainer.json"
TARGET_MFU = 0.5
"""Target of the useful MFU of the dense model in bf16."""


@dataclass(frozen=True)
class TrainerCase:
    """A benchmark case, one line of the table."""

    name: str
    model: dict[str, Any]
    seq_len: int
    fp8: bool = False
    padded: bool = False
    """True if each row has only one document."""
    stock: bool = False
    """True if the model is the llama3 of torchtitan."""


@dataclass
class CaseResult:
    """The result of a case."""

    name: str
    seq_len: int
    rows: int = 0
    """Number of rows of a step."""
    parameters: int = 0
    active: int = 0
    tokens_per_s: float | None = None
    fill: float | None = None
    useful_mfu: float | None = None
    slot_mfu: float | None = None
    step_ms: float | None = None
    """Median over the counted steps."""
    first_step_s: float | None = None
    """Includes compilation."""
    memory_bytes: int | None = None
    """Peak memory allocated on the GPU."""
    losses: list[float] = field(default_factory=list)
    failed: str = ""


def list_cases(sizes: Sizes) -> list[TrainerCase]:
    """Returns all cases, the most important first."""
    short, long = sizes.seq_lens
    return [
        TrainerCase("dense", sizes.dense, short),
        TrainerCase("dense", sizes.dense, long),
        TrainerCase("dense, padded", sizes.dense, short, padded=True),
        TrainerCase("torchtitan llama3", sizes.dense, short, stock=True),
        TrainerCase("experts", sizes.experts, short),
        TrainerCase("dense, float8", sizes.dense, short, fp8=True),
        TrainerCase("torchtitan llama3", sizes.dense, long, stock=True),
        TrainerCase("dense, padded", sizes.dense, long, padded=True),
    ]


def make_config(folder: Path, case: TrainerCase, rows: int, *, on_gpu: bool) -> TrainConfig:
    """Makes the configuration of a case with `rows` rows per step in one micro-batch; writes its plan to `folder`."""
    plan = folder / f"{case.seq_len}-{rows}.toml"
    plan.write_text(
        f"max_seq_len = {case.seq_len}\nglobal_batch = {rows}\n"
        '[[datasets]]\nname = "texts"\nshards = "shards"\nselect = ["texts"]\n'
        '[[datasets]]\nname = "captions"\nshards = "shards"\nselect = ["captions"]\n'
        '[[phases]]\nname = "all"\nshares = { texts = 0.7, captions = 0.3 }\n'
    )
    return parse_settings(
        {
            "out": str(folder / "run"),
            "steps": 1000,
            "micro_batch": rows,
            "data": {"plan": str(plan)},
            "model": case.model,
            "loss": {"aux": 0.01, "z": 1e-3} if "moe" in case.model else {},
            "optimizer": {"lr": 3e-4, "bf16_states": on_gpu and supports_bf16_states()},
            "schedule": {"kind": "constant", "warmup_steps": 0},
            "compute": {"precision": "bfloat16", "compile": on_gpu, "fp8": case.fp8},
        },
        TrainConfig,
        where=case.name,
    )


@cache
def supports_bf16_states() -> bool:
    """Returns whether the fused AdamW of the installed torch accepts bf16 moments of float32 weights."""
    weight = torch.zeros(8, device="cuda", requires_grad=True)
    weight.grad = torch.ones_like(weight)
    optimizer = torch.optim.AdamW([weight], fused=True)
    optimizer.state[weight] = {
        "step": torch.zeros((), device="cuda"),
        **{name: torch.zeros(8, dtype=torch.bfloat16, device="cuda") for name in ("exp_avg", "exp_avg_sq")},
    }
    try:
        optimizer.step()
    except RuntimeError:
        return False
    return True


def make_batches(trainer: Trainer, case: TrainerCase, count: int) -> list[tuple[MicroBatch, Work]]:
    """Makes batches of the first rows of the plan, packed or with one document per row. Returns each with its work."""
    plan, rows = trainer.stream.plan, trainer.batch.rows
    planned = [plan.row(number) for number in range(count * rows)]
    if case.padded:
        planned = [
            PlannedRow(number, (document,))
            for number, row in enumerate(planned)
            for document in row.documents
        ]
        # Evenly spaced documents of all rows, because a row starts with its longest document.
        planned = planned[:: max(len(planned) // (count * rows), 1)][: count * rows]
    pipeline = RowPipelineSpec.from_plan(plan, trainer.stream.reader)()
    assembled = [pipeline(row)[0] for row in planned]
    pipeline.close()
    groups = [assembled[start : start + rows] for start in range(0, len(assembled), rows)]
    return [(trainer.batches(collate_tensors(group)), measure_work(group)) for group in groups]


def measure_work(rows: Sequence[Row]) -> Work:
    """Measures the work of rows: tokens, positions, patches and positions without a label."""
    work = Work.of(
        [row.cu_seqlens for row in rows],
        seq_len=rows[0].seq_len,
        patches=sum(len(row.patches) for row in rows),
    )
    labels = sum(int((row.labels != IGNORE_INDEX).sum()) for row in rows)
    return replace(work, unlabelled=work.tokens - labels)


def measure(folder: Path, case: TrainerCase, sizes: Sizes, device: Device, rows: int) -> CaseResult:
    """Runs and measures the steps of a case.

    Raises:
        torch.OutOfMemoryError: the case does not fit into the memory of the device.
    """
    trainer = Trainer(make_config(folder, case, rows, on_gpu=device.is_gpu))
    try:
        batches = make_batches(trainer, case, 4)
        if case.stock:
            # The weights of the trainer are not needed, and would count as memory of the case.
            del trainer.optimizer, trainer.model
            _free(device)
            step: Callable[[MicroBatch], float] = make_llama3_step(
                trainer.config, trainer.batches.widths.vocabulary, case.seq_len, trainer.world
            )
        else:
            step = lambda batch: trainer.learn([batch]).loss  # noqa: E731
        if device.is_gpu:
            torch.cuda.reset_peak_memory_stats()
        seconds, losses, works = [], [], []
        for number in range(sizes.warm_up_steps + sizes.steps):
            batch, work = batches[number % len(batches)]
            start_s = perf_counter()
            losses.append(step(batch))
            _wait(device)
            seconds.append(perf_counter() - start_s)
            works.append(work)
        counts = parameters_of(trainer.config.model, trainer.stream.plan.layout)
        rates: Rates = rates_of(
            Work.sum(works[sizes.warm_up_steps :]),
            wall_s=sum(seconds[sizes.warm_up_steps :]),
            devices=1,
            # Only a part of the products is in float8, so a share of the float8 peak would be misleading.
            peak_flops=None if case.fp8 else peak_flops(device),
            model=trainer.config.model,
            parameters=counts,
        )
        return CaseResult(
            case.name,
            case.seq_len,
            rows,
            counts.total,
            counts.active,
            rates.tokens_per_s,
            rates.fill,
            rates.useful_mfu,
            rates.slot_mfu,
            1e3 * statistics.median(seconds[sizes.warm_up_steps :]),
            seconds[0],
            torch.cuda.max_memory_allocated() if device.is_gpu else None,
            losses,
        )
    finally:
        trainer.close()


def run_case(folder: Path, case: TrainerCase, sizes: Sizes, device: Device) -> CaseResult:
    """Measures a case with as many rows as fit into memory. A failed case has the reason in `failed`."""
    if case.fp8 and (find_spec("torchao") is None or not device.is_gpu):
        reason = "torchao is not installed" if device.is_gpu else "no GPU"
        return CaseResult(case.name, case.seq_len, failed=f"not measured: {reason}")
    rows = sizes.tokens // case.seq_len
    while True:
        try:
            return measure(folder, case, sizes, device, rows)
        except torch.OutOfMemoryError as error:
            failed = f"{rows} rows do not fit: {_one_line(error)}"
        except Exception as error:
            return CaseResult(
                case.name, case.seq_len, rows, failed=f"{type(error).__name__}: {_one_line(error)}"
            )
        finally:
            _free(device)
            torch._dynamo.reset()
        if rows == 1:
            return CaseResult(case.name, case.seq_len, rows, failed=failed)
        rows //= 2


def measure_masks(folder: Path, sizes: Sizes, device: Device) -> list[dict[str, Any]]:
    """Measures the wall time of building the mask of a batch on its device in each way, for the same rows."""
    results = []
    for seq_len in sizes.seq_lens:
        case = TrainerCase("masks", TINY.dense, seq_len)
        rows = sizes.tokens // seq_len
        trainer = Trainer(make_config(folder, case, rows, on_gpu=False))
        pipeline = RowPipelineSpec.from_plan(trainer.stream.plan, trainer.stream.reader)()
        ends = [pipeline(trainer.stream.plan.row(number))[0].cu_seqlens for number in range(rows)]
        pipeline.close()
        trainer.close()
        where = trainer.world.device
        mask_mod = build_block_mask(ends, seq_len, device=where).mask_mod

        def make_from_spans(ends=ends, seq_len=seq_len, where=where) -> Any:
            return build_block_mask(ends, seq_len, device=where)

        def make_with_torch(
            compiled: bool, seq_len=seq_len, rows=rows, where=where, mask_mod=mask_mod
        ) -> Any:
            return create_block_mask(
                mask_mod, rows, None, seq_len, seq_len, device=str(where), _compile=compiled
            )

        ways: dict[str, Callable[[], Any]] = {
            "from spans": make_from_spans,
            "create_block_mask": lambda: make_with_torch(False),
        }
        if device.is_gpu:
            ways["create_block_mask, compiled"] = lambda: make_with_torch(True)
        line: dict[str, Any] = {"seq_len": seq_len, "rows": rows}
        for name, make in ways.items():
            try:
                line[name] = _median_ms(make, device)
            except Exception as error:
                line[name] = f"{type(error).__name__}: {_one_line(error)}"
        results.append(line)
    return results


def _median_ms(make: Callable[[], Any], device: Device, repetitions: int = 9) -> float:
    make()
    times_ms = []
    for _ in range(repetitions):
        _wait(device)
        start_s = perf_counter()
        make()
        _wait(device)
        times_ms.append(1e3 * (perf_counter() - start_s))
    return statistics.median(times_ms)


def _wait(device: Device) -> None:
    if device.is_gpu:
        torch.cuda.synchronize()


def _free(device: Device) -> None:
    gc.collect()
    if device.is_gpu:
        torch.cuda.empty_cache()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def format_cases(lines: Sequence[CaseResult]) -> Table:
    """Formats the results of the cases as a table."""
    table = Table(title="Training steps on one device", title_justify="left")
    for heading in ("case", "positions", "rows", "parameters", "tokens/s", "fill", "useful MFU", "slot MFU"):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    for heading in ("step, ms", "first step, s", "memory"):
        table.add_column(heading, justify="right")
    for line in lines:
        if line.failed:
            table.add_row(line.name, f"{line.seq_len:,}", line.failed)
            continue
        table.add_row(
            line.name,
            f"{line.seq_len:,}",
            f"{line.rows}",
            f"{line.parameters / 1e6:,.0f}M",
            _format_optional(line.tokens_per_s, ",.0f"),
            _format_optional(line.fill, ".1%"),
            _format_optional(line.useful_mfu, ".1%"),
            _format_optional(line.slot_mfu, ".1%"),
            _format_optional(line.step_ms, ",.0f"),
            _format_optional(line.first_step_s, ",.0f"),
            "" if line.memory_bytes is None else f"{line.memory_bytes / 2**30:.1f} GiB",
        )
    return table


def format_masks(lines: Sequence[dict[str, Any]]) -> Table:
    """Formats the times of the masks as a table."""
    table = Table(title="The mask of a batch, ms", title_justify="left")
    names = list(dict.fromkeys(name for line in lines for name in line))
    for name in names:
        table.add_column(name, justify="right")
    for line in lines:
        table.add_row(
            *(f"{line[name]:.3f}" if isinstance(line[name], float) else str(line[name]) for name in names)
        )
    return table


def _format_optional(value: float | None, format_: str) -> str:
    return "" if value is None else format(value, format_)


def compare_with_targets(lines: Sequence[CaseResult]) -> Iterator[str]:
    """Yields sentences that compare the figures with the target and with the other cases."""
    best = {(line.name, line.seq_len): line for line in lines if not line.failed}
    for (name, seq_len), line in best.items():
        if name != "dense":
            continue
        if line.useful_mfu is not None:
            met = "met" if line.useful_mfu >= TARGET_MFU else "missed"
            yield f"{seq_len:,}: useful MFU {line.useful_mfu:.1%}, target {TARGET_MFU:.0%} {met}"
        for other in ("dense, padded", "torchtitan llama3"):
            baseline = best.get((other, seq_len))
            if baseline is not None and baseline.tokens_per_s and line.tokens_per_s:
                yield f"{seq_len:,}: {line.tokens_per_s / baseline.tokens_per_s:.2f} times the tokens/s of {other}"


def main() -> None:
    """Measures, prints and, on a GPU and with full sizes, writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="use small sizes and write nothing")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="run only cases whose name contains one of these",
    )
    arguments = parser.parse_args()
    device, console = find_device(), Console(width=150)
    if not device.is_gpu and not arguments.tiny:
        parser.error("no GPU is available; use --tiny to run every case with small sizes")
    sizes = TINY if arguments.tiny else FULL
    lines: list[CaseResult] = []
    with tempfile.TemporaryDirectory() as folder:
        make_shards(Path(folder), sizes)
        masks = measure_masks(Path(folder), sizes, device)
        for case in list_cases(sizes):
            if not arguments.only or any(name in case.name for name in arguments.only):
                lines.append(run_case(Path(folder), case, sizes, device))
                summary = lines[-1].failed or f"{lines[-1].tokens_per_s:,.0f} tokens/s"
                console.print(f"{case.name} at {case.seq_len:,}: {summary}")
                # The file is written after each case, so that the results stay if a later case kills the process.
                if device.is_gpu and not arguments.tiny:
                    write_result(lines, masks, device)
    console.print(format_cases(lines), format_masks(masks))
    for line in compare_with_targets(lines):
        console.print(line)
    if not device.is_gpu:
        console.print("no GPU: MFU, memory and float8 were not measured")


def write_result(lines: Sequence[CaseResult], masks: Sequence[dict[str, Any]], device: Device) -> None:
    """Writes the result as JSON."""
    report = {
        "date": datetime.date.today().isoformat(),
        "card": device.name,
        "peak_bf16_flops": peak_flops(device),
        "bf16_states": supports_bf16_states(),
        "machine": {**describe_machine(), "torch": torch.__version__, "torchtitan": version("torchtitan")},
        "cases": [asdict(line) for line in lines],
        "masks_ms": list(masks),
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
