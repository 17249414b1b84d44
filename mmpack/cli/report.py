"""`mmpack report`: what a finished build holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmpack.cli import common
from mmpack.show.console import make_console, print_json
from mmpack.storage.store import storage_errors


def report(
    out: Annotated[str, typer.Argument(help="Folder or URL of finished shards.")],
    picture: Annotated[
        Path | None,
        typer.Option(help="Where to write the sync picture; default report.png beside the shards."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout and nothing else.")
    ] = False,
) -> None:
    """Say what finished shards hold: samples, tokens, sync, and what was set aside."""
    from mmpack.ingest.build_report import build_report
    from mmpack.shards import ShardSet
    from mmpack.show.shard_set_table import plot_build_sync, render_build_report

    common.require_png_suffix(picture, option="--picture")
    shards = ShardSet(out)
    facts = build_report(shards)
    target = picture or (Path(out) / "report.png" if "://" not in out else None)
    if target is not None and facts["sync"]["recordings"]:
        with storage_errors(target, "writing"):
            plot_build_sync(shards, facts, target)
    if as_json:
        print_json(facts)
        return
    make_console().print(render_build_report(facts))
    if target is not None and facts["sync"]["recordings"]:
        typer.echo(f"picture: {target}")
