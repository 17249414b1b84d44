"""`mmpack show-row`: one row of a plan as an HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmpack.storage.store import storage_errors


def show_row(
    plan: Annotated[Path, typer.Argument(help="A PLAN.toml.")],
    row: Annotated[int, typer.Argument(min=0, help="Number of the row in the run, from 0.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to write the page; default row-NUMBER.html.")
    ] = None,
    images: Annotated[
        bool,
        typer.Option("--images/--causal", help="Whether the places of one picture see each other both ways."),
    ] = True,
) -> None:
    """Show what a model sees in a row: its documents, their sensors side by side, and who sees whom."""
    from mmpack.plan import open_plan
    from mmpack.show.row_page.planned_row import planned_row_html
    from mmpack.stream import load_plan_config

    page = planned_row_html(open_plan(load_plan_config(plan)), row, bidirectional_images=images)
    path = out or Path(f"row-{row}.html")
    with storage_errors(path, "writing"):
        path.write_text(page, "utf-8")
    typer.echo(f"page: {path}")
