"""Tests of the fetcher on local shards: reads are merged and checked, and an error affects only its own sample."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from mmpack.errors import IntegrityError, StorageError
from mmpack.fetch import fetcher as fetcher_module
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
def store(tmp_path: Path) -> RandomStore:
    return make_store(tmp_path)


def make_fetcher(root: Path, **settings: object) -> Fetcher:
    return Fetcher([LocalStore(root)], ReaderConfig(**{"retries": 0, **settings}))  # pyright: ignore[reportArgumentType]


def test_samples_have_the_bytes_that_were_written(tmp_path: Path, store: RandomStore) -> None:
    for gap in ("0B", "64kB"):
        fetched = make_fetcher(tmp_path, gap=gap).fetch(
            make_planned_row(*store.samples[::-1], *store.samples[3:5])
        )
        assert fetched == {(0, number): members for number, members in enumerate(store.members)}
        assert all(type(data) is bytes for members in fetched.values() for data in members.values())  # pyright: ignore


def test_samples_of_several_stores_are_read(tmp_path: Path) -> None:
    builds = [make_store(tmp_path / str(index), shard_set=index) for index in range(3)]
    stores = [LocalStore(tmp_path / str(index)) for index in range(3)]
    chosen = [build.samples[5] for build in builds] + [builds[1].samples[6]]
    fetched = Fetcher(stores, ReaderConfig()).fetch(make_planned_row(*chosen))
    assert fetched == {
        (sample.shard_set, sample.number): builds[sample.shard_set].members[sample.number]
        for sample in chosen
    }


def test_neighbouring_samples_share_a_read(store: RandomStore, monkeypatch: pytest.MonkeyPatch) -> None:
    first = [sample for sample in store.samples if sample.shard == store.samples[0].shard]
    size = first[0].size_bytes
    # Two neighbours, a gap of one sample, two neighbours, and a sample of another shard.
    chosen = [first[4], first[0], first[1], first[3], store.samples[-1]]
    merged = plan_reads(chosen, size)
    assert [(read.shard, [sample.number for sample in read.samples]) for read in merged] == [
        (first[0].shard, [0, 1, 3, 4]),
        (store.samples[-1].shard, [store.samples[-1].number]),
    ]
    assert (merged[0].start, merged[0].stop) == (0, first[4].offset_bytes + first[4].size_bytes)
    separate = plan_reads(chosen, 0)
    assert [[sample.number for sample in read.samples] for read in separate[:-1]] == [[0, 1], [3, 4]]
    # A sample inside the bytes of another one does not shorten the read.
    inner = replace(first[0], number=99, offset_bytes=512, size_bytes=512)
    assert plan_reads([inner, first[0]], 0)[0].stop == size
    monkeypatch.setattr(fetcher_module, "MAX_READ_BYTES", 2 * size + 1024)
    bounded = plan_reads(first, 1 << 40)
    assert all(read.stop - read.start <= 2 * size + 1024 for read in bounded)
    assert [sample for read in bounded for sample in read.samples] == first


def test_merged_reads_are_done_once(
    tmp_path: Path, store: RandomStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[tuple[int, int]] = []
    real_preadv = os.preadv

    def record_preadv(handle: int, buffers: list[memoryview], offset: int) -> int:
        reads.append((offset, len(buffers[0])))
        return real_preadv(handle, buffers, offset)

    monkeypatch.setattr(os, "preadv", record_preadv)
    make_fetcher(tmp_path).fetch(make_planned_row(*store.samples[:5], *store.samples[:5]))
    assert reads == [(0, sum(sample.size_bytes for sample in store.samples[:5]))]


def test_a_flipped_bit_affects_one_sample(tmp_path: Path, store: RandomStore) -> None:
    bad = store.samples[4]
    path = tmp_path / bad.shard
    data = bytearray(path.read_bytes())
    data[bad.offset_bytes + 700] ^= 1
    path.write_bytes(data)
    fetched = make_fetcher(tmp_path).fetch(make_planned_row(*store.samples))
    error = fetched.pop((0, 4))
    assert isinstance(error, IntegrityError)
    assert "crc32" in str(error)
    assert bad.key in str(error)
    assert fetched == {(0, number): members for number, members in enumerate(store.members) if number != 4}


def test_a_truncated_shard_affects_only_the_missing_samples(tmp_path: Path, store: RandomStore) -> None:
    cut = store.samples[7]
    os.truncate(tmp_path / cut.shard, cut.offset_bytes + 100)
    fetched = make_fetcher(tmp_path, gap="1MB").fetch(make_planned_row(*store.samples))
    per_shard = len(store.samples) // 2
    for number, members in enumerate(store.members):
        if 7 <= number < per_shard:
            error = fetched[0, number]
            assert isinstance(error, StorageError)
            assert "truncated" in str(error)
            assert store.samples[number].shard in str(error)
        else:
            assert fetched[0, number] == members


@pytest.mark.parametrize("reason", ["missing", "folder", "denied"])
def test_a_shard_that_cannot_be_opened_is_not_retried(
    tmp_path: Path, store: RandomStore, reason: str
) -> None:
    path = tmp_path / store.samples[0].shard
    if reason == "denied":
        if os.geteuid() == 0:
            pytest.skip("root can read every file")
        path.chmod(0)
    else:
        path.unlink()
    if reason == "folder":
        path.mkdir()
    fetched = make_fetcher(tmp_path, retries=50).fetch(
        make_planned_row(*store.samples)
    )  # 50 retries would take minutes
    for number, members in enumerate(store.members):
        if store.samples[number].shard == store.samples[0].shard:
            assert isinstance(fetched[0, number], PermanentStorageError)
        else:
            assert fetched[0, number] == members


def test_a_wrong_index_is_detected(tmp_path: Path, store: RandomStore) -> None:
    """Impossible sizes are rejected before memory is allocated, and no shard name leads out of the store."""
    correct = store.samples[0]
    wrong = {
        1: replace(store.samples[1], size_bytes=MAX_SAMPLE_BYTES + 1),
        2: replace(store.samples[2], size_bytes=-1),
        3: replace(store.samples[3], offset_bytes=-512),
        4: replace(store.samples[4], size_bytes=MAX_SAMPLE_BYTES),
        5: replace(store.samples[5], shard="../../etc/passwd"),
        6: replace(store.samples[6], key="another"),
        7: replace(store.samples[7], offset_bytes=1 << 62),
    }
    fetched = make_fetcher(tmp_path).fetch(make_planned_row(correct, *wrong.values()))
    assert fetched[0, 0] == store.members[0]
    for number in (1, 2, 3):
        assert isinstance(fetched[0, number], IntegrityError)
    assert "claims an invalid range" in str(fetched[0, 1])
    assert "truncated" in str(fetched[0, 4])
    assert "leaves its folder" in str(fetched[0, 5])
    assert "does not belong" in str(fetched[0, 6])
    assert "truncated" in str(fetched[0, 7])


def test_threads_share_one_fetcher(tmp_path: Path) -> None:
    store = make_store(tmp_path, shards=9, per_shard=3)
    shared = make_fetcher(tmp_path)
    shared._files = OpenFiles(
        limit=2
    )  # fewer than the shards, so that files are closed while other threads read
    expected = {(0, number): members for number, members in enumerate(store.members)}
    mismatches: list[object] = []

    def read() -> None:
        for _ in range(20):
            fetched = shared.fetch(make_planned_row(*store.samples))
            if fetched != expected:
                mismatches.append(fetched)

    threads = [threading.Thread(target=read) for _ in range(4)]
    before = count_open_descriptors()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mismatches == []
    assert count_open_descriptors() <= before + 2
    shared.close()
    assert count_open_descriptors() == before


def test_a_read_larger_than_one_call_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmpack.storage import open_files

    monkeypatch.setattr(open_files, "_MAX_CALL_BYTES", 1000)
    data = os.urandom(5500)
    (tmp_path / "file").write_bytes(data)
    files = OpenFiles()
    for start, size in ((10, 5390), (10, 9989), (9999, 1), (0, 0)):
        buffer = bytearray(size)
        assert files.read_into(str(tmp_path / "file"), start, memoryview(buffer)) == len(
            data[start : start + size]
        )
        assert buffer.startswith(data[start : start + size])
    assert files.size(str(tmp_path / "file")) == 5500


def test_samples_larger_than_a_read_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path, per_shard=3)
    monkeypatch.setattr(fetcher_module, "MAX_READ_BYTES", 2000)
    fetched = make_fetcher(tmp_path).fetch(make_planned_row(*store.samples))
    assert fetched == {(0, number): members for number, members in enumerate(store.members)}


def test_a_stale_handle_is_reopened(
    tmp_path: Path, store: RandomStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a network file system, reading a stale handle fails until the file is opened again."""
    stale_fetcher = make_fetcher(tmp_path, retries=1)
    row = make_planned_row(store.samples[0])
    stale_fetcher.fetch(row)
    handle = stale_fetcher._files._files[str(tmp_path / store.samples[0].shard)].handle
    write = os.open(tmp_path / "elsewhere", os.O_WRONLY | os.O_CREAT)
    os.dup2(write, handle)  # not open for reading, so reads fail with EBADF
    os.close(write)
    os.truncate(tmp_path / "elsewhere", 1 << 20)
    assert stale_fetcher.fetch(row) == {(0, 0): store.members[0]}


def test_retries_are_limited_and_stop_when_asked() -> None:
    calls: list[int] = []

    def fail(error_type: type[StorageError]) -> bytes:
        calls.append(1)
        raise error_type("no")

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
    outcomes = iter([StorageError("once"), StorageError("twice"), b"at last"])

    def succeed_at_last() -> bytes:
        outcome = next(outcomes)
        if isinstance(outcome, bytes):
            return outcome
        raise outcome

    assert retry(succeed_at_last, retries=2, stop=threading.Event()) == b"at last"


def test_the_random_store_has_the_format_of_real_shards(tmp_path: Path) -> None:
    """The shards of `make_store` are readable tars with the expected members."""
    store = make_store(tmp_path, shards=1)
    (tmp_path / "out").mkdir()
    shutil.unpack_archive(tmp_path / store.samples[0].shard, tmp_path / "out", filter="data")
    for sample, members in zip(store.samples, store.members, strict=True):
        for extension, content in members.items():
            assert (tmp_path / "out" / f"{sample.key}.{extension}").read_bytes() == content
