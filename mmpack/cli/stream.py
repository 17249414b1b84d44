"""`mmpack stream`: the rows of a plan, read and decoded; how fast, and what they hold."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmpack.cli.progress import ProgressBar
from mmpack.errors import ConfigError
from mmpack.show.console import make_console, print_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mmpack.plan import Plan
    from mmpack.stream import RowStream


def stream(
    plan: Annotated[Path, typer.Argument(help="A PLAN.toml.")],
    rows: Annotated[int, typer.Option(min=1, help="Rows of this rank to read.")] = 64,
    first_step: Annotated[int, typer.Option(min=0, help="Step to begin with.")] = 0,
    rank: Annotated[int, typer.Option(min=0, help="Data-parallel rank.")] = 0,
    ranks: Annotated[int, typer.Option(min=1, help="Data-parallel ranks.")] = 1,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes, in place of the plan's.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads, in place of the plan's.")] = None,
    prefetch: Annotated[int | None, typer.Option(min=1, help="Rows ahead, in place of the plan's.")] = None,
    benchmark: Annotated[bool, typer.Option("--benchmark", help="Rates, and where the time goes.")] = False,
    balance: Annotated[
        bool, typer.Option("--balance", help="What each setting of `balance` buys and costs; reads no media.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout and nothing else.")
    ] = False,
) -> None:
    """Read a plan's rows as a training loop would."""
    from mmpack.stream import RowStream

    given = {"workers": workers, "threads": threads, "prefetch": prefetch}
    overrule = {name: value for name, value in given.items() if value is not None}
    started = time.perf_counter()
    with RowStream.open(plan, rank=rank, ranks=ranks, reader=overrule) as source:
        opened_s = time.perf_counter() - started
        if balance:
            _print_balance_report(source.plan, ranks, as_json)
            return
        source.seek(first_step)
        facts = _measure_stream(source, rows, opened_s)
        if benchmark:
            from mmpack.stream.profile import profile_rows

            facts["one_row_ms"] = profile_rows(source.plan, rows=min(facts["rows"], 8), first_step=first_step)
    if as_json:
        print_json(facts)
    else:
        make_console().print(_table(facts, benchmark))


def _measure_stream(source: RowStream, rows: int, opened_s: float) -> dict[str, Any]:
    import numpy as np

    from mmpack.layout import Modality

    names = [each.name for each in source.plan.datasets]
    modalities = np.zeros(len(Modality), np.int64)
    shares = np.zeros(len(names), np.int64)
    documents = tokens = count = size_bytes = 0
    first_s = 0.0
    started = time.perf_counter()
    with ProgressBar("stream", "rows") as bar:
        for row in source:
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
        raise ConfigError("the run has ended before it", where="--first-step", hint="Choose an earlier step.")
    steady_s = max(wall_s - first_s, 1e-9)
    places = count * source.plan.config.max_seq_len
    return {
        "rows": count,
        "documents": documents,
        "tokens": tokens,
        "fill": tokens / places,
        "datasets": dict(zip(names, (shares / max(shares.sum(), 1)).tolist(), strict=True)),
        "modalities": {each.name.lower(): int(modalities[each]) / places for each in Modality},
        "gated": source.plan.num_excluded_slices,
        "unreadable": source.quarantine.count,
        "workers": source.reader.workers,
        "threads": source.reader.threads,
        "open_s": opened_s,
        "first_row_s": first_s,
        "rows_per_s": (count - 1) / steady_s if count > 1 else 1 / wall_s,
        "tokens_per_s": tokens * (count - 1) / count / steady_s if count > 1 else tokens / wall_s,
        "mb_per_s": size_bytes / 1e6 * (count - 1) / count / steady_s
        if count > 1
        else size_bytes / 1e6 / wall_s,
    }


def _table(facts: dict[str, Any], benchmark: bool) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))

    def shares(values: dict[str, float]) -> str:
        return ", ".join(f"{name} {share:.2%}" for name, share in values.items() if share > 0)

    table.add_row("rows", f"{facts['rows']}, {facts['documents']} documents, {facts['tokens']} tokens")
    table.add_row("fill", f"{facts['fill']:.3%}")
    table.add_row("data sets", shares(facts["datasets"]))
    table.add_row("places", shares(facts["modalities"]))
    gated = {name: count for name, count in facts["gated"].items() if count}
    if gated:
        told = ", ".join(f"{count} slices of {name}" for name, count in gated.items())
        table.add_row("sync gate", f"{told} exceed the plan's tolerance and are not planned")
    table.add_row("unreadable", f"{facts['unreadable']} samples")
    if benchmark:
        table.add_row("opened in", f"{facts['open_s']:.3f} s")
        table.add_row("first row", f"after {facts['first_row_s']:.3f} s")
        table.add_row(
            "rate",
            f"{facts['rows_per_s']:.1f} rows/s, {facts['tokens_per_s']:.0f} tokens/s, {facts['mb_per_s']:.0f} MB/s of rows "
            f"({facts['workers']} workers, {facts['threads']} threads)",
        )
        spent = facts["one_row_ms"]
        whole = sum(spent.values())
        told = ", ".join(f"{name} {ms:.2f} ms ({ms / whole:.1%})" for name, ms in spent.items())
        table.add_row("one row", f"{told}; CPU time of one thread")
    return table


def _print_balance_report(plan: Plan, ranks: int, as_json: bool) -> None:
    from dataclasses import asdict

    from mmpack.plan.balance_report import compare_balance_modes

    found = compare_balance_modes(plan, ranks=ranks, windows=4)
    if as_json:
        print_json(
            {"ranks": ranks, "in_force": plan.config.balance, "modes": [asdict(each) for each in found]}
        )
        return
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("balance", "ranks at work", "worst step", "length spread", "share error", "fill"):
        table.add_column(name, justify="left" if name == "balance" else "right")
    for each in found:
        mark = " (in force)" if each.mode == plan.config.balance else ""
        table.add_row(
            f"{each.mode}{mark}",
            f"{each.utilisation:.4f}",
            f"{each.worst:.4f}",
            f"{each.length_spread:.3f}",
            f"{each.share_error:.3f}",
            f"{each.fill:.3%}",
        )
    make_console().print(table)
    typer.echo(
        f"{ranks} ranks, {plan.config.global_batch} rows a step. Ranks at work: mean / largest cost of a step's ranks. "
        "Length spread: how unlike steps are in document length. Share error: how far a step's shares are from its window's."
    )
