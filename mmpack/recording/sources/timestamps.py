"""Streams that have timestamps only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mmpack.recording.files import file_identity
from mmpack.recording.model import Timestamps
from mmpack.recording.sources.tables import TimeColumn


@dataclass(frozen=True)
class TimestampColumn:
    """Stamps without content.

    Attributes:
        time: where the stamps are.
        stream: name for messages.
        start_ns: added to every stamp.
    """

    time: TimeColumn
    stream: str
    start_ns: int = 0

    def timestamps(self) -> Timestamps:
        """All stamps. Raises DataError."""
        return self.time.read(stream=self.stream).shift(self.start_ns)

    def files(self) -> Iterable[tuple[str, int]]:
        """The file's name and size."""
        yield file_identity(self.time.path)


class FileNameTimestamps:
    """Stamps that file names give, for sensors whose content is not read (lidar, radar, absent pictures)."""

    def __init__(self, t_ns: np.ndarray, origin: str) -> None:
        self._timestamps = Timestamps(t_ns, resolution_ns=1000, origin=origin)

    def timestamps(self) -> Timestamps:
        """All stamps."""
        return self._timestamps

    def files(self) -> Iterable[tuple[str, int]]:
        """Nothing is read beyond the names."""
        return ()
