"""`mmpack pack`: how a built data set packs into training rows, planned from its index alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmpack.cli import common
from mmpack.errors import DataError
from mmpack.show.console import make_console, print_json
from mmpack.show.packing_plot import plot_packing
from mmpack.storage.store import storage_errors

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mmpack.packing import RankSchedule, RunPacking
    from mmpack.plan.index_runs import IndexRuns


def pack(
    out: Annotated[str, typer.Argument(help="Folder or URL of finished shards.")],
    max_seq_len: Annotated[int, typer.Option(min=1, help="Token places of a row.")] = 8192,
    ranks: Annotated[int, typer.Option(min=1, help="Data-parallel ranks that share a step.")] = 8,
    global_batch: Annotated[
        int | None, typer.Option(min=1, help="Rows of a step over all ranks; default one per rank.")
    ] = None,
    quadratic: Annotated[
        float, typer.Option(min=0, help="Cost of a document of length l: this times l² ...")
    ] = 1.0,
    linear: Annotated[float, typer.Option(min=0, help="... plus this times l.")] = 0.0,
    fill: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Runs are cut to complete rows up to this fill; 0: only where they must."
        ),
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Which documents of a length go where.")] = 0,
    plot: Annotated[Path | None, typer.Option(help="PNG with histograms of fill and cost.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout and nothing else.")
    ] = False,
) -> None:
    """Plan rows for a whole build from its index: fill, documents per row, cuts, balance over ranks."""
    from mmpack.packing import balance_rows, pack_runs, row_costs
    from mmpack.plan.index_runs import load_index_runs
    from mmpack.shards import ShardSet

    common.require_png_suffix(plot, option="--plot")
    shards = ShardSet(out)
    index = shards.index
    chains = load_index_runs(index, shards.manifest)
    _check_lengths(chains, index["key"], max_seq_len)
    # The first call after an installation compiles; what is timed is the plan.
    pack_runs([1, 1], [0, 2], 1)
    start = time.process_time()
    planned = pack_runs(
        chains.lengths, chains.offsets, max_seq_len, overhead=chains.overhead, fill=fill, seed=seed
    )
    seconds = time.process_time() - start
    costs = row_costs(planned.packing, planned.lengths, quadratic=quadratic, linear=linear)
    batch = global_batch or ranks
    schedule = (
        balance_rows(costs, global_batch=batch, ranks=ranks, seed=seed) if len(costs) >= batch else None
    )
    facts = _summarise(chains, planned, schedule, max_seq_len=max_seq_len, seconds=seconds)
    facts |= {"ranks": ranks, "global_batch": batch}
    if plot is not None:
        with storage_errors(plot, "writing"):
            plot_packing(planned, costs, plot, max_seq_len)
    if as_json:
        print_json(facts)
        return
    make_console().print(_table(facts))
    if plot is not None:
        typer.echo(f"picture: {plot}")


def _check_lengths(chains: IndexRuns, keys: Any, max_seq_len: int) -> None:
    """Refuses a sample longer than a row by its key, which says more than its number."""
    import numpy as np

    whole = chains.lengths + np.repeat(chains.overhead, np.diff(chains.offsets))
    too_long = np.flatnonzero(whole > max_seq_len)
    if len(too_long):
        key, longest = keys[int(too_long[0])].as_py(), int(whole.max())
        raise DataError(
            f"{len(too_long)} samples are longer than a row of {max_seq_len} places, the first has {whole[too_long[0]]}",
            where=f"sample '{key}'",
            hint=f"Raise --max-seq-len to {longest}, or lower layout.vision.max_tokens and build again.",
        )


def _summarise(
    chains: IndexRuns, planned: RunPacking, schedule: RankSchedule | None, *, max_seq_len: int, seconds: float
) -> dict[str, Any]:
    import numpy as np

    packing = planned.packing
    places = max(packing.rows * max_seq_len, 1)
    per_row = np.diff(packing.offsets)
    share = {name: int(counts.sum()) / places for name, counts in chains.by_modality.items()}
    share["wrapping"] = (packing.tokens - int(chains.lengths.sum())) / places
    return {
        "max_seq_len": max_seq_len,
        "samples": len(chains.lengths),
        "chains": len(chains.overhead),
        "documents": len(planned.lengths),
        "rows": packing.rows,
        "fill": packing.fill,
        "fill_bound": packing.fill_bound,
        "rows_lower_bound": packing.lower_bound,
        "rows_above_bound": packing.excess_rows,
        "share_of_places": share | {"pads": 1 - packing.fill},
        "documents_per_row": {
            "mean": float(per_row.mean()) if len(per_row) else 0.0,
            "p50": float(np.median(per_row)) if len(per_row) else 0.0,
            "max": int(per_row.max(initial=0)),
        },
        "cuts": planned.cuts,
        "cuts_forced": planned.forced_cuts,
        "cpu_s": seconds,
        "steps": len(schedule.rows) if schedule else 0,
        "rows_left": len(schedule.unscheduled_rows) if schedule else packing.rows,
        "utilisation": schedule.efficiency if schedule else None,
        "utilisation_worst_step": float(schedule.utilisation.min()) if schedule else None,
    }


def _table(facts: dict[str, Any]) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row(
        "rows",
        f"{facts['rows']} of {facts['max_seq_len']} places, from {facts['samples']} samples in {facts['chains']} chains",
    )
    table.add_row(
        "fill",
        f"{facts['fill']:.3%}; at least {facts['rows_lower_bound']} rows are needed ({facts['fill_bound']:.3%}), "
        f"{facts['rows_above_bound']} above that",
    )
    shares = ", ".join(f"{name} {share:.2%}" for name, share in facts["share_of_places"].items() if share > 0)
    table.add_row("places", shares)
    per_row = facts["documents_per_row"]
    table.add_row(
        "documents",
        f"{facts['documents']}: {per_row['mean']:.1f} a row, median {per_row['p50']:.0f}, most {per_row['max']}",
    )
    table.add_row(
        "cuts", f"{facts['cuts']} between slices, {facts['cuts_forced']} of them forced by the length of rows"
    )
    if facts["utilisation"] is None:
        table.add_row("balance", f"{facts['rows']} rows do not fill one step of {facts['global_batch']}")
    else:
        table.add_row(
            "balance",
            f"{facts['steps']} steps of {facts['global_batch']} rows on {facts['ranks']} ranks: utilisation "
            f"{facts['utilisation']:.4f}, worst step {facts['utilisation_worst_step']:.4f}; {facts['rows_left']} rows left over",
        )
    table.add_row("time", f"{facts['cpu_s'] * 1e3:.1f} ms CPU")
    return table
