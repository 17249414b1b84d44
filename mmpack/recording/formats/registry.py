"""Input formats: each reads a path as :class:`Recording` objects, lazily.

A new format is one file that defines an :class:`InputFormat`, and one line in `FORMATS`.
"""

from __future__ import annotations

from pathlib import Path

from mmpack.errors import DataError
from mmpack.recording.formats.folder import FILE_NAME, FOLDER
from mmpack.recording.formats.folder_of_recordings import FOLDER_OF_RECORDINGS
from mmpack.recording.formats.input_format import InputFormat
from mmpack.recording.formats.media_file import MEDIA_FILE
from mmpack.recording.formats.nuscenes import NUSCENES
from mmpack.recording.model import Recording

#: The first format that accepts a path reads it.
FORMATS: tuple[InputFormat, ...] = (
    FOLDER,
    NUSCENES,
    MEDIA_FILE,
    FOLDER_OF_RECORDINGS,
)


def open_recordings(path: Path | str, *, root: Path | None = None) -> list[Recording]:
    """Opens all recordings at `path`.

    Args:
        path: a recording.toml or its folder, a nuScenes root, table or list of file names, a media file, or a
            folder whose subfolders contain a recording.toml.
        root: folder that replaces `recording.root` as the base of relative paths in recording.toml files.

    Raises:
        DataError: the path does not exist or has an unknown format.
        ConfigError: a recording.toml is invalid.
    """
    path = Path(path)
    if not path.exists():
        raise DataError("no such file or folder", where=str(path), hint="Check the path.")
    for format_ in FORMATS:
        if format_.accepts(path):
            return list(format_.read(path, root))
    names = ", ".join(format_.name for format_ in FORMATS)
    raise DataError(
        "the format of this input is unknown",
        where=str(path),
        hint=f"Write a {FILE_NAME} for the folder, or give one of: {names}.",
    )
