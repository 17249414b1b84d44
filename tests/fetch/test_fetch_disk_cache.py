"""Tests of the disk cache: it is bounded, checked and shared, and its errors never stop a run."""

from __future__ import annotations

import os
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mmpack.fetch.disk_cache import DiskCache, cache_entry_name, lock_file
from mmpack.fetch.fetcher import Fetcher
from mmpack.plan.plan_config import ReaderConfig
from mmpack.storage.local import LocalStore
from tests.fetch.random_stores import RandomStore, make_planned_row, make_store
from tests.small_disk import mount_small_disk

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def store(tmp_path: Path) -> RandomStore:
    return make_store(tmp_path / "build")


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("??/*") if len(path.name) == 64)


def make_fetcher(root: Path, cache: Path, size: str = "10MB") -> Fetcher:
    return Fetcher([LocalStore(root)], ReaderConfig(cache=str(cache), cache_size=size, retries=0))


def all_members(store: RandomStore) -> dict:
    return {(0, number): members for number, members in enumerate(store.members)}


def test_a_cached_sample_is_not_read_again(tmp_path: Path, store: RandomStore) -> None:
    row = make_planned_row(*store.samples)
    assert make_fetcher(tmp_path / "build", tmp_path / "cache").fetch(row) == all_members(store)
    assert len(entries(tmp_path / "cache")) == len(store.samples)
    for shard in (tmp_path / "build" / "shards").iterdir():
        shard.unlink()
    # A later fetcher, after the shards were removed.
    assert make_fetcher(tmp_path / "build", tmp_path / "cache").fetch(row) == all_members(store)


def test_a_damaged_entry_is_read_again(tmp_path: Path, store: RandomStore) -> None:
    row = make_planned_row(*store.samples)
    make_fetcher(tmp_path / "build", tmp_path / "cache").fetch(row)
    flipped, short, long = entries(tmp_path / "cache")[:3]
    before = {path: path.read_bytes() for path in (flipped, short, long)}
    flipped.write_bytes(bytes([before[flipped][0] ^ 1]) + before[flipped][1:])
    os.truncate(short, 10)
    with long.open("ab") as file:
        file.write(b"more")
    assert make_fetcher(tmp_path / "build", tmp_path / "cache").fetch(row) == all_members(store)
    assert {path: path.read_bytes() for path in before} == before


def test_entry_names_depend_on_url_location_and_checksum(tmp_path: Path, store: RandomStore) -> None:
    sample = store.samples[0]
    names = {
        cache_entry_name("a", sample),
        cache_entry_name("b", sample),
        *(
            cache_entry_name("a", replace(sample, **{field: value}))
            for field, value in (("shard", "x"), ("offset_bytes", 1), ("size_bytes", 1), ("crc32", 1))
        ),
    }
    assert len(names) == 6
    # The indices in the plan are not part of the name.
    assert cache_entry_name("a", replace(sample, shard_set=7, number=9)) in names


def test_the_least_recently_used_entries_are_evicted_first(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", 10 * 4096)
    data = {f"{number:064x}": os.urandom(3000 + number) for number in range(10)}
    for age, (name, content) in enumerate(data.items()):
        cache.put(name, content)
        os.utime(cache._path(name), (1000 + age, 1000 + age))
    names = list(data)
    assert len(entries(tmp_path / "cache")) == 10
    # The oldest entry is read, then a new one is written.
    assert cache.get(names[0], 3000, zlib.crc32(data[names[0]])) == data[names[0]]
    cache.put("f" * 64, b"new")
    remaining = {path.name for path in entries(tmp_path / "cache")}
    assert names[0] in remaining
    assert "f" * 64 in remaining
    assert names[1] not in remaining
    assert remaining >= set(names[4:])


@pytest.mark.parametrize("num_writers", [1, 4])
def test_the_limit_holds_for_all_writers_together(tmp_path: Path, num_writers: int) -> None:
    limit = 40 * 4096
    max_entries = 0
    stop = threading.Event()
    (tmp_path / "cache").mkdir()

    def fill(seed: int) -> None:
        cache = DiskCache(tmp_path / "cache", limit)
        for number in range(60):
            cache.put(f"{seed}{number:063x}", os.urandom(4096))

    def watch() -> None:
        nonlocal max_entries
        while not stop.wait(0.001):
            with lock_file(tmp_path / "cache" / "total") as handle:  # nobody evicts while the lock is held
                if handle is not None:
                    max_entries = max(max_entries, len(entries(tmp_path / "cache")))

    watcher = threading.Thread(target=watch)
    fillers = [threading.Thread(target=fill, args=(seed,)) for seed in range(num_writers)]
    watcher.start()
    for filler in fillers:
        filler.start()
    for filler in fillers:
        filler.join()
    stop.set()
    watcher.join()
    assert 30 <= len(entries(tmp_path / "cache")) <= 40
    # Each writer may have been writing one entry while another one counted the entries.
    assert 30 <= max_entries <= 40 + num_writers


def test_an_entry_larger_than_the_cache_is_not_stored(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", 8192)
    cache.put("a" * 64, b"small")
    cache.put("b" * 64, bytes(9000))
    assert [path.name for path in entries(tmp_path / "cache")] == ["a" * 64]


def test_eviction_never_removes_other_files(tmp_path: Path) -> None:
    """Foreign files in the folder and the targets of links in it survive any eviction."""
    folder, outside = tmp_path / "cache", tmp_path / "outside"
    (folder / "ab").mkdir(parents=True)
    outside.mkdir()
    foreign = [
        folder / "notes.txt",
        folder / "ab" / "notes.txt",
        folder / ("c" * 64),
        outside / ("d" * 64),
        outside / "aside-12345678",
    ]
    for path in foreign:
        path.write_text("precious")
        os.utime(path, (1, 1))
    (folder / "dd").symlink_to(outside)
    stale, fresh = folder / "ab" / "aside-abcdefgh", folder / "ab" / "aside-ijklmnop"
    stale.write_text("left by a killed process")
    os.utime(stale, (1, 1))
    fresh.write_text("being written")
    cache = DiskCache(folder, 4 * 4096)
    for number in range(20):
        cache.put(f"{number:064x}", bytes(4096))
    assert all(path.read_text() == "precious" for path in foreign)
    assert not stale.exists()
    assert fresh.exists()


@pytest.mark.parametrize("total", [b"", b"nonsense", b"9" * 32])
def test_a_damaged_total_is_recomputed(tmp_path: Path, total: bytes) -> None:
    cache = DiskCache(tmp_path / "cache", 20 * 4096)
    for number in range(8):
        cache.put(f"{number:064x}", bytes(4096))
    (tmp_path / "cache" / "total").write_bytes(total)
    cache.put("e" * 64, bytes(4096))
    assert len(entries(tmp_path / "cache")) == 9
    assert int((tmp_path / "cache" / "total").read_bytes()) == 9 * 4096


def test_a_locked_total_skips_the_entry_and_not_the_row(tmp_path: Path, store: RandomStore) -> None:
    import fcntl

    (tmp_path / "cache").mkdir()
    handle = os.open(tmp_path / "cache" / "total", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    began = time.monotonic()
    assert make_fetcher(tmp_path / "build", tmp_path / "cache").fetch(
        make_planned_row(*store.samples[:2])
    ) == {(0, number): store.members[number] for number in range(2)}
    assert time.monotonic() - began < 5
    os.close(handle)
    assert entries(tmp_path / "cache") == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 100 kB, which is soon full."""
    with mount_small_disk("100k", tmp_path) as disk:
        yield disk


def test_a_full_disk_is_logged_once(
    tmp_path: Path, store: RandomStore, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cached = make_fetcher(tmp_path / "build", small_disk / "cache")
    for _ in range(3):
        assert cached.fetch(make_planned_row(*store.samples)) == all_members(store)
    assert caplog.text.count("cannot be written (No space left on device)") == 1
    stored = entries(small_disk / "cache")
    assert 0 < len(stored) < len(store.samples)
    assert list((small_disk / "cache").glob("*/aside-*")) == []


def test_a_folder_that_cannot_be_created_is_logged_once(
    tmp_path: Path, store: RandomStore, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    cached = make_fetcher(tmp_path / "build", tmp_path / "file" / "cache")
    for _ in range(2):
        assert cached.fetch(make_planned_row(*store.samples)) == all_members(store)
    assert caplog.text.count("cannot be written (Not a directory)") == 1


def test_a_read_only_cache_is_still_read(
    tmp_path: Path, store: RandomStore, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    half = make_planned_row(*store.samples[:8])
    make_fetcher(tmp_path / "build", small_disk / "cache").fetch(half)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    shard = tmp_path / "build" / store.samples[0].shard
    moved = shard.rename(tmp_path / "moved")
    cached = make_fetcher(tmp_path / "build", small_disk / "cache")
    assert cached.fetch(half) == {(0, number): store.members[number] for number in range(8)}
    assert caplog.text == ""
    moved.rename(shard)
    assert cached.fetch(make_planned_row(*store.samples)) == all_members(store)
    assert caplog.text.count("Read-only file system") == 1
