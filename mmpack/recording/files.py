"""File checks that all readers share: valid names, missing or empty files, file sizes."""

from __future__ import annotations

import re
from pathlib import Path

from mmpack.errors import DataError

_INVALID_CHARACTERS = re.compile(r"[^A-Za-z0-9_+-]+")


def sanitise_name(text: str) -> str:
    """Returns `text` with each run of characters that a key or shard name cannot contain replaced by '_'.

    Raises:
        DataError: no character is left.
    """
    name = _INVALID_CHARACTERS.sub("_", text).strip("_")
    if not name:
        raise DataError(
            f"'{text}' contains no character that is valid in a name",
            hint="Set recording.name in recording.toml.",
        )
    return name


def require_file(path: Path, *, stream: str) -> Path:
    """Returns `path` after checking that it is the file of a stream, with content.

    Raises:
        DataError: the file is missing, unreadable or empty, or is a folder; the error names `stream`.
    """
    return require_content(
        path,
        where=f"stream '{stream}', {path}",
        missing_hint="Correct its path in recording.toml.",
        empty_hint="Copy it again or remove the stream.",
    )


def require_content(path: Path, *, where: str, missing_hint: str, empty_hint: str) -> Path:
    """Returns `path` after checking that it is a file with content.

    Args:
        path: the file.
        where: location that errors name.
        missing_hint: hint of the error if the file is missing.
        empty_hint: hint of the error if the file is empty.

    Raises:
        DataError: the file is missing, unreadable or empty, or is a folder.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise DataError("no such file", where=where, hint=missing_hint) from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=where) from None
    if path.is_dir():
        raise DataError("is a folder, but a file is expected", where=where)
    if size == 0:
        raise DataError("the file is empty (0 bytes)", where=where, hint=empty_hint)
    return path


def file_identity(path: Path) -> tuple[str, int]:
    """Returns the name and the size in bytes of a file."""
    return path.name, path.stat().st_size
