"""Console and JSON output of all commands."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


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
