"""The command `mmpack`: one file per command, each thin: parse, call the library, show."""

from __future__ import annotations

import os
import sys

import typer

from mmpack.cli.build_shards import build_shards
from mmpack.cli.mixture import mixture
from mmpack.cli.pack import pack
from mmpack.cli.replay import replay
from mmpack.cli.report import report
from mmpack.cli.show_mask import show_mask
from mmpack.cli.show_row import show_row
from mmpack.cli.stream import stream
from mmpack.cli.sync import sync
from mmpack.cli.verify import verify
from mmpack.errors import MmpackError

app = typer.Typer(
    name="mmpack",
    help="Raw recordings to time-synchronised shards to packed training rows.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("mmpack"))
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Raw recordings to time-synchronised shards to packed training rows."""


app.command("sync")(sync)
app.command("build-shards")(build_shards)
app.command("verify")(verify)
app.command("report")(report)
app.command("pack")(pack)
app.command("show-mask")(show_mask)
app.command("mixture")(mixture)
app.command("stream")(stream)
app.command("show-row")(show_row)
app.command("replay")(replay)


def main() -> None:
    """Runs the command line; every error that mmpack raises on purpose becomes one line and exit code 1."""
    try:
        app()
    except MmpackError as error:
        sys.stdout.flush()
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped; the same command resumes", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe went away (`| head`): nothing is wrong, and nobody is left to tell.
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if os.environ.get("MMPACK_DEBUG"):
            raise
        print(
            f"error: unexpected {type(error).__name__}: {error}. This is a bug in mmpack: please report it; "
            "MMPACK_DEBUG=1 shows where it happened.",
            file=sys.stderr,
        )
        sys.exit(70)  # EX_SOFTWARE of sysexits.h
