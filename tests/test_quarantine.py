"""The quarantine: the record of unreadable samples, and the limit that stops a run."""

from __future__ import annotations

import datetime
import json
import multiprocessing
from pathlib import Path

import pytest

from mmpack import quarantine as module
from mmpack.errors import ConfigError, DataError, QuarantineError, StorageError
from mmpack.quarantine import Quarantine, UnreadableSample, read_quarantine
from tests.small_disk import mount_small_disk

pytestmark = pytest.mark.timeout(60)


def unreadable_sample(row: int, reason: str = "its bytes differ") -> UnreadableSample:
    return UnreadableSample(
        row=row,
        key=f"key-{row}",
        shard="s3://b/x.tar",
        offset_bytes=512,
        size_bytes=1024,
        reason=reason,
    )


def test_records_are_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "quarantine.jsonl"
    quarantine = Quarantine(path, rank=3, max_corrupt=5)
    assert not path.parent.exists()
    for row in range(4):
        quarantine.record(unreadable_sample(row, 'a "reason"\nof two lines, ü'))
    assert quarantine.count == 4
    records = read_quarantine(path)
    assert [(record.row, record.key, record.rank, record.reason) for record in records] == [
        (row, f"key-{row}", 3, 'a "reason"\nof two lines, ü') for row in range(4)
    ]
    assert (records[0].shard, records[0].offset_bytes, records[0].size_bytes) == ("s3://b/x.tar", 512, 1024)
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(records[0].date)
    assert abs(age.total_seconds()) < 60
    assert all(json.loads(line)["rank"] == 3 for line in path.read_text().splitlines())


@pytest.mark.parametrize("allowed", [0, 1, 4])
def test_one_sample_above_the_limit_stops_the_run(tmp_path: Path, allowed: int) -> None:
    path = tmp_path / "quarantine.jsonl"
    quarantine = Quarantine(path, rank=0, max_corrupt=allowed)
    for row in range(allowed):
        quarantine.record(unreadable_sample(row))
    with pytest.raises(QuarantineError, match=f"{allowed + 1} samples cannot be read") as caught:
        quarantine.record(unreadable_sample(99))
    assert str(path) in str(caught.value)
    assert "max_corrupt" in caught.value.hint
    assert "key-99" in str(caught.value)
    assert len(read_quarantine(path)) == allowed + 1
    # The next run counts from zero and appends to the file.
    if allowed:
        Quarantine(path, rank=0, max_corrupt=allowed).record(unreadable_sample(100))
        assert len(read_quarantine(path)) == allowed + 2


def _record_100_samples(path: Path, rank: int) -> None:
    quarantine = Quarantine(path, rank, 1000)
    for row in range(100):
        quarantine.record(unreadable_sample(row, "x" * 900))


def test_all_ranks_write_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=_record_100_samples, args=(path, rank)) for rank in range(3)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    records = read_quarantine(path)
    for rank in range(3):
        assert [record.row for record in records if record.rank == rank] == list(range(100))


def test_a_long_reason_is_shortened(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q", 0, 9)
    quarantine.record(unreadable_sample(0, "y" * 1_000_000))
    assert (tmp_path / "q").stat().st_size < 4096
    assert read_quarantine(tmp_path / "q")[0].reason.startswith("yyy")


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b'{"row": 1}', b"\xff\xfe", b"[" * 100_000, b'{"row":"1"}', b"null"]
)
def test_a_line_that_is_not_a_record_is_an_error(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "q"
    Quarantine(path, 0, 9).record(unreadable_sample(0))
    with path.open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(DataError, match="not a quarantine record") as caught:
        read_quarantine(path)
    assert caught.value.where == f"{path}, line 2"


def test_a_large_or_missing_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="No such file"):
        read_quarantine(tmp_path / "none")
    monkeypatch.setattr(module, "MAX_QUARANTINE_BYTES", 100)
    (tmp_path / "large").write_bytes(b"x" * 101)
    with pytest.raises(DataError, match="larger than 100 bytes"):
        read_quarantine(tmp_path / "large")


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    with (
        mount_small_disk("8k", tmp_path) as disk,
        pytest.raises(StorageError, match="No space left on device"),
    ):
        _record_100_samples(disk / "q", rank=0)


@pytest.mark.parametrize("name", [".", "file/below.jsonl"])
def test_a_file_that_cannot_be_written_is_an_error_before_the_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"reader\.quarantine"):
        Quarantine(tmp_path / name, 0, 10)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
