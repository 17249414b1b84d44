"""The command `mmpack mixture`: forecasts the tokens that each phase of a plan draws from each data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmpack.cli.common import JsonOption
from mmpack.show.console import make_console, print_json
from mmpack.show.mixture_table import forecast_report, forecast_table, format_short_tokens
from mmpack.show.plots import require_png_suffix, write_plot


def mixture(
    plan: Annotated[Path, typer.Argument(help="PLAN.toml with data sets and phases.")],
    tokens: Annotated[
        str | None,
        typer.Option(
            help='Number of tokens to forecast, as in "1T". Default: all tokens of the plan, or one epoch of an endless phase.'
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write a PNG with shares and epochs over tokens to this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Forecast tokens, shares and epochs of each data set in each phase, and when repeat caps are reached."""
    from mmpack.mixture.forecast import forecast_mixture
    from mmpack.mixture.phase_config import parse_token_count
    from mmpack.stream import load_plan

    require_png_suffix(plot)
    until = None if tokens is None else parse_token_count(tokens, where="--tokens")
    opened_plan = load_plan(plan)
    caps = [dataset.max_epochs for dataset in opened_plan.config.datasets]
    forecast = forecast_mixture(
        opened_plan.schedule, [dataset.tokens for dataset in opened_plan.datasets], caps, until_tokens=until
    )
    documents = [dataset.num_documents for dataset in opened_plan.datasets]
    if plot is not None:
        write_plot("mixture", plot, forecast)
    if as_json:
        print_json(forecast_report(forecast, caps, documents))
        return
    make_console().print(forecast_table(forecast, caps, documents))
    for warning in forecast.warnings:
        make_console().print(f"at {format_short_tokens(warning.tokens)}: {warning.message}", markup=False)
    if plot is not None:
        typer.echo(f"plot: {plot}")
