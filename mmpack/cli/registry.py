"""The commands of the command line by name.

A new command is one file with a function that parses options, calls the library and prints the result, and one line in
`COMMANDS`.
"""

from __future__ import annotations

from collections.abc import Callable

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

COMMANDS: dict[str, Callable[..., None]] = {
    "sync": sync,
    "build-shards": build_shards,
    "verify": verify,
    "report": report,
    "pack": pack,
    "show-mask": show_mask,
    "mixture": mixture,
    "stream": stream,
    "show-row": show_row,
    "replay": replay,
}
"""Every command by name, in the order of the help text."""
