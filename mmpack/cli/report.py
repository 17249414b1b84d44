"""The command `mmpack report`: prints and plots the contents of a shard set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmpack.cli import common
from mmpack.show.console import make_console, print_json
from mmpack.storage.store import storage_errors


def report(
    out: Annotated[str, typer.Argument(help="Folder or URL of a shard set.")],
    plot: Annotated[
        Path | None,
        typer.Option(
            "--picture",
            help="Write a PNG of the synchronisation to this file; default: report.png in the folder of the shard set.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else.")
    ] = False,
) -> None:
    """Print the contents of a shard set: samples, tokens, synchronisation and quarantined slices."""
    from mmpack.ingest.build_report import build_report
    from mmpack.shards import ShardSet
    from mmpack.show.shard_set_table import plot_build_sync, render_build_report

    common.require_png_suffix(plot, option="--picture")
    shards = ShardSet(out)
    contents = build_report(shards)
    target = plot or (Path(out) / "report.png" if "://" not in out else None)
    if target is not None and contents["sync"]["recordings"]:
        with storage_errors(target, "writing"):
            plot_build_sync(shards, contents, target)
    if as_json:
        print_json(contents)
        return
    make_console().print(render_build_report(contents))
    if target is not None and contents["sync"]["recordings"]:
        typer.echo(f"plot: {target}")
