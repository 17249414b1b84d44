"""Streams that have timestamps only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mmpack.recording.files import file_facts
from mmpack.recording.model import Stamps
from mmpack.recording.sources.tables import TimeColumn


@dataclass(frozen=True)
class StampColumn:
    """Stamps without content.

    Attributes:
        time: where the stamps are.
        stream: name for messages.
        start_ns: added to every stamp.
    """

    time: TimeColumn
    stream: str
    start_ns: int = 0

    def stamps(self) -> Stamps:
        """All stamps. Raises DataError."""
        return self.time.read(stream=self.stream).shifted(self.start_ns)

    def files(self) -> Iterable[tuple[str, int]]:
        """The file's name and size."""
        yield file_facts(self.time.path)


class NamedStamps:
    """Stamps that file names give, for sensors whose content is not read (lidar, radar, absent pictures)."""

    def __init__(self, t_ns: np.ndarray, origin: str) -> None:
        self._stamps = Stamps(t_ns, resolution_ns=1000, origin=origin)

    def stamps(self) -> Stamps:
        """All stamps."""
        return self._stamps

    def files(self) -> Iterable[tuple[str, int]]:
        """Nothing is read beyond the names."""
        return ()
