"""The command `mmpack report`: prints and plots the contents of a shard set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmpack.cli.common import JsonOption
from mmpack.show.console import make_console, print_json
from mmpack.show.plots import require_png_suffix, write_plot


def report(
    out: Annotated[str, typer.Argument(help="Folder or URL of a shard set.")],
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Write a PNG of the synchronisation to this file; default: report.png in the folder of the shard set.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the contents of a shard set: samples, tokens, synchronisation and quarantined slices."""
    from mmpack.ingest.build_report import build_report
    from mmpack.shards import ShardSet, index
    from mmpack.show.shard_set_table import render_build_report

    require_png_suffix(plot)
    shards = ShardSet(out)
    contents = build_report(shards)
    target = plot or (Path(out) / "report.png" if "://" not in out else None)
    if target is not None and contents["sync"]["recordings"]:
        write_plot("sync", target, index.read_parquet(shards.store, index.SYNC_NAME), contents["sync"])
    if as_json:
        print_json(contents)
        return
    make_console().print(render_build_report(contents))
    if target is not None and contents["sync"]["recordings"]:
        typer.echo(f"plot: {target}")
