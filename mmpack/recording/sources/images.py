"""A camera as stamped picture files: passed through byte for byte."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmpack.clock import UNIT_NS, decimals_to_ns
from mmpack.errors import ConfigError, DataError
from mmpack.recording.model import Frame, Timestamps

_EXTENSIONS = {".jpg": "jpg", ".jpeg": "jpg", ".png": "png"}
# Larger than any camera's still; bounds what one wrong file can take.
MAX_IMAGE_BYTES = 256 << 20
_DIGITS = re.compile(r"[0-9]+")
_MAGIC = {"jpg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n"}


@dataclass(frozen=True)
class ImageFiles:
    """Pictures in files, with a stamp each.

    Attributes:
        folder: what the names are relative to.
        names: the files, in the order of the stamps; a Path for each of a million would be ten times as large.
        t_ns: int64, shape (n,).
        origin: where the stamps come from.
        stream: name for messages.
        resolution_ns, unit: of the stamps, as in :class:`Timestamps`.
    """

    folder: Path
    names: tuple[str, ...]
    t_ns: NDArray[np.int64]
    origin: str
    stream: str
    resolution_ns: int = 1
    unit: str = "ns"

    def timestamps(self) -> Timestamps:
        """One stamp per file."""
        return Timestamps(self.t_ns, resolution_ns=self.resolution_ns, origin=self.origin, unit=self.unit)

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """The files' bytes as they are. Raises DataError for one that is missing, empty or no picture."""
        for index in indices:
            path = os.path.join(self.folder, self.names[index])
            extension = _extension(path)
            try:
                # Sized first: a read with a large limit would reserve that much memory for every file.
                with open(path, "rb", buffering=0) as file:
                    fits = os.fstat(file.fileno()).st_size <= MAX_IMAGE_BYTES
                    data = file.readall() if fits else b"?"
            except OSError as error:
                raise DataError(
                    f"cannot be read ({error.strerror})", where=f"stream '{self.stream}', {path}"
                ) from None
            if not extension or not data.startswith(_MAGIC[extension]):
                fault = "the file is empty" if not data else "is not a JPEG or PNG picture"
                raise DataError(
                    fault, where=f"stream '{self.stream}', {path}", hint="Replace or remove the file."
                )
            yield Frame(index, encoded=data, extension=extension)

    def files(self) -> Iterable[tuple[str, int]]:
        """Name and size of each file; a name alone where there is no file."""
        for name in self.names:
            try:
                yield os.path.basename(name), os.stat(os.path.join(self.folder, name)).st_size
            except (FileNotFoundError, NotADirectoryError):
                yield os.path.basename(name), 0


def _extension(name: str) -> str:
    """The kind of picture that a file's name claims, '' for any other file."""
    return _EXTENSIONS.get(os.path.splitext(name)[1].lower(), "")


def list_images(folder: Path, *, stream: str) -> list[str]:
    """Names of all JPEG and PNG files of `folder`, sorted. Raises DataError if there are none."""
    if not folder.is_dir():
        raise DataError(
            "no such folder of pictures",
            where=f"stream '{stream}', {folder}",
            hint="Correct its path in recording.toml.",
        )
    names = sorted(name for name in os.listdir(folder) if _extension(name))
    if not names:
        raise DataError("no JPEG or PNG file in the folder", where=f"stream '{stream}', {folder}")
    return names


def timestamps_from_names(
    folder: Path, names: Sequence[str], pattern: str, unit: str, *, stream: str
) -> NDArray[np.int64]:
    """The integer that `pattern`'s first group finds in each of `names`, as ns, int64, shape (n,).

    The pattern is searched in the name alone, not in the path of `folder`, which is for messages.

    Raises:
        ConfigError: the pattern is no regular expression with a group, or the unit is unknown.
        DataError: a name does not match, or a stamp is past int64 ns (a wrong unit).
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
                f"no stamp: the name does not match time.pattern '{pattern}'",
                where=f"stream '{stream}', {folder / name}",
            )
        digits.append(match[1])
    where = f"stream '{stream}', {folder}, time.pattern '{pattern}'"
    return decimals_to_ns(digits, unit, where=where)[0]
