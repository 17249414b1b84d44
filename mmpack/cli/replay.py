"""The command `mmpack replay`: checks if the unreadable samples of a training run can be read now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmpack.cli.common import JsonOption
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
    "same": "unreadable, same reason",
    "other": "unreadable, other reason",
    "absent": "not in this row",
}


def replay(
    quarantine: Annotated[Path, typer.Argument(help="quarantine.jsonl of a training run.")],
    plan: Annotated[Path, typer.Argument(help="PLAN.toml of the same training run.")],
    key: Annotated[
        str | None, typer.Option(help="Replay only the records of the sample with this key.")
    ] = None,
    line: Annotated[
        int | None, typer.Option(min=1, help="Replay only the record with this number, from 1.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write an HTML page of the row of the chosen records.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Build the rows of recorded unreadable samples again. The exit code is 1 unless all samples are readable now."""
    from mmpack.quarantine import read_quarantine
    from mmpack.stream import load_plan
    from mmpack.stream.replay import replay_quarantine

    records = _select_records(read_quarantine(quarantine), key, line, quarantine)
    opened_plan = load_plan(plan)
    results = replay_quarantine(opened_plan, records)
    if as_json:
        print_json(
            [
                {
                    "row": result.sample.row,
                    "key": result.sample.key,
                    "shard": result.sample.shard,
                    "recorded": result.sample.reason,
                    "outcome": result.outcome,
                    "reason": result.reason,
                }
                for result in results
            ]
        )
    else:
        make_console().print(_make_table(results))
    if out is not None:
        _write_page(opened_plan, results, out, quiet=as_json)
    _require_readable(results, quarantine)


def _select_records(
    records: list[QuarantineRecord], key: str | None, line: int | None, path: Path
) -> list[QuarantineRecord]:
    """Returns the records with `key`, or record number `line`, or all records if both are None.

    Raises:
        ConfigError: both are set, or no record matches.
    """
    from mmpack.settings import suggest

    if key is not None and line is not None:
        raise ConfigError(
            "both options choose records", where="--key and --line", hint="Give only one of the two."
        )
    if line is not None:
        if line > len(records):
            raise ConfigError(
                f"record {line} does not exist, {path} has {len(records)} records",
                where="--line",
                hint="Choose a record of the file.",
            )
        return [records[line - 1]]
    if key is None:
        return records
    matching = [record for record in records if record.key == key]
    if not matching:
        keys = {record.key for record in records}
        raise ConfigError(f"no record of {path} has the key '{key}'", where="--key", hint=suggest(key, keys))
    return matching


def _make_table(results: Sequence[ReplayResult]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("row", "key", "outcome", "reason"):
        table.add_column(name, justify="right" if name == "row" else "left")
    for result in results:
        # Text objects, because keys and reasons of a file must not be read as markup.
        table.add_row(
            str(result.sample.row),
            Text(result.sample.key),
            _OUTCOME_LABELS[result.outcome],
            Text(result.reason or f"recorded: {result.sample.reason}"),
        )
    return table


def _write_page(plan: Plan, results: Sequence[ReplayResult], out: Path, *, quiet: bool) -> None:
    """Writes the page of the row that the results belong to. Raises ConfigError unless they belong to one row."""
    from mmpack.show.row_page.planned_row import planned_row_html

    rows = {result.sample.row for result in results if result.outcome != "absent"}
    if len(rows) != 1:
        raise ConfigError(
            f"a page shows one row, but the chosen records are in {len(rows)} rows of this plan",
            where="--out",
            hint="Choose one record with --line or --key.",
        )
    page = planned_row_html(plan, rows.pop())
    with storage_errors(out, "writing"):
        out.write_text(page, "utf-8")
    if not quiet:
        typer.echo(f"page: {out}")


def _require_readable(results: Sequence[ReplayResult], path: Path) -> None:
    """Raises DataError if a sample is unreadable or is not in its recorded row of the plan."""
    absent = [result for result in results if result.outcome == "absent"]
    unreadable = [result for result in results if result.outcome in ("same", "other")]
    if unreadable:
        raise DataError(
            f"{len(unreadable)} of {len(results)} samples cannot be read, the first '{unreadable[0].sample.key}': "
            f"{unreadable[0].reason}",
            where=str(path),
            hint="Run `mmpack verify` to list all problems of the shard set.",
        )
    if absent:
        raise DataError(
            f"{len(absent)} of {len(results)} samples are not in their rows of this plan, the first '{absent[0].sample.key}': "
            f"{absent[0].reason}",
            where=str(path),
            hint="Give the plan of the training run that recorded them.",
        )
