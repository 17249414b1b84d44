"""Reader of folders whose subfolders contain a recording.toml each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmpack.recording.formats.folder import FILE_NAME, open_folder
from mmpack.recording.formats.input_format import InputFormat
from mmpack.recording.model import Recording


def is_folder_of_recordings(path: Path) -> bool:
    """Returns True if a subfolder of `path` contains a recording.toml."""
    return path.is_dir() and any(path.glob(f"*/{FILE_NAME}"))


def open_folder_of_recordings(path: Path, root: Path | None = None) -> Iterator[Recording]:
    """Yields the recordings in the subfolders of `path`, sorted by the names of the subfolders.

    Args:
        path: folder of the subfolders.
        root: folder that replaces `recording.root` as the base of relative paths, in every recording.toml.

    Raises:
        ConfigError, DataError: as in :func:`open_folder`.
    """
    for file in sorted(path.glob(f"*/{FILE_NAME}")):
        yield open_folder(file, root=root)


FOLDER_OF_RECORDINGS = InputFormat("folder of recordings", is_folder_of_recordings, open_folder_of_recordings)
