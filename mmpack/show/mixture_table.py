"""A forecast for a terminal and as JSON values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mmpack.mixture.forecast import MixtureForecast


def forecast_report(seen: MixtureForecast, caps: list[float | None], documents: list[int]) -> dict[str, Any]:
    """The forecast as plain data: data sets, phases with their tokens, shares and epochs, findings.

    Args:
        seen: the forecast.
        caps: max_epochs of each data set.
        documents: of one epoch of each data set.
    """
    schedule, course = seen.quota_curve.schedule, seen.quota_curve
    names = schedule.datasets
    return {
        "tokens": int(seen.phase_edges[-1]),
        "ends_by": course.ends_by,
        "end_tokens": course.end_tokens,
        "datasets": {
            name: {
                "epoch_tokens": int(seen.sizes[i]),
                "epoch_documents": documents[i],
                "max_epochs": caps[i],
                "tokens": int(seen.total_tokens[i]),
                "epochs": float(seen.total_epochs[i]),
            }
            for i, name in enumerate(names)
        },
        "phases": [
            {
                "name": name,
                "start_tokens": int(seen.phase_edges[number]),
                "end_tokens": int(seen.phase_edges[number + 1]),
                "tokens": dict(zip(names, seen.tokens[number].tolist(), strict=True)),
                "shares": dict(zip(names, seen.shares[number].tolist(), strict=True)),
                "epochs": dict(zip(names, seen.epochs[number].tolist(), strict=True)),
            }
            for number, name in enumerate(schedule.phases)
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
            for finding in seen.findings
        ],
    }


def forecast_table(seen: MixtureForecast, caps: list[float | None], documents: list[int]) -> RenderableType:
    """Data sets × phases for people; the arguments are those of `facts`."""
    from rich.table import Table
    from rich.text import Text

    from mmpack.mixture.forecast import format_epochs

    schedule = seen.quota_curve.schedule
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for head in ("data set", "one epoch"):
        shown.add_column(head, justify="left" if head == "data set" else "right")
    for number, name in enumerate(schedule.phases):
        start, stop = (format_short_tokens(edge) for edge in seen.phase_edges[number : number + 2].tolist())
        head = Text(f"{name}\n{start} – {stop}" if start != stop else f"{name}\nnot reached")
        shown.add_column(head, justify="right")
    shown.add_column("whole run", justify="right")
    shown.add_column("cap", justify="right")
    spent = {dataset for dataset, tokens in seen.quota_curve.exhausted if tokens <= seen.phase_edges[-1]}
    for i, name in enumerate(schedule.datasets):
        cells = [
            f"{format_short_tokens(tokens):>5}  {share:6.2%}  {format_epochs(epochs):>6} ep"
            if tokens
            else "–"
            for tokens, share, epochs in zip(
                seen.tokens[:, i].tolist(), seen.shares[:, i], seen.epochs[:, i], strict=True
            )
        ]
        whole = f"{format_short_tokens(int(seen.total_tokens[i])):>5}  {format_epochs(seen.total_epochs[i]):>6} ep"
        cap = "–" if caps[i] is None else f"{caps[i]:g} ep{', reached' if i in spent else ''}"
        size = f"{format_short_tokens(int(seen.sizes[i]))} in {documents[i]:,}"
        shown.add_row(Text(name), size, *cells, whole, cap)
    return shown


def format_short_tokens(tokens: int) -> str:
    from mmpack.mixture.forecast import format_tokens

    return format_tokens(tokens)
