"""`mmpack verify`: are these shards what was written, and in sync?"""

from __future__ import annotations

from typing import Annotated

import typer

from mmpack.errors import IntegrityError
from mmpack.show.console import print_json

_SHOWN = 20


def verify(
    out: Annotated[str, typer.Argument(help="Folder or URL of finished shards.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout and nothing else.")
    ] = False,
) -> None:
    """Check every digest, every member, index against tar, token counts and the sync gate."""
    from mmpack.cli.progress import ProgressBar
    from mmpack.verification.verify import verification_to_json
    from mmpack.verification.verify import verify as check

    with ProgressBar("verify", "MB", 1e6) as bar:
        verdict = check(out, on_progress=bar.update)
    if as_json:
        print_json(verification_to_json(verdict))
    else:
        for note in verdict.notes:
            typer.echo(f"note: {note}")
        for fault in verdict.problems[:_SHOWN]:
            typer.echo(f"fault: {fault}")
        if not verdict.problems:
            typer.echo(
                f"verified: {verdict.samples} samples, {verdict.members} members, {verdict.size_bytes / 1e6:.1f} MB; every digest "
                "right, every sample where the index says, every residual within its tolerance"
            )
    if verdict.problems:
        raise IntegrityError(
            f"{len(verdict.problems)} faults, the first: {verdict.problems[0]}",
            where=out,
            hint="Build the damaged shards again, or copy them again.",
        )
