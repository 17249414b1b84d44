"""`mmpack-audit`: the leak audit of a run's model on rows of its plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmpack.show.console import make_console, print_json
from mmpack_trainer.entry import run_app

if TYPE_CHECKING:
    from rich.table import Table

    from mmpack_trainer.audit import AuditReport

app = typer.Typer(
    help="Leak audit: nothing of one document may reach another.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def audit_command(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(help="The run's CONFIG.toml; --section.key=value overrules it.")],
    rows: Annotated[int, typer.Option(min=1, help="How many rows of the plan.")] = 2,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="First weights, even where the run has a checkpoint.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout and nothing else.")
    ] = False,
) -> None:
    """Change every document of some rows in turn, and check that the others give the same."""
    from mmpack_trainer.audit_run import audit_run
    from mmpack_trainer.config.load import load_config

    reports = list(audit_run(load_config(config, context.args), rows=rows, fresh=fresh))
    is_tight = all(report.is_tight for report in reports)
    if as_json:
        print_json({"tight": is_tight, "rows": [_facts(report) for report in reports]})
    else:
        _show(reports, is_tight=is_tight)
    if not is_tight:
        raise typer.Exit(1)


def _show(reports: list[AuditReport], *, is_tight: bool) -> None:
    screen = make_console()
    for report in reports:
        if report.effects is not None:
            screen.print(table_of(report))
        for sentence in report.findings():
            screen.print(f"LEAK {sentence}", markup=False)
        if report.coupling is not None:
            screen.print(
                f"capacity: {report.coupling.dropped} choices dropped; through them documents change each other by "
                f"up to {report.coupling.largest:.3g} (measured apart, no leak of the mask)"
            )
    documents = sum(len(report.documents) for report in reports)
    largest = max((report.effects.largest for report in reports if report.effects is not None), default=0.0)
    verdict = "nothing leaks" if is_tight else "LEAKS"
    screen.print(
        f"{verdict}: {documents} documents in {len(reports)} rows, largest effect between two {largest:.3g}, "
        f"let pass {reports[0].tolerance:g}",
        markup=False,
    )


def table_of(report: AuditReport) -> Table:
    """A line a document: what changing it does to itself, and the most it does to another. Needs `effects`."""
    from rich.table import Table

    table = Table(title="Changed document, and what it does to the others")
    for name in (
        "document",
        "places",
        "own outputs",
        "others' outputs",
        "others' gradients",
        "most in",
        "verdict",
    ):
        table.add_column(name, justify="left" if name in ("document", "most in", "verdict") else "right")
    effects = report.effects
    if effects is None:
        return table
    between, leaking = effects.between, {source for source, _ in report.leaks}
    wrong = {fault.document for fault in report.misplaced} | set(report.idle)
    for number, document in enumerate(report.documents):
        others = [other for other in range(len(report.documents)) if other != number]
        worst = int(between[number].argmax()) if between[number].any() else None
        table.add_row(
            str(document),
            f"{document.start}-{document.stop - 1}",
            f"{effects.outputs[number, number]:.3g}",
            f"{effects.outputs[number, others].max(initial=0.0):.3g}",
            f"{effects.gradients[number, others].max(initial=0.0):.3g}",
            "" if worst is None else report.name(worst),
            "LEAKS" if number in leaking else "wrong" if number in wrong else "tight",
        )
    return table


def _facts(report: AuditReport) -> dict[str, Any]:
    return {
        "documents": [str(document) for document in report.documents],
        "largest": None if report.effects is None else report.effects.largest,
        "tolerance": report.tolerance,
        "findings": list(report.findings()),
        "coupling": None
        if report.coupling is None
        else {"largest": report.coupling.largest, "dropped": report.coupling.dropped},
    }


def main() -> None:
    """Runs the command line, see :func:`mmpack_trainer.entry.run_app`."""
    run_app(app)


if __name__ == "__main__":
    main()
