"""`mmpack report`: what a finished build holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmpack.cli import common
from mmpack.show.console import console, print_json
from mmpack.storage.store import writing


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
    from mmpack.shards import Shards
    from mmpack.show.shard_set_table import draw_build, render_build

    common.check_png(picture, option="--picture")
    shards = Shards(out)
    facts = build_report(shards)
    target = picture or (Path(out) / "report.png" if "://" not in out else None)
    if target is not None and facts["sync"]["recordings"]:
        with writing(target):
            draw_build(shards, facts, target)
    if as_json:
        print_json(facts)
        return
    console().print(render_build(facts))
    if target is not None and facts["sync"]["recordings"]:
        typer.echo(f"picture: {target}")
