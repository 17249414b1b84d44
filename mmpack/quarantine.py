"""Unreadable samples: the record of each, the JSONL file of all, and the limit that stops a run."""

from __future__ import annotations

import datetime
import errno
import os
from pathlib import Path

import msgspec

from mmpack.errors import ConfigError, DataError, QuarantineError
from mmpack.serialisation import JSON_ERRORS, Record, from_json
from mmpack.storage.store import storage_errors

MAX_QUARANTINE_BYTES = 64 << 20
"""Largest quarantine file that is read. Runs that stop after `max_corrupt` samples write much smaller files."""
MAX_TEXT_CHARS = 1000
"""Largest number of characters recorded of a key, shard or reason."""


class UnreadableSample(Record, frozen=True, kw_only=True):
    """A sample that cannot be read or decoded.

    Fields:
        row: number of the row that the sample belongs to.
        key: key of the sample.
        shard: path or URL of the shard.
        offset_bytes, size_bytes: byte range of the sample's members in the shard.
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
        rank: rank that found the sample unreadable.
        date: time of the record, ISO 8601 in UTC.
    """

    rank: int
    date: str


class Quarantine:
    """The record of unreadable samples, which stops the run when there are too many.

    All ranks may share the file, because each line is appended by one write call. The file is created when the first
    sample is recorded.

    Args:
        path: path of the quarantine file.
        rank: rank of this process.
        max_corrupt: largest number of unreadable samples; one more stops the run. 0 stops it at the first.

    Raises:
        ConfigError: the file cannot be written. This is checked at the start, because the first unreadable sample
            may be hours away.

    Attributes:
        count: number of unreadable samples of this run so far.
    """

    def __init__(self, path: Path, rank: int, max_corrupt: int) -> None:
        self._path = _require_writable(path)
        self._rank = rank
        self._max_corrupt = max_corrupt
        self.count = 0

    def record(self, sample: UnreadableSample) -> None:
        """Appends `sample` to the file.

        Raises:
            QuarantineError: this run has more than `max_corrupt` unreadable samples.
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
                hint="Repair the shards (mmpack verify lists what is wrong), or raise reader.max_corrupt.",
            )


def _require_writable(path: Path) -> Path:
    """Returns `path` if this process may write it as a file. Creates nothing."""
    folder = path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    is_file = folder == path and path.is_file()
    if not (is_file or (folder != path and folder.is_dir())) or not os.access(folder, os.W_OK):
        raise ConfigError(
            "is not a file that can be written",
            where=f"reader.quarantine: {path}",
            hint="Set reader.quarantine to a file that you may write.",
        )
    return path


def read_quarantine(path: Path) -> list[QuarantineRecord]:
    """Reads all records of a quarantine file, in the order of its lines.

    Raises:
        DataError: a line is not a record of mmpack (the error names the line number), or the file is too large.
        StorageError: the file cannot be read.
    """
    with storage_errors(str(path), "reading"), path.open("rb") as file:
        data = file.read(MAX_QUARANTINE_BYTES + 1)
    if len(data) > MAX_QUARANTINE_BYTES:
        raise DataError(
            f"larger than {MAX_QUARANTINE_BYTES} bytes, so not a quarantine file", where=str(path)
        )
    records: list[QuarantineRecord] = []
    for number, line in enumerate(data.splitlines(), start=1):
        if not line:
            continue
        try:
            records.append(from_json(line, QuarantineRecord))
        except JSON_ERRORS as error:
            raise DataError(
                f"not a quarantine record ({error})", where=f"{path}, line {number}", hint="Remove this line."
            ) from None
    return records
