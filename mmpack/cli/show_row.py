"""The command `mmpack show-row`: renders one row of a plan as an HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmpack.storage.store import storage_errors


def show_row(
    plan: Annotated[Path, typer.Argument(help="PLAN.toml of the training run.")],
    row: Annotated[int, typer.Argument(min=0, help="Number of the row in the plan, from 0.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File of the page; default: row-NUMBER.html.")
    ] = None,
    bidirectional_images: Annotated[
        bool,
        typer.Option(
            "--bidirectional-images/--causal",
            help="Let the positions of one image attend to each other in both directions, or attend causally.",
        ),
    ] = True,
) -> None:
    """Write a page with the documents of a row, their sensors side by side, and the attention between positions."""
    from mmpack.show.row_page.planned_row import planned_row_html
    from mmpack.stream import load_plan

    page = planned_row_html(load_plan(plan), row, bidirectional_images=bidirectional_images)
    path = out or Path(f"row-{row}.html")
    with storage_errors(path, "writing"):
        path.write_text(page, "utf-8")
    typer.echo(f"page: {path}")
