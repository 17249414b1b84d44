"""`mmpack mixture`: what a plan's phases will draw of each data set, before a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmpack.cli import common
from mmpack.show.console import console, print_json
from mmpack.show.mixture_table import _short, facts, table
from mmpack.storage.store import writing


def mixture(
    plan: Annotated[Path, typer.Argument(help="PLAN.toml: data sets and phases.")],
    tokens: Annotated[
        str | None,
        typer.Option(
            help='How far to look, as "1T"; default: to the end, or one epoch into an endless phase.'
        ),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG with shares and epochs over tokens.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout and nothing else.")
    ] = False,
) -> None:
    """Forecast tokens, shares and epochs of each data set in each phase, and where repeat caps bite."""
    from mmpack.mixture.forecast import forecast
    from mmpack.mixture.phase_config import token_count
    from mmpack.plan import open_plan
    from mmpack.stream import load_plan

    common.check_png(plot, option="--plot")
    until = None if tokens is None else token_count(tokens, where="--tokens")
    config = load_plan(plan)
    opened = open_plan(config)
    caps = [each.max_epochs for each in config.datasets]
    seen = forecast(opened.schedule, [each.tokens for each in opened.datasets], caps, until_tokens=until)
    documents = [each.documents for each in opened.datasets]
    if plot is not None:
        from mmpack.show.mixture_plot import draw_forecast

        with writing(plot):
            draw_forecast(seen, plot)
    if as_json:
        print_json(facts(seen, caps, documents))
        return
    console().print(table(seen, caps, documents))
    for finding in seen.findings:
        console().print(f"at {_short(finding.tokens)}: {finding.message}", markup=False)
    if plot is not None:
        typer.echo(f"picture: {plot}")
