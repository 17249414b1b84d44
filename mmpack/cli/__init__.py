"""The command line `mmpack`. Each command has one file that parses options, calls the library and prints the result."""

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
    help="Convert raw recordings to time-synchronised shards, and shards to packed training rows.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(version("mmpack"))
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Convert raw recordings to time-synchronised shards, and shards to packed training rows."""


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
    """Runs the command line and sets the exit code.

    A MmpackError is printed as one line with exit code 1, an interrupt exits with 130, any other exception with 70.
    """
    try:
        app()
    except MmpackError as error:
        sys.stdout.flush()
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped; run the same command again to resume", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of the pipe has exited, as in `| head`. This is no error, and nothing more can be printed.
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if os.environ.get("MMPACK_DEBUG"):
            raise
        print(
            f"error: unexpected {type(error).__name__}: {error}. This is a bug in mmpack: please report it. "
            "Set MMPACK_DEBUG=1 to see the traceback.",
            file=sys.stderr,
        )
        sys.exit(70)  # EX_SOFTWARE of sysexits.h
