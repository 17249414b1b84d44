"""A mixture forecast as a table for a terminal and as JSON values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mmpack.mixture.forecast import MixtureForecast


def forecast_report(
    forecast: MixtureForecast, caps: list[float | None], documents: list[int]
) -> dict[str, Any]:
    """Returns the forecast as JSON values: data sets, phases with their tokens, shares and epochs, findings.

    Args:
        forecast: forecast of the mixture.
        caps: `max_epochs` of each data set; None without a limit.
        documents: number of documents in one epoch of each data set.
    """
    schedule, curve = forecast.quota_curve.schedule, forecast.quota_curve
    names = schedule.datasets
    return {
        "tokens": int(forecast.phase_edges[-1]),
        "ends_by": curve.ends_by,
        "end_tokens": curve.end_tokens,
        "datasets": {
            name: {
                "epoch_tokens": int(forecast.sizes[i]),
                "epoch_documents": documents[i],
                "max_epochs": caps[i],
                "tokens": int(forecast.total_tokens[i]),
                "epochs": float(forecast.total_epochs[i]),
            }
            for i, name in enumerate(names)
        },
        "phases": [
            {
                "name": name,
                "start_tokens": int(forecast.phase_edges[index]),
                "end_tokens": int(forecast.phase_edges[index + 1]),
                "tokens": dict(zip(names, forecast.tokens[index].tolist(), strict=True)),
                "shares": dict(zip(names, forecast.shares[index].tolist(), strict=True)),
                "epochs": dict(zip(names, forecast.epochs[index].tolist(), strict=True)),
            }
            for index, name in enumerate(schedule.phases)
        ],
        "findings": [
            {
                "kind": finding.kind,
                "dataset": finding.dataset,
                "phase": finding.phase,
                "tokens": finding.tokens,
                "message": finding.message,
                "takes_over": [
                    {"dataset": name, "share_before": before, "share_after": after}
                    for name, before, after in finding.takes_over
                ],
            }
            for finding in forecast.warnings
        ],
    }


def forecast_table(
    forecast: MixtureForecast, caps: list[float | None], documents: list[int]
) -> RenderableType:
    """Returns a table of data sets × phases; the arguments are those of :func:`forecast_report`."""
    from rich.table import Table
    from rich.text import Text

    from mmpack.mixture.forecast import format_epochs

    schedule = forecast.quota_curve.schedule
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for head in ("data set", "one epoch"):
        table.add_column(head, justify="left" if head == "data set" else "right")
    for index, name in enumerate(schedule.phases):
        start, stop = (format_short_tokens(edge) for edge in forecast.phase_edges[index : index + 2].tolist())
        head = Text(f"{name}\n{start} – {stop}" if start != stop else f"{name}\nnot reached")
        table.add_column(head, justify="right")
    table.add_column("training run", justify="right")
    table.add_column("cap", justify="right")
    exhausted = {
        dataset for dataset, tokens in forecast.quota_curve.exhausted if tokens <= forecast.phase_edges[-1]
    }
    for i, name in enumerate(schedule.datasets):
        cells = [
            f"{format_short_tokens(tokens):>5}  {share:6.2%}  {format_epochs(epochs):>6} ep"
            if tokens
            else "–"
            for tokens, share, epochs in zip(
                forecast.tokens[:, i].tolist(), forecast.shares[:, i], forecast.epochs[:, i], strict=True
            )
        ]
        total = f"{format_short_tokens(int(forecast.total_tokens[i])):>5}  {format_epochs(forecast.total_epochs[i]):>6} ep"
        cap = "–" if caps[i] is None else f"{caps[i]:g} ep{', reached' if i in exhausted else ''}"
        size = f"{format_short_tokens(int(forecast.sizes[i]))} in {documents[i]:,}"
        table.add_row(Text(name), size, *cells, total, cap)
    return table


def format_short_tokens(tokens: int) -> str:
    """Formats a number of tokens with a unit prefix; imports the mixture package only when it is called."""
    from mmpack.mixture.forecast import format_tokens

    return format_tokens(tokens)
