"""`mmpack replay`: can the samples that a run set aside be read now?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmpack.errors import ConfigError, DataError
from mmpack.show.console import make_console, print_json
from mmpack.storage.store import storage_errors

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mmpack.plan import Plan
    from mmpack.quarantine import QuarantineRecord
    from mmpack.stream.replay import ReplayOutcome, ReplayResult

_OUTCOME_LABELS: dict[ReplayOutcome, str] = {
    "readable": "readable now",
    "same": "the same fault",
    "other": "another fault",
    "absent": "not in this row",
}


def replay(
    quarantine: Annotated[Path, typer.Argument(help="A run's quarantine.jsonl.")],
    plan: Annotated[Path, typer.Argument(help="The PLAN.toml of that run.")],
    key: Annotated[str | None, typer.Option(help="Only the sample of this key.")] = None,
    line: Annotated[int | None, typer.Option(min=1, help="Only this recorded fault, from 1.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="HTML page of the row of the faults chosen.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout and nothing else.")
    ] = False,
) -> None:
    """Make the rows of recorded faults again, and say what is readable now; exit code 1 unless all is."""
    from mmpack.quarantine import read_quarantine
    from mmpack.stream import load_plan_config, open_plan
    from mmpack.stream.replay import replay_quarantine as again

    faults = _select_faults(read_quarantine(quarantine), key, line, quarantine)
    opened = open_plan(load_plan_config(plan))
    found = again(opened, faults)
    if as_json:
        print_json(
            [
                {
                    "row": each.sample.row,
                    "key": each.sample.key,
                    "shard": each.sample.shard,
                    "recorded": each.sample.reason,
                    "outcome": each.outcome,
                    "reason": each.reason,
                }
                for each in found
            ]
        )
    else:
        make_console().print(_table(found))
    if out is not None:
        _write_page(opened, found, out, quiet=as_json)
    _exit_code(found, quarantine)


def _select_faults(
    faults: list[QuarantineRecord], key: str | None, line: int | None, path: Path
) -> list[QuarantineRecord]:
    from mmpack.settings import suggest

    if key is not None and line is not None:
        raise ConfigError("two choices", where="--key and --line", hint="Give one of them.")
    if line is not None:
        if line > len(faults):
            raise ConfigError(
                f"fault {line} of {len(faults)}", where="--line", hint=f"{path} has no more of them."
            )
        return [faults[line - 1]]
    if key is None:
        return faults
    chosen = [fault for fault in faults if fault.key == key]
    if not chosen:
        keys = {fault.key for fault in faults}
        raise ConfigError(f"'{key}' is not in {path}", where="--key", hint=suggest(key, keys))
    return chosen


def _table(found: Sequence[ReplayResult]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("row", "key", "now", "reason"):
        table.add_column(name, justify="right" if name == "row" else "left")
    for each in found:
        # As text: what a file says is no markup.
        table.add_row(
            str(each.sample.row),
            Text(each.sample.key),
            _OUTCOME_LABELS[each.outcome],
            Text(each.reason or f"was: {each.sample.reason}"),
        )
    return table


def _write_page(plan: Plan, found: Sequence[ReplayResult], out: Path, *, quiet: bool) -> None:
    from mmpack.show.row_page.planned_row import planned_row_html

    rows = {each.sample.row for each in found if each.outcome != "absent"}
    if len(rows) != 1:
        raise ConfigError(
            f"a page shows one row, and the faults are in {len(rows)} rows of this plan",
            where="--out",
            hint="Choose one with --line or --key.",
        )
    page = planned_row_html(plan, rows.pop())
    with storage_errors(out, "writing"):
        out.write_text(page, "utf-8")
    if not quiet:
        typer.echo(f"page: {out}")


def _exit_code(found: Sequence[ReplayResult], path: Path) -> None:
    absent = [each for each in found if each.outcome == "absent"]
    wrong = [each for each in found if each.outcome in ("same", "other")]
    if wrong:
        raise DataError(
            f"{len(wrong)} of {len(found)} samples cannot be read, the first '{wrong[0].sample.key}': {wrong[0].reason}",
            where=str(path),
            hint="`mmpack verify` names all that is wrong with a build.",
        )
    if absent:
        raise DataError(
            f"{len(absent)} of {len(found)} faults are not of this plan, the first '{absent[0].sample.key}': "
            f"{absent[0].reason}",
            where=str(path),
            hint="Give the plan of the run that recorded them.",
        )
