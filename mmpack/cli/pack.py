"""The command `mmpack pack`: plans training rows for a shard set from its index alone, and prints their statistics."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmpack.cli.common import JsonOption
from mmpack.errors import ConfigError, DataError
from mmpack.show.console import make_console, print_json
from mmpack.show.plots import require_png_suffix, write_plot

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mmpack.packing import RankSchedule, RunPacking
    from mmpack.plan.index_runs import IndexRuns


def pack(
    out: Annotated[str, typer.Argument(help="Folder or URL of a shard set.")],
    max_seq_len: Annotated[int, typer.Option(min=1, help="Number of positions of a row.")] = 8192,
    ranks: Annotated[int, typer.Option(min=1, help="Number of data-parallel ranks that share a step.")] = 8,
    global_batch: Annotated[
        int | None,
        typer.Option(min=1, help="Number of rows of a step over all ranks; default: one per rank."),
    ] = None,
    quadratic: Annotated[
        float, typer.Option(min=0, help="Factor of l² in the cost of a document of length l.")
    ] = 1.0,
    linear: Annotated[
        float, typer.Option(min=0, help="Factor of l in the cost of a document of length l.")
    ] = 0.0,
    fill: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Cut runs to complete rows up to this fill. 0 cuts only runs that are longer than a row.",
        ),
    ] = 1.0,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the choice between documents of equal length.")
    ] = 0,
    plot: Annotated[
        Path | None, typer.Option(help="Write a PNG with histograms of fill and cost to this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Plan rows for a shard set from its index: fill, documents per row, cuts, balance over ranks."""
    import numpy as np

    from mmpack.packing import RunLengths, balance_rows, pack_runs, row_costs
    from mmpack.plan.index_runs import load_index_runs
    from mmpack.shards import ShardSet

    require_png_suffix(plot)
    for option, factor in (("--quadratic", quadratic), ("--linear", linear)):
        if not math.isfinite(factor):
            raise ConfigError(f"{factor} is not a finite number", where=option, hint="Give a number from 0.")
    shards = ShardSet(out)
    index = shards.index
    runs = load_index_runs(index, shards.manifest)
    _check_lengths(runs, index["key"], max_seq_len)
    # The first call after an installation compiles the packer, which must not count as planning time.
    pack_runs(RunLengths([1, 1], [0, 2]), 1)
    start = time.process_time()
    run_packing = pack_runs(
        RunLengths(runs.lengths, runs.offsets, runs.overhead), max_seq_len, fill=fill, seed=seed
    )
    seconds = time.process_time() - start
    with np.errstate(over="ignore"):
        costs = row_costs(run_packing.packing, run_packing.lengths, quadratic=quadratic, linear=linear)
        total = costs.sum()
    if not math.isfinite(total):
        raise ConfigError(
            f"the costs of the rows exceed the largest float with --quadratic {quadratic} and --linear {linear}",
            hint="Give smaller factors.",
        )
    batch = global_batch or ranks
    schedule = (
        balance_rows(costs, global_batch=batch, ranks=ranks, seed=seed) if len(costs) >= batch else None
    )
    report = _summarise(runs, run_packing, schedule, max_seq_len=max_seq_len, seconds=seconds)
    report |= {"ranks": ranks, "global_batch": batch}
    if plot is not None:
        write_plot("packing", plot, run_packing, costs, max_seq_len)
    if as_json:
        print_json(report)
        return
    make_console().print(_make_table(report))
    if plot is not None:
        typer.echo(f"plot: {plot}")


def _check_lengths(runs: IndexRuns, keys: Any, max_seq_len: int) -> None:
    """Raises DataError if a sample is longer than a row; the error names the sample by its key."""
    import numpy as np

    lengths = runs.lengths + np.repeat(runs.overhead, np.diff(runs.offsets))
    too_long = np.flatnonzero(lengths > max_seq_len)
    if len(too_long):
        key, longest = keys[int(too_long[0])].as_py(), int(lengths.max())
        raise DataError(
            f"{len(too_long)} samples are longer than a row of {max_seq_len} positions; the first has "
            f"{lengths[too_long[0]]} tokens",
            where=f"sample '{key}'",
            hint=f"Raise --max-seq-len to {longest}, or lower layout.vision.max_tokens and build again.",
        )


def _summarise(
    runs: IndexRuns,
    run_packing: RunPacking,
    schedule: RankSchedule | None,
    *,
    max_seq_len: int,
    seconds: float,
) -> dict[str, Any]:
    import numpy as np

    packing = run_packing.packing
    positions = max(packing.rows * max_seq_len, 1)
    per_row = np.diff(packing.offsets)
    share = {name: int(counts.sum()) / positions for name, counts in runs.by_modality.items()}
    share["document_overhead"] = (packing.tokens - int(runs.lengths.sum())) / positions
    return {
        "max_seq_len": max_seq_len,
        "samples": len(runs.lengths),
        "runs": len(runs.overhead),
        "documents": len(run_packing.lengths),
        "rows": packing.rows,
        "fill": packing.fill,
        "fill_bound": packing.fill_bound,
        "rows_lower_bound": packing.lower_bound,
        "rows_above_bound": packing.excess_rows,
        "share_of_positions": share | {"padding": 1 - packing.fill},
        "documents_per_row": {
            "mean": float(per_row.mean()) if len(per_row) else 0.0,
            "p50": float(np.median(per_row)) if len(per_row) else 0.0,
            "max": int(per_row.max(initial=0)),
        },
        "cuts": run_packing.cuts,
        "forced_cuts": run_packing.forced_cuts,
        "cpu_s": seconds,
        "steps": len(schedule.rows) if schedule else 0,
        "unscheduled_rows": len(schedule.unscheduled_rows) if schedule else packing.rows,
        "utilisation": schedule.efficiency if schedule else None,
        "utilisation_worst_step": float(schedule.utilisation.min()) if schedule else None,
    }


def _make_table(report: dict[str, Any]) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row(
        "rows",
        f"{report['rows']} of {report['max_seq_len']} positions, from {report['samples']} samples in {report['runs']} runs",
    )
    table.add_row(
        "fill",
        f"{report['fill']:.3%}; at least {report['rows_lower_bound']} rows are needed ({report['fill_bound']:.3%}), "
        f"{report['rows_above_bound']} above that",
    )
    shares = ", ".join(
        f"{name.replace('_', ' ')} {share:.2%}"
        for name, share in report["share_of_positions"].items()
        if share > 0
    )
    table.add_row("positions", shares)
    per_row = report["documents_per_row"]
    table.add_row(
        "documents",
        f"{report['documents']}: {per_row['mean']:.1f} per row, median {per_row['p50']:.0f}, maximum {per_row['max']}",
    )
    table.add_row(
        "cuts",
        f"{report['cuts']} between slices, {report['forced_cuts']} of them because a run is longer than a row",
    )
    if report["utilisation"] is None:
        table.add_row(
            "balance", f"{report['rows']} rows do not fill one step of {report['global_batch']} rows"
        )
    else:
        table.add_row(
            "balance",
            f"{report['steps']} steps of {report['global_batch']} rows on {report['ranks']} ranks: utilisation "
            f"{report['utilisation']:.4f}, worst step {report['utilisation_worst_step']:.4f}; "
            f"{report['unscheduled_rows']} rows in no step",
        )
    table.add_row("time", f"{report['cpu_s'] * 1e3:.1f} ms CPU")
    return table
