"""The command `mmpack verify`: checks that a shard set is intact and synchronised."""

from __future__ import annotations

from typing import Annotated

import typer

from mmpack.cli.common import JsonOption
from mmpack.errors import IntegrityError
from mmpack.show.console import print_json

#: Largest number of problems that are printed.
_MAX_PRINTED = 20


def verify(
    out: Annotated[str, typer.Argument(help="Folder or URL of a shard set.")],
    as_json: JsonOption = False,
) -> None:
    """Check every digest, every member, the index against the tar files, token counts and the synchronisation."""
    from mmpack.cli.progress import ProgressBar
    from mmpack.verification.verify import verification_to_json
    from mmpack.verification.verify import verify as check

    with ProgressBar("verify", "MB", 1e6) as bar:
        report = check(out, on_progress=bar.update)
    if as_json:
        print_json(verification_to_json(report))
    else:
        for note in report.notes:
            typer.echo(f"note: {note}")
        for problem in report.problems[:_MAX_PRINTED]:
            typer.echo(f"problem: {problem}")
        if not report.problems:
            typer.echo(
                f"verified: {report.samples} samples, {report.members} members, {report.size_bytes / 1e6:.1f} MB; all "
                "digests match, all samples are where the index says, all residuals are within their tolerance"
            )
    if report.problems:
        raise IntegrityError(
            f"{len(report.problems)} problems, the first: {report.problems[0]}",
            where=out,
            hint="Build or copy the damaged shards again.",
        )
