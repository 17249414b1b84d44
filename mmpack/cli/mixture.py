"""`mmpack mixture`: what a plan's phases will draw of each data set, before a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmpack.cli import common
from mmpack.show.console import make_console, print_json
from mmpack.show.mixture_table import forecast_report, forecast_table, format_short_tokens
from mmpack.storage.store import storage_errors


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
    from mmpack.mixture.forecast import forecast_mixture
    from mmpack.mixture.phase_config import parse_token_count
    from mmpack.plan import open_plan
    from mmpack.stream import load_plan_config

    common.require_png_suffix(plot, option="--plot")
    until = None if tokens is None else parse_token_count(tokens, where="--tokens")
    config = load_plan_config(plan)
    opened = open_plan(config)
    caps = [each.max_epochs for each in config.datasets]
    seen = forecast_mixture(
        opened.schedule, [each.tokens for each in opened.datasets], caps, until_tokens=until
    )
    documents = [each.documents for each in opened.datasets]
    if plot is not None:
        from mmpack.show.mixture_plot import plot_forecast

        with storage_errors(plot, "writing"):
            plot_forecast(seen, plot)
    if as_json:
        print_json(forecast_report(seen, caps, documents))
        return
    make_console().print(forecast_table(seen, caps, documents))
    for finding in seen.findings:
        make_console().print(f"at {format_short_tokens(finding.tokens)}: {finding.message}", markup=False)
    if plot is not None:
        typer.echo(f"picture: {plot}")
