"""Sources of streams that have timestamps without content."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmpack.recording.files import file_identity
from mmpack.recording.model import Timestamps
from mmpack.recording.sources.tables import TimeColumn


@dataclass(frozen=True)
class TimestampColumn:
    """Timestamps without content, in a column of a table file.

    Attributes:
        time: location of the timestamps.
        stream: name of the stream, for messages.
        start_ns: duration added to every timestamp.
    """

    time: TimeColumn
    stream: str
    start_ns: int = 0

    def timestamps(self) -> Timestamps:
        """Returns all timestamps. Raises ConfigError, DataError."""
        return self.time.read(stream=self.stream).shift(self.start_ns)

    def files(self) -> Iterable[tuple[str, int]]:
        """Yields the file's name and size in bytes."""
        yield file_identity(self.time.path)

    def identity(self) -> dict[str, Any]:
        """Returns the values that determine the content, as in :meth:`mmpack.recording.FrameSource.identity`."""
        return {"source": "time column", "time": self.time.identity(), "start_ns": self.start_ns}


class FileNameTimestamps:
    """Timestamps from file names, for sensors whose content is not read (lidar, radar, missing images).

    Args:
        t_ns: int64, shape (n,), timestamps.
        origin: origin of the timestamps, as in :class:`Timestamps`.
    """

    def __init__(self, t_ns: np.ndarray, origin: str) -> None:
        self._timestamps = Timestamps(t_ns, resolution_ns=1000, origin=origin)

    def timestamps(self) -> Timestamps:
        """Returns all timestamps."""
        return self._timestamps

    def files(self) -> Iterable[tuple[str, int]]:
        """Returns no files, because only file names are read."""
        return ()

    def identity(self) -> dict[str, Any]:
        """Returns the values that determine the content, as in :meth:`mmpack.recording.FrameSource.identity`."""
        return {"source": "file names", "times": self._timestamps.identity()}
