"""Camera sources made of image files with timestamps; the files are passed through byte for byte."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpack.clock import UNIT_NS, decimals_to_ns
from mmpack.errors import ConfigError, DataError
from mmpack.recording.model import Frame, Timestamps

_EXTENSIONS = {".jpg": "jpg", ".jpeg": "jpg", ".png": "png"}
# This is larger than any camera image, and bounds the memory that one wrong file can take.
MAX_IMAGE_BYTES = 256 << 20
_DIGITS = re.compile(r"[0-9]+")
_MAGIC = {"jpg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n"}


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """The image files of one camera, each with a timestamp.

    Attributes:
        folder: folder of the files.
        names: n file names relative to `folder`, in the order of the timestamps. They are no Path objects, because
            these would take ten times as much memory.
        t_ns: int64, shape (n,), timestamps.
        origin: origin of the timestamps, as in :class:`Timestamps`.
        stream: name of the stream, for messages.
        resolution_ns: resolution of the timestamps, as in :class:`Timestamps`.
        unit: unit of the timestamps, as in :class:`Timestamps`.
    """

    folder: Path
    names: tuple[str, ...]
    t_ns: NDArray[np.int64]
    origin: str
    stream: str
    resolution_ns: int = 1
    unit: str = "ns"

    def timestamps(self) -> Timestamps:
        """Returns one timestamp per file."""
        return Timestamps(self.t_ns, resolution_ns=self.resolution_ns, origin=self.origin, unit=self.unit)

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """Yields the unchanged bytes of the files with these indices.

        Raises:
            DataError: a file is missing, empty, or not a JPEG or PNG image.
        """
        for index in indices:
            path = os.path.join(self.folder, self.names[index])
            extension = _extension(path)
            try:
                # The size is checked first, because a read with a large limit reserves that much memory for every file.
                with open(path, "rb", buffering=0) as file:
                    is_small = os.fstat(file.fileno()).st_size <= MAX_IMAGE_BYTES
                    data = file.readall() if is_small else b"?"
            except OSError as error:
                raise DataError(
                    f"cannot be read ({error.strerror})", where=f"stream '{self.stream}', {path}"
                ) from None
            if not extension or not data.startswith(_MAGIC[extension]):
                message = "the file is empty" if not data else "is not a JPEG or PNG image"
                raise DataError(
                    message, where=f"stream '{self.stream}', {path}", hint="Replace or remove the file."
                )
            yield Frame(index, encoded=data, extension=extension)

    def files(self) -> Iterable[tuple[str, int]]:
        """Yields the name and size in bytes of each file; size 0 for a missing file."""
        for name in self.names:
            try:
                yield os.path.basename(name), os.stat(os.path.join(self.folder, name)).st_size
            except (FileNotFoundError, NotADirectoryError):
                yield os.path.basename(name), 0

    def identity(self) -> dict[str, Any]:
        """Returns the values that determine the content, as in :meth:`mmpack.recording.FrameSource.identity`."""
        return {
            "source": "images",
            "folder": self.folder,
            "names": self.names,
            "times": self.timestamps().identity(),
        }


def _extension(name: str) -> str:
    """Returns "jpg" or "png" by the suffix of a file name, "" for any other suffix."""
    return _EXTENSIONS.get(os.path.splitext(name)[1].lower(), "")


def list_images(folder: Path, *, stream: str) -> list[str]:
    """Lists the names of all JPEG and PNG files of `folder`, sorted. Raises DataError if there are none."""
    if not folder.is_dir():
        raise DataError(
            "no such folder of images",
            where=f"stream '{stream}', {folder}",
            hint="Correct its path in recording.toml.",
        )
    names = sorted(name for name in os.listdir(folder) if _extension(name))
    if not names:
        raise DataError("the folder has no JPEG or PNG file", where=f"stream '{stream}', {folder}")
    return names


def timestamps_from_names(
    folder: Path, names: Sequence[str], pattern: str, unit: str, *, stream: str
) -> NDArray[np.int64]:
    """Reads timestamps from file names.

    Args:
        folder: folder of the files, for messages.
        names: n file names; the pattern is searched in these alone.
        pattern: regular expression whose first group matches the integer timestamp.
        unit: unit of the timestamps.
        stream: name of the stream, for messages.

    Returns:
        int64, shape (n,), timestamps in ns.

    Raises:
        ConfigError: the pattern is not a regular expression with a group, or the unit is unknown.
        DataError: a name does not match, or a timestamp exceeds int64 ns (a wrong unit).
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"time.pattern is not a regular expression ({error})", where=f"stream '{stream}'"
        ) from None
    if expression.groups < 1 or unit not in UNIT_NS:
        raise ConfigError(
            "time.pattern needs a group, as in '_(\\d+)\\.jpg$', and time.unit one of " + ", ".join(UNIT_NS),
            where=f"stream '{stream}'",
        )
    digits: list[str] = []
    for name in names:
        match = expression.search(name)
        if match is None or not _DIGITS.fullmatch(match[1] or ""):
            raise DataError(
                f"the file name has no timestamp: it does not match time.pattern '{pattern}'",
                where=f"stream '{stream}', {folder / name}",
            )
        digits.append(match[1])
    where = f"stream '{stream}', {folder}, time.pattern '{pattern}'"
    return decimals_to_ns(digits, unit, where=where)[0]
