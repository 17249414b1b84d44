"""Recordings of every format as one thing: a :class:`Recording` of :class:`Stream`s, read lazily.

A format is one file: a function from a path to recordings, and a line in `READERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mmpack.errors import DataError
from mmpack.recording.formats.folder import FILE_NAME, open_folder
from mmpack.recording.formats.media_file import MEDIA_SUFFIXES, open_media_file
from mmpack.recording.formats.nuscenes import is_nuscenes, open_nuscenes
from mmpack.recording.model import Recording


@dataclass(frozen=True)
class InputFormat:
    """One input format.

    Attributes:
        name: for messages.
        accepts: whether a path looks like this format; cheap.
        read: the recordings at the path. Raises MmpackError.
    """

    name: str
    accepts: Callable[[Path], bool]
    read: Callable[[Path], Iterable[Recording]]


def _has_recording_toml(path: Path) -> bool:
    return path.suffix == ".toml" or (path / FILE_NAME).is_file()


FORMATS: tuple[InputFormat, ...] = (
    InputFormat("folder with recording.toml", _has_recording_toml, lambda path: [open_folder(path)]),
    InputFormat("nuScenes", is_nuscenes, open_nuscenes),
    InputFormat(
        "media file", lambda path: path.suffix.lower() in MEDIA_SUFFIXES, lambda path: [open_media_file(path)]
    ),
    InputFormat(
        "folder of recordings",
        lambda path: path.is_dir() and any(path.glob(f"*/{FILE_NAME}")),
        lambda path: [open_folder(file) for file in sorted(path.glob(f"*/{FILE_NAME}"))],
    ),
)


def open_recordings(path: Path | str, *, root: Path | None = None) -> list[Recording]:
    """All recordings at `path`: a recording.toml or its folder, a nuScenes root or list of names, a media
    file, or a folder of those.

    Args:
        path: what to open.
        root: where a recording.toml's relative paths start, in place of what it says.

    Raises:
        DataError: nothing there, or no reader knows it.
        ConfigError: its description is wrong.
    """
    path = Path(path)
    if not path.exists():
        raise DataError("no such file or folder", where=str(path), hint="Check the path.")
    if root is not None and _has_recording_toml(path):
        return [open_folder(path, root=root)]
    for reader in FORMATS:
        if reader.accepts(path):
            return list(reader.read(path))
    known = ", ".join(reader.name for reader in FORMATS)
    raise DataError(
        "no reader knows this input",
        where=str(path),
        hint=f"Describe a folder with {FILE_NAME}, or give one of: {known}.",
    )
