"""The command line `mmpack`."""

from __future__ import annotations

import os
import sys

import typer

from mmpack.cli.registry import COMMANDS
from mmpack.errors import MmpackError
from mmpack.show.console import ClosedOutputError, format_error, print_error_line, run_command_line

app = typer.Typer(
    name="mmpack",
    help="Convert raw recordings to time-synchronised shards, and shards to packed training rows.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


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


def main() -> None:
    """Runs the command line and sets the exit code.

    A MmpackError is printed as one line with exit code 1, Ctrl-C exits with 130, a closed pipe with 0, a usage error with
    2, any other exception with 70.
    """
    try:
        run_command_line(app)
    except MmpackError as error:
        print_error_line(format_error(error))
        sys.exit(1)
    except KeyboardInterrupt as interrupt:
        # A command that can resume adds that to its interrupt.
        print_error_line("; ".join(("stopped", *map(str, interrupt.args))))
        sys.exit(130)
    except ClosedOutputError:
        sys.exit(0)
    except Exception as error:
        if os.environ.get("MMPACK_DEBUG"):
            raise
        print_error_line(
            f"{format_error(error)}. This is a bug in mmpack: please report it. Set MMPACK_DEBUG=1 to see the traceback."
        )
        sys.exit(70)  # EX_SOFTWARE of sysexits.h
