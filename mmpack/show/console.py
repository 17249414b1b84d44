"""Console and JSON output of all commands, and the way in which a command ends."""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from mmpack.errors import MmpackError, StorageError

if TYPE_CHECKING:
    from rich.console import Console
    from typer import Typer


# Modules whose functions write to stdout. An OSError of a system call is raised in one of them only by such a write.
_WRITERS = frozenset({__name__, "rich.console", "rich.file_proxy", "click.utils", "typer._click.utils"})
#: Width of reports that are written to a file or pipe.
_PLAIN_WIDTH = 160


def make_console() -> Console:
    """Makes a console for stdout: coloured and wrapped on a terminal, plain and wide elsewhere."""
    from rich.console import Console

    return Console(
        width=None if sys.stdout.isatty() else _PLAIN_WIDTH,
        highlight=False,
        soft_wrap=not sys.stdout.isatty(),
    )


def print_json(value: Any) -> None:
    """Prints a value as one line of JSON on stdout."""
    import msgspec

    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


class ClosedOutputError(Exception):
    """The end of a command whose output nobody reads any more, as in `mmpack report OUT | head`."""


class _PastTyperError(Exception):
    """An exception on its way through typer, which would otherwise exit with its own message and exit code."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def run_command_line(app: Typer) -> None:
    """Runs a command line as a call of `app` does, except that Ctrl-C and closed pipes are left to the caller.

    Raises:
        SystemExit: the command has ended: exit code 0, 2 after a usage error, or that of a `typer.Exit`.
        KeyboardInterrupt: Ctrl-C.
        ClosedOutputError: the reader of stdout or stderr has exited; further output is dropped.
        StorageError: a write to stdout failed, for instance because the disk is full; further output is dropped.
        Exception: any exception of the command.
    """
    import typer.main

    command = typer.main.get_command(app)
    invoke = command.invoke

    def invoke_past_typer(ctx: Any) -> Any:
        try:
            return invoke(ctx)
        except (KeyboardInterrupt, OSError) as error:
            raise _PastTyperError(error) from None

    command.invoke = invoke_past_typer
    try:
        command()
    except _PastTyperError as carrier:
        if isinstance(carrier.error, BrokenPipeError) and drop_closed_output():
            raise ClosedOutputError from None
        if isinstance(carrier.error, OSError):
            _raise_output_error(carrier.error)
        raise carrier.error from None
    except OSError as error:  # of the help, which is printed before the command is invoked
        _raise_output_error(error)
        raise
    except SystemExit as end:
        # rich and typer answer a closed pipe with exit code 1.
        if isinstance(end.__context__, BrokenPipeError):
            drop_closed_output()
            raise ClosedOutputError from None
        drop_closed_output()
        raise


def _raise_output_error(error: OSError) -> None:
    """Raises StorageError if `error` comes from a write to stdout, and redirects stdout to the null device."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or error.errno is None or trace.tb_frame.f_globals.get("__name__") not in _WRITERS:
        return
    _redirect_to_null(sys.stdout)
    raise StorageError(f"writing to the output failed ({os.strerror(error.errno)})") from None


def _redirect_to_null(stream: TextIO) -> None:
    """Drops the buffered and all further output of `stream`."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def drop_closed_output() -> bool:
    """Flushes stdout and stderr, and redirects those whose reader has exited to the null device.

    Without this, the interpreter would print an error when it flushes them at its exit.

    Returns:
        True if one of them had no reader.
    """
    found_closed = False
    for stream in (sys.stdout, sys.stderr):
        if _is_closed(stream):
            found_closed = True
            _redirect_to_null(stream)
    return found_closed


def _is_closed(stream: TextIO) -> bool:
    """Returns True if `stream` is a pipe whose reader has exited."""
    try:
        stream.flush()
        descriptor = stream.fileno()
    except BrokenPipeError:
        return True
    except (OSError, ValueError):
        return False  # a stream in memory, or a closed one
    poll = select.poll()
    poll.register(descriptor, 0)  # POLLERR is reported without being asked for
    return any(events & select.POLLERR for _, events in poll.poll(0))


def print_error_line(line: str) -> None:
    """Prints a line on stderr, after the output on stdout."""
    drop_closed_output()
    with suppress(BrokenPipeError):
        print(line, file=sys.stderr, flush=True)


def format_error(error: Exception) -> str:
    """Formats an error in one line: a MmpackError with its location and hint, any other error with its class."""
    text = " ".join(str(error).split())
    if isinstance(error, MmpackError):
        return f"error: {text}"
    name = f"error: unexpected {type(error).__name__}"
    return f"{name}: {text}" if text else name
