"""The command `mmpack stream`: reads rows of a plan, and reports their contents and the reading rate."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmpack.cli.common import JsonOption
from mmpack.cli.progress import ProgressBar
from mmpack.errors import ConfigError
from mmpack.show.console import make_console, print_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mmpack.plan import Plan
    from mmpack.stream import RowStream


def stream(
    plan: Annotated[Path, typer.Argument(help="PLAN.toml of the training run.")],
    rows: Annotated[int, typer.Option(min=1, help="Number of rows of this rank to read.")] = 64,
    first_step: Annotated[int, typer.Option(min=0, help="First step to read, from 0.")] = 0,
    rank: Annotated[int, typer.Option(min=0, help="Index of this data-parallel rank, from 0.")] = 0,
    ranks: Annotated[int, typer.Option(min=1, help="Number of data-parallel ranks.")] = 1,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Number of worker processes; default: reader.workers of the plan."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=0, help="Number of threads; default: reader.threads of the plan.")
    ] = None,
    prefetch: Annotated[
        int | None,
        typer.Option(min=1, help="Number of rows to prefetch; default: reader.prefetch of the plan."),
    ] = None,
    benchmark: Annotated[
        bool, typer.Option("--benchmark", help="Also print rates, and the CPU time of each stage of a row.")
    ] = False,
    balance: Annotated[
        bool, typer.Option("--balance", help="Only compare the settings of `balance`; no rows are read.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Read the rows of a plan as a training loop does, and report what they contain."""
    from mmpack.stream import RowStream

    options = {"workers": workers, "threads": threads, "prefetch": prefetch}
    overrides = {name: value for name, value in options.items() if value is not None}
    started = time.perf_counter()
    with RowStream.open(plan, rank=rank, ranks=ranks, reader=overrides) as row_stream:
        opened_s = time.perf_counter() - started
        if balance:
            _print_balance_report(row_stream.plan, ranks, as_json)
            return
        row_stream.seek(first_step)
        report = _measure_stream(row_stream, rows, opened_s)
        if benchmark:
            from mmpack.stream.profile import profile_rows

            report["one_row_ms"] = profile_rows(
                row_stream.plan, rows=min(report["rows"], 8), first_step=first_step
            )
    if as_json:
        print_json(report)
    else:
        make_console().print(_make_table(report, benchmark))


def _measure_stream(row_stream: RowStream, rows: int, opened_s: float) -> dict[str, Any]:
    """Reads `rows` rows, or all rows if there are fewer, and returns the report as JSON values."""
    import numpy as np

    from mmpack.layout import Modality

    names = [dataset.name for dataset in row_stream.plan.datasets]
    modalities = np.zeros(len(Modality), np.int64)
    shares = np.zeros(len(names), np.int64)
    documents = tokens = count = size_bytes = 0
    first_s = 0.0
    started = time.perf_counter()
    with ProgressBar("stream", "rows") as bar:
        for row in row_stream:
            count += 1
            if count == 1:
                first_s = time.perf_counter() - started
            lengths = np.diff(row.cu_seqlens)
            documents += len(lengths)
            tokens += row.tokens
            size_bytes += sum(array.nbytes for array in row.arrays().values())
            modalities += np.bincount(row.modality[: row.cu_seqlens[-1]], minlength=len(Modality))
            np.add.at(shares, row.datasets, lengths)
            bar.update(count, rows)
            if count == rows:
                break
    wall_s = time.perf_counter() - started
    if not count:
        raise ConfigError(
            "the training stream ends before this step", where="--first-step", hint="Choose an earlier step."
        )
    steady_s = max(wall_s - first_s, 1e-9)
    positions = count * row_stream.plan.config.max_seq_len
    return {
        "rows": count,
        "documents": documents,
        "tokens": tokens,
        "fill": tokens / positions,
        "datasets": dict(zip(names, (shares / max(shares.sum(), 1)).tolist(), strict=True)),
        "modalities": {modality.name.lower(): int(modalities[modality]) / positions for modality in Modality},
        "excluded_slices": row_stream.plan.num_excluded_slices,
        "unreadable": row_stream.quarantine.count,
        "workers": row_stream.reader.workers,
        "threads": row_stream.reader.threads,
        "open_s": opened_s,
        "first_row_s": first_s,
        "rows_per_s": (count - 1) / steady_s if count > 1 else 1 / wall_s,
        "tokens_per_s": tokens * (count - 1) / count / steady_s if count > 1 else tokens / wall_s,
        "mb_per_s": size_bytes / 1e6 * (count - 1) / count / steady_s
        if count > 1
        else size_bytes / 1e6 / wall_s,
    }


def _make_table(report: dict[str, Any], benchmark: bool) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))

    def shares(values: dict[str, float]) -> str:
        return ", ".join(f"{name} {share:.2%}" for name, share in values.items() if share > 0)

    table.add_row("rows", f"{report['rows']}, {report['documents']} documents, {report['tokens']} tokens")
    table.add_row("fill", f"{report['fill']:.3%}")
    table.add_row("data sets", shares(report["datasets"]))
    table.add_row("positions", shares(report["modalities"]))
    excluded = {name: count for name, count in report["excluded_slices"].items() if count}
    if excluded:
        counts = ", ".join(f"{count} slices of {name}" for name, count in excluded.items())
        table.add_row("excluded", f"{counts} exceed the tolerance of the plan")
    table.add_row("unreadable", f"{report['unreadable']} samples")
    if benchmark:
        table.add_row("opened in", f"{report['open_s']:.3f} s")
        table.add_row("first row", f"after {report['first_row_s']:.3f} s")
        table.add_row(
            "rate",
            f"{report['rows_per_s']:.1f} rows/s, {report['tokens_per_s']:.0f} tokens/s, {report['mb_per_s']:.0f} MB/s of rows "
            f"({report['workers']} workers, {report['threads']} threads)",
        )
        stages = report["one_row_ms"]
        total_ms = sum(stages.values())
        times = ", ".join(f"{name} {ms:.2f} ms ({ms / total_ms:.1%})" for name, ms in stages.items())
        table.add_row("one row", f"{times}; CPU time of one thread")
    return table


def _print_balance_report(plan: Plan, ranks: int, as_json: bool) -> None:
    from dataclasses import asdict

    from mmpack.plan.balance_report import compare_balance_modes

    modes = compare_balance_modes(plan, ranks=ranks, windows=4)
    if as_json:
        print_json(
            {"ranks": ranks, "configured": plan.config.balance, "modes": [asdict(mode) for mode in modes]}
        )
        return
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("balance", "utilisation", "worst step", "length spread", "share error", "fill"):
        table.add_column(name, justify="left" if name == "balance" else "right")
    for mode in modes:
        mark = " (current)" if mode.mode == plan.config.balance else ""
        table.add_row(
            f"{mode.mode}{mark}",
            f"{mode.utilisation:.4f}",
            f"{mode.worst_step:.4f}",
            f"{mode.length_spread:.3f}",
            f"{mode.share_error:.3f}",
            f"{mode.fill:.3%}",
        )
    make_console().print(table)
    typer.echo(
        f"{ranks} ranks, {plan.config.global_batch} rows per step. Utilisation: mean / largest cost of the ranks of a step. "
        "Length spread: variation of the document length between steps. Share error: difference between the token shares of a "
        "step and those of its window."
    )
