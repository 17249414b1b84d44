"""Small common ground of the readers: names, sizes, and the messages for files that are not there."""

from __future__ import annotations

import re
from pathlib import Path

from mmpack.errors import DataError

_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_+-]+")


def sanitise_name(text: str) -> str:
    """`text` with everything that a key or shard name cannot hold turned into '_'. Raises DataError if
    nothing is left.
    """
    name = _NOT_IN_NAME.sub("_", text).strip("_")
    if not name:
        raise DataError(f"'{text}' leaves no usable name", hint="Set recording.name in recording.toml.")
    return name


def require_file(path: Path, *, stream: str) -> Path:
    """`path` if it is a file that holds something. Raises DataError naming the stream otherwise."""
    where = f"stream '{stream}', {path}"
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise DataError("no such file", where=where, hint="Correct its path in recording.toml.") from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=where) from None
    if path.is_dir():
        raise DataError("is a folder where a file is expected", where=where)
    if size == 0:
        raise DataError(
            "the file is empty (0 bytes)", where=where, hint="Copy it again or remove the stream."
        )
    return path


def file_identity(path: Path) -> tuple[str, int]:
    """(name, bytes) of one file."""
    return path.name, path.stat().st_size
