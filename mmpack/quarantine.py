"""Samples that cannot be read: what is known of each, and the file that records them."""

from __future__ import annotations

import datetime
import errno
import os
from pathlib import Path

import msgspec

from mmpack.errors import ConfigError, DataError, QuarantineError
from mmpack.serialisation import JSON_ERRORS, from_json
from mmpack.settings import Settings
from mmpack.storage.store import storage_errors

MAX_QUARANTINE_BYTES = 64 << 20
"""A file of more was not written by runs that stop after `max_corrupt`."""
MAX_TEXT_CHARS = 1000
"""Characters that are recorded of a key, shard or reason."""


class UnreadableSample(Settings, frozen=True, kw_only=True):
    """One unreadable sample.

    Fields:
        row: number of the row it belongs to.
        key: of the sample.
        shard: path or URL of its shard.
        offset_bytes, size_bytes: its members there.
        reason: what is wrong, in one line.
    """

    row: int
    key: str
    shard: str
    offset_bytes: int
    size_bytes: int
    reason: str


class QuarantineRecord(UnreadableSample, frozen=True, kw_only=True):
    """A line of a quarantine file.

    Fields:
        rank: that met it.
        date: when, ISO 8601 in UTC.
    """

    rank: int
    date: str


class Quarantine:
    """Records unreadable samples, and stops the run when there are too many.

    The file may be shared by all ranks: a line is one write at its end. It is made when there is something to write.

    Args:
        path: of the file.
        rank: of this process.
        max_corrupt: faults that a run puts up with; 0: the first one stops it.

    Raises:
        ConfigError: it could not be written. That is looked at now: the first fault may be hours away.

    Attributes:
        count: faults of this run so far.
    """

    def __init__(self, path: Path, rank: int, max_corrupt: int) -> None:
        self._path = _require_writable(path)
        self._rank = rank
        self._max_corrupt = max_corrupt
        self.count = 0

    def record(self, sample: UnreadableSample) -> None:
        """Records `fault`.

        Raises:
            QuarantineError: there are more than `max_corrupt` in this run.
            StorageError: the file cannot be written.
        """
        self.count += 1
        line = QuarantineRecord(
            row=sample.row,
            key=sample.key[:MAX_TEXT_CHARS],
            shard=sample.shard[:MAX_TEXT_CHARS],
            offset_bytes=sample.offset_bytes,
            size_bytes=sample.size_bytes,
            reason=sample.reason[:MAX_TEXT_CHARS],
            rank=self._rank,
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        )
        with storage_errors(str(self._path), "writing"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                data = msgspec.json.encode(line) + b"\n"
                if os.write(handle, data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(handle)
        if self.count > self._max_corrupt:
            raise QuarantineError(
                f"{self.count} samples cannot be read, the last one '{sample.key}': {sample.reason}",
                where=str(self._path),
                hint="Mend the shards (mmpack verify names what is wrong), or raise reader.max_corrupt.",
            )


def _require_writable(path: Path) -> Path:
    """`path` if it is, or could be made, a file that this process may write; nothing is made."""
    folder = path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    is_file = folder == path and path.is_file()
    if not (is_file or (folder != path and folder.is_dir())) or not os.access(folder, os.W_OK):
        raise ConfigError(
            "is no file that can be written",
            where=f"reader.quarantine: {path}",
            hint="Name one that you may write.",
        )
    return path


def read_quarantine(path: Path) -> list[QuarantineRecord]:
    """All lines of a quarantine file, in their order.

    Raises:
        DataError: a line is none that mmpack wrote, with its number; or the file is too large.
        StorageError: it cannot be read.
    """
    with storage_errors(str(path), "reading"), path.open("rb") as file:
        data = file.read(MAX_QUARANTINE_BYTES + 1)
    if len(data) > MAX_QUARANTINE_BYTES:
        raise DataError(
            f"larger than {MAX_QUARANTINE_BYTES} bytes, so not a quarantine file", where=str(path)
        )
    faults: list[QuarantineRecord] = []
    for number, line in enumerate(data.splitlines(), start=1):
        if not line:
            continue
        try:
            faults.append(from_json(line, QuarantineRecord))
        except JSON_ERRORS as error:
            raise DataError(
                f"not a recorded fault ({error})", where=f"{path}, line {number}", hint="Remove that line."
            ) from None
    return faults
