"""Input formats: each reads a path as :class:`Recording` objects, lazily.

A new format is one file with a function that maps a path to recordings, and one entry in `FORMATS`.
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
        name: name of the format, for messages.
        accepts: function that returns True if a path looks like this format; cheap.
        read: function that returns the recordings at a path; raises MmpackError.
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
    """Opens all recordings at `path`.

    Args:
        path: a recording.toml or its folder, a nuScenes root, table or list of file names, a media file, or a
            folder whose subfolders contain a recording.toml.
        root: folder that replaces `recording.root` as the base of a recording.toml's relative paths.

    Raises:
        DataError: the path does not exist or has an unknown format.
        ConfigError: a recording.toml is invalid.
    """
    path = Path(path)
    if not path.exists():
        raise DataError("no such file or folder", where=str(path), hint="Check the path.")
    if root is not None and _has_recording_toml(path):
        return [open_folder(path, root=root)]
    for format_ in FORMATS:
        if format_.accepts(path):
            return list(format_.read(path))
    names = ", ".join(format_.name for format_ in FORMATS)
    raise DataError(
        "the format of this input is unknown",
        where=str(path),
        hint=f"Write a {FILE_NAME} for the folder, or give one of: {names}.",
    )
