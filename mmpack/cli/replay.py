"""`mmpack replay`: can the samples that a run set aside be read now?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmpack.errors import ConfigError, DataError
from mmpack.show.console import console, print_json
from mmpack.storage.store import writing

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mmpack.plan import Plan
    from mmpack.quarantine import RecordedFault
    from mmpack.stream.replay import Outcome, Replayed

_WORDS: dict[Outcome, str] = {
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
    from mmpack.stream import load_plan, open_plan
    from mmpack.stream.replay import replay as again

    faults = _chosen(read_quarantine(quarantine), key, line, quarantine)
    opened = open_plan(load_plan(plan))
    found = again(opened, faults)
    if as_json:
        print_json(
            [
                {
                    "row": each.fault.row,
                    "key": each.fault.key,
                    "shard": each.fault.shard,
                    "recorded": each.fault.reason,
                    "outcome": each.outcome,
                    "reason": each.reason,
                }
                for each in found
            ]
        )
    else:
        console().print(_table(found))
    if out is not None:
        _write_page(opened, found, out, quiet=as_json)
    _judge(found, quarantine)


def _chosen(
    faults: list[RecordedFault], key: str | None, line: int | None, path: Path
) -> list[RecordedFault]:
    from mmpack.settings import nearest

    if key is not None and line is not None:
        raise ConfigError("two choices", where="--key and --line", mend="Give one of them.")
    if line is not None:
        if line > len(faults):
            raise ConfigError(
                f"fault {line} of {len(faults)}", where="--line", mend=f"{path} has no more of them."
            )
        return [faults[line - 1]]
    if key is None:
        return faults
    chosen = [fault for fault in faults if fault.key == key]
    if not chosen:
        keys = {fault.key for fault in faults}
        raise ConfigError(f"'{key}' is not in {path}", where="--key", mend=nearest(key, keys))
    return chosen


def _table(found: Sequence[Replayed]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("row", "key", "now", "reason"):
        table.add_column(name, justify="right" if name == "row" else "left")
    for each in found:
        # As text: what a file says is no markup.
        table.add_row(
            str(each.fault.row),
            Text(each.fault.key),
            _WORDS[each.outcome],
            Text(each.reason or f"was: {each.fault.reason}"),
        )
    return table


def _write_page(plan: Plan, found: Sequence[Replayed], out: Path, *, quiet: bool) -> None:
    from mmpack.show.row_page.planned_row import planned_row_html

    rows = {each.fault.row for each in found if each.outcome != "absent"}
    if len(rows) != 1:
        raise ConfigError(
            f"a page shows one row, and the faults are in {len(rows)} rows of this plan",
            where="--out",
            mend="Choose one with --line or --key.",
        )
    page = planned_row_html(plan, rows.pop())
    with writing(out):
        out.write_text(page, "utf-8")
    if not quiet:
        typer.echo(f"page: {out}")


def _judge(found: Sequence[Replayed], path: Path) -> None:
    absent = [each for each in found if each.outcome == "absent"]
    wrong = [each for each in found if each.outcome in ("same", "other")]
    if wrong:
        raise DataError(
            f"{len(wrong)} of {len(found)} samples cannot be read, the first '{wrong[0].fault.key}': {wrong[0].reason}",
            where=str(path),
            mend="`mmpack verify` names all that is wrong with a build.",
        )
    if absent:
        raise DataError(
            f"{len(absent)} of {len(found)} faults are not of this plan, the first '{absent[0].fault.key}': "
            f"{absent[0].reason}",
            where=str(path),
            mend="Give the plan of the run that recorded them.",
        )
