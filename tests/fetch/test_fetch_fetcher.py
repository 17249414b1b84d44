"""Bytes of planned rows from local shards: merged, checked, and each sample's fault its own."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from mmpack.errors import IntegrityError, StorageError
from mmpack.fetch import fetcher as fetching
from mmpack.fetch.fetcher import Fetcher, plan_reads
from mmpack.plan.plan_config import ReaderConfig
from mmpack.shards.sample_bytes import MAX_SAMPLE_BYTES
from mmpack.storage.local import LocalStore
from mmpack.storage.open_files import OpenFiles
from mmpack.storage.retry import retry
from mmpack.storage.store import PermanentStorageError
from tests.fetch.random_stores import RandomStore, count_open_descriptors, make_planned_row, make_store

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def made(tmp_path: Path) -> RandomStore:
    return make_store(tmp_path)


def fetcher(root: Path, **settings: object) -> Fetcher:
    return Fetcher([LocalStore(root)], ReaderConfig(**{"retries": 0, **settings}))  # pyright: ignore[reportArgumentType]


def test_every_sample_is_what_was_written(tmp_path: Path, made: RandomStore) -> None:
    for gap in ("0B", "64kB"):
        found = fetcher(tmp_path, gap=gap).fetch(make_planned_row(*made.samples[::-1], *made.samples[3:5]))
        assert found == {(0, number): members for number, members in enumerate(made.members)}
        assert all(type(data) is bytes for members in found.values() for data in members.values())  # pyright: ignore


def test_samples_of_several_stores(tmp_path: Path) -> None:
    builds = [make_store(tmp_path / str(source), shard_set=source) for source in range(3)]
    stores = [LocalStore(tmp_path / str(source)) for source in range(3)]
    chosen = [build.samples[5] for build in builds] + [builds[1].samples[6]]
    found = Fetcher(stores, ReaderConfig()).fetch(make_planned_row(*chosen))
    assert found == {
        (each.shard_set, each.number): builds[each.shard_set].members[each.number] for each in chosen
    }


def test_which_samples_share_a_read(made: RandomStore, monkeypatch: pytest.MonkeyPatch) -> None:
    first = [sample for sample in made.samples if sample.shard == made.samples[0].shard]
    size = first[0].size_bytes
    # Neighbours, then a hole of one sample, then neighbours again.
    chosen = [first[4], first[0], first[1], first[3], made.samples[-1]]
    whole = plan_reads(chosen, size)
    assert [(read.shard, [each.number for each in read.samples]) for read in whole] == [
        (first[0].shard, [0, 1, 3, 4]),
        (made.samples[-1].shard, [made.samples[-1].number]),
    ]
    assert (whole[0].start, whole[0].stop) == (0, first[4].offset_bytes + first[4].size_bytes)
    parts = plan_reads(chosen, 0)
    assert [[each.number for each in read.samples] for read in parts[:-1]] == [[0, 1], [3, 4]]
    # One whose bytes lie within another's does not shorten the read.
    inner = replace(first[0], number=99, offset_bytes=512, size_bytes=512)
    assert plan_reads([inner, first[0]], 0)[0].stop == size
    monkeypatch.setattr(fetching, "MAX_READ_BYTES", 2 * size + 1024)
    bounded = plan_reads(first, 1 << 40)
    assert all(read.stop - read.start <= 2 * size + 1024 for read in bounded)
    assert [each for read in bounded for each in read.samples] == first


def test_reads_are_merged_and_done_once(
    tmp_path: Path, made: RandomStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    real = os.preadv

    def counted(handle: int, rooms: list[memoryview], offset: int) -> int:
        asked.append((offset, len(rooms[0])))
        return real(handle, rooms, offset)

    monkeypatch.setattr(os, "preadv", counted)
    fetcher(tmp_path).fetch(make_planned_row(*made.samples[:5], *made.samples[:5]))
    assert asked == [(0, sum(sample.size_bytes for sample in made.samples[:5]))]


def test_a_wrong_byte_is_one_samples_fault(tmp_path: Path, made: RandomStore) -> None:
    bad = made.samples[4]
    path = tmp_path / bad.shard
    data = bytearray(path.read_bytes())
    data[bad.offset_bytes + 700] ^= 1
    path.write_bytes(data)
    found = fetcher(tmp_path).fetch(make_planned_row(*made.samples))
    error = found.pop((0, 4))
    assert isinstance(error, IntegrityError)
    assert "crc32" in str(error)
    assert bad.key in str(error)
    assert found == {(0, number): each for number, each in enumerate(made.members) if number != 4}


def test_a_truncated_shard_costs_only_what_is_gone(tmp_path: Path, made: RandomStore) -> None:
    cut = made.samples[7]
    os.truncate(tmp_path / cut.shard, cut.offset_bytes + 100)
    found = fetcher(tmp_path, gap="1MB").fetch(make_planned_row(*made.samples))
    per_shard = len(made.samples) // 2
    for number, members in enumerate(made.members):
        if 7 <= number < per_shard:
            error = found[0, number]
            assert isinstance(error, StorageError)
            assert "truncated" in str(error)
            assert made.samples[number].shard in str(error)
        else:
            assert found[0, number] == members


@pytest.mark.parametrize("gone", ["missing", "folder", "denied"])
def test_a_shard_that_cannot_be_opened(tmp_path: Path, made: RandomStore, gone: str) -> None:
    path = tmp_path / made.samples[0].shard
    if gone == "denied":
        if os.geteuid() == 0:
            pytest.skip("root may read everything")
        path.chmod(0)
    else:
        path.unlink()
    if gone == "folder":
        path.mkdir()
    found = fetcher(tmp_path, retries=50).fetch(
        make_planned_row(*made.samples)
    )  # 50 tries would take minutes
    for number, members in enumerate(made.members):
        if made.samples[number].shard == made.samples[0].shard:
            assert isinstance(found[0, number], PermanentStorageError)
        else:
            assert found[0, number] == members


def test_an_index_that_lies(tmp_path: Path, made: RandomStore) -> None:
    """Insane sizes are refused before memory is asked for, and no name leaves the store."""
    good = made.samples[0]
    lies = {
        1: replace(made.samples[1], size_bytes=MAX_SAMPLE_BYTES + 1),
        2: replace(made.samples[2], size_bytes=-1),
        3: replace(made.samples[3], offset_bytes=-512),
        4: replace(made.samples[4], size_bytes=MAX_SAMPLE_BYTES),
        5: replace(made.samples[5], shard="../../etc/passwd"),
        6: replace(made.samples[6], key="another"),
        7: replace(made.samples[7], offset_bytes=1 << 62),
    }
    found = fetcher(tmp_path).fetch(make_planned_row(good, *lies.values()))
    assert found[0, 0] == made.members[0]
    for number in (1, 2, 3):
        assert isinstance(found[0, number], IntegrityError)
    assert "claims" in str(found[0, 1])
    assert "truncated" in str(found[0, 4])
    assert "leaves its folder" in str(found[0, 5])
    assert "does not belong" in str(found[0, 6])
    assert "truncated" in str(found[0, 7])


def test_threads_share_one_fetcher(tmp_path: Path) -> None:
    made = make_store(tmp_path, shards=9, per_shard=3)
    shared = fetcher(tmp_path)
    shared._files = OpenFiles(limit=2)  # far fewer than shards: evicted while others read
    expected = {(0, number): members for number, members in enumerate(made.members)}
    wrong: list[object] = []

    def read() -> None:
        for _ in range(20):
            found = shared.fetch(make_planned_row(*made.samples))
            if found != expected:
                wrong.append(found)

    threads = [threading.Thread(target=read) for _ in range(4)]
    before = count_open_descriptors()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert count_open_descriptors() <= before + 2
    shared.close()
    assert count_open_descriptors() == before


def test_a_file_larger_than_one_call_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmpack.storage import open_files

    monkeypatch.setattr(open_files, "_MAX_CALL_BYTES", 1000)
    data = os.urandom(5500)
    (tmp_path / "file").write_bytes(data)
    files = OpenFiles()
    for start, size in ((10, 5390), (10, 9989), (9999, 1), (0, 0)):
        room = bytearray(size)
        assert files.read_into(str(tmp_path / "file"), start, memoryview(room)) == len(
            data[start : start + size]
        )
        assert room.startswith(data[start : start + size])
    assert files.size(str(tmp_path / "file")) == 5500


def test_samples_larger_than_a_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_store(tmp_path, per_shard=3)
    monkeypatch.setattr(fetching, "MAX_READ_BYTES", 2000)
    found = fetcher(tmp_path).fetch(make_planned_row(*made.samples))
    assert found == {(0, number): members for number, members in enumerate(made.members)}


def test_a_stale_handle_is_opened_anew(
    tmp_path: Path, made: RandomStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a network file system: reading fails until the file is opened again."""
    stale = fetcher(tmp_path, retries=1)
    row = make_planned_row(made.samples[0])
    stale.fetch(row)
    handle = stale._files._files[str(tmp_path / made.samples[0].shard)].handle
    write = os.open(tmp_path / "elsewhere", os.O_WRONLY | os.O_CREAT)
    os.dup2(write, handle)  # not open for reading: EBADF
    os.close(write)
    os.truncate(tmp_path / "elsewhere", 1 << 20)
    assert stale.fetch(row) == {(0, 0): made.members[0]}


def test_retrying_ends() -> None:
    calls: list[int] = []

    def fail(kind: type[StorageError]) -> bytes:
        calls.append(1)
        raise kind("no")

    with pytest.raises(StorageError):
        retry(lambda: fail(StorageError), retries=2, stop=threading.Event())
    assert len(calls) == 3
    with pytest.raises(PermanentStorageError):
        retry(lambda: fail(PermanentStorageError), retries=9, stop=threading.Event())
    assert len(calls) == 4
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(StorageError):
        retry(lambda: fail(StorageError), retries=90, stop=stopped)
    assert len(calls) == 5
    answers = iter([StorageError("once"), StorageError("twice"), b"at last"])

    def mended() -> bytes:
        answer = next(answers)
        if isinstance(answer, bytes):
            return answer
        raise answer

    assert retry(mended, retries=2, stop=threading.Event()) == b"at last"


def test_a_build_as_it_is_written(tmp_path: Path) -> None:
    """The stand-in above has the format of real shards: what it reads, `tar` reads."""
    made = make_store(tmp_path, shards=1)
    (tmp_path / "out").mkdir()
    shutil.unpack_archive(tmp_path / made.samples[0].shard, tmp_path / "out", filter="data")
    for sample, members in zip(made.samples, made.members, strict=True):
        for extension, content in members.items():
            assert (tmp_path / "out" / f"{sample.key}.{extension}").read_bytes() == content
