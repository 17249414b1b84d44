"""What the commands of the trainer share: which process they are, and how they end where they fail."""

from __future__ import annotations

import faulthandler
import os
import sys
from typing import TYPE_CHECKING

import typer

from mmpack.errors import ConfigError, MmpackError
from mmpack.show.console import ClosedOutputError, format_error, print_error_line, run_command_line

if TYPE_CHECKING:
    from rich.console import Console


#: Of what gloo and NCCL raise where a peer is gone.
_LOST = ("Connection closed by peer", "Connection reset by peer", "remote process exited", "Broken pipe")


def run_app(app: typer.Typer, *, stopped: str = "stopped") -> None:
    """Runs a command line: an error raised on purpose becomes one line and exit code 1.

    Args:
        app: of one command.
        stopped: what is said at Ctrl-C.
    """
    # A crash in native code, of which Python knows nothing, leaves where each thread was.
    faulthandler.enable()
    try:
        run_command_line(app)
    except MmpackError as error:
        _fail(format_error(error), 1)
    except KeyboardInterrupt:
        _fail(stopped, 130)
    except ClosedOutputError:
        # With exit code 0 torchrun would leave the peers waiting for this process.
        _end(1 if _is_shared() else 0)
    except Exception as error:
        if os.environ.get("MMPACK_DEBUG"):
            raise
        if _is_shared() and any(sign in str(error) for sign in _LOST):
            _fail(
                "error: the connection to another process was lost: it failed or was killed, or the network did",
                1,
            )
        _fail(
            f"{format_error(error)}. MMPACK_DEBUG=1 shows where it happened.",
            70,  # EX_SOFTWARE of sysexits.h
        )


def number(name: str, default: int) -> int:
    """A variable that torchrun sets, as `RANK`. Raises ConfigError if it is no number."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise ConfigError(f"'{text}' is no number", where=f"${name}", hint="torchrun sets it.")
    return int(text)


def plain_console() -> Console:
    """stdout for lines that are not wrapped, whatever is in them."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, markup=False)


def _fail(line: str, code: int) -> None:
    rank = f"rank {os.environ['RANK']}: " if _is_shared() else ""
    print_error_line(f"{rank}{line}")
    _end(code)


def _end(code: int) -> None:
    if not _is_shared():
        sys.exit(code)
    # Threads of a process group may wait for peers that wait for this process: torchrun ends those once it is gone.
    os._exit(code)


def _is_shared() -> bool:
    return os.environ.get("WORLD_SIZE", "1") != "1" and "RANK" in os.environ
