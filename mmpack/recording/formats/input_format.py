"""Interface of an input format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mmpack.recording.model import Recording


@dataclass(frozen=True)
class InputFormat:
    """One input format.

    Attributes:
        name: name of the format, for messages.
        accepts: function that returns True if a path looks like this format; cheap.
        read: function of a path and a root that returns the recordings at the path; raises MmpackError. The root is a
            folder that replaces `recording.root` as the base of relative paths in recording.toml files, or None;
            formats without a recording.toml ignore it.
    """

    name: str
    accepts: Callable[[Path], bool]
    read: Callable[[Path, Path | None], Iterable[Recording]]
