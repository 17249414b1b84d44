"""Bytes of planned rows from an object store, through a network that fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmpack.errors import IntegrityError, StorageError
from mmpack.fetch import fetcher as fetching
from mmpack.fetch.fetcher import Fetcher
from mmpack.plan.plan_config import ReaderConfig
from mmpack.storage.local import LocalStore
from mmpack.storage.objects import ObjectStore
from mmpack.storage.store import PermanentStorageError
from tests.fetch.flaky_store import Proxy, run_proxy, run_s3_server, upload
from tests.fetch.random_stores import RandomStore, make_planned_row, make_store

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RandomStore:
    return make_store(tmp_path_factory.mktemp("remote"), shards=4, per_shard=10)


@pytest.fixture(scope="module")
def s3(made: RandomStore) -> Iterator[tuple[Any, tuple[str, int]]]:
    """An S3 server that holds the store as s3://shards/build, and its address."""
    with run_s3_server() as (client, address):
        upload(client, made.folder, "build")
        yield client, address


@pytest.fixture
def proxy(s3: tuple[Any, tuple[str, int]]) -> Iterator[Proxy]:
    with run_proxy(s3[1]) as proxy:
        yield proxy


def fetcher(**settings: Any) -> Fetcher:
    """On a client that itself tries nothing twice."""
    return Fetcher([ObjectStore("s3://shards/build", client_retries=0)], ReaderConfig(**settings))


def whole(made: RandomStore) -> dict:
    return {(0, number): members for number, members in enumerate(made.members)}


def test_neighbours_in_one_request_and_several_in_flight(made: RandomStore, proxy: Proxy) -> None:
    proxy.delay_s = 0.2
    row = make_planned_row(*made.samples[::-1], *made.samples)
    remote = fetcher(retries=0)
    assert remote.fetch(row) == whole(made)
    assert len(proxy.ranges) == 4  # one a shard
    assert proxy.max_concurrent >= 2
    remote.close()


def test_large_reads_are_split(made: RandomStore, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MAX_READ_BYTES", 16_384)
    remote = fetcher(retries=0)
    assert remote.fetch(make_planned_row(*made.samples)) == whole(made)
    sizes = [
        1 + int(stop) - int(start) for start, _, stop in (each[6:].partition("-") for each in proxy.ranges)
    ]
    assert len(sizes) > 8
    assert max(sizes) <= 16_384
    remote.close()


def test_one_request_in_ten_fails_and_no_sample_is_lost(made: RandomStore, proxy: Proxy) -> None:
    proxy.fail_every = 10
    remote = fetcher(retries=4, gap="0B")
    for number in range(12):
        some = made.samples[number::2]
        assert remote.fetch(make_planned_row(*some)) == {
            (0, each.number): made.members[each.number] for each in some
        }
    assert proxy.num_failed >= 10
    assert len(proxy.ranges) < 400
    remote.close()


def test_retries_are_what_brings_them(made: RandomStore, proxy: Proxy) -> None:
    """The same without retries loses samples, and names the shard."""
    proxy.fail_every = 2
    remote = fetcher(retries=0, gap="0B")
    found = remote.fetch(make_planned_row(*made.samples[::2]))
    errors = [each for each in found.values() if isinstance(each, StorageError)]
    assert errors
    assert "s3://shards/build/shards/0000" in str(errors[0])
    remote.close()


def test_a_store_that_is_away(made: RandomStore, proxy: Proxy) -> None:
    proxy.is_down = True
    remote = fetcher(retries=1)
    began = time.monotonic()
    found = remote.fetch(make_planned_row(*made.samples))
    assert all(type(each) is StorageError for each in found.values())
    assert len(found) == len(made.samples)
    # Neither sample by sample nor for ever: two tries of each read, two of asking whether the store is there.
    assert len(proxy.ranges) <= 4 * 4
    assert time.monotonic() - began < 20
    proxy.is_down = False
    assert remote.fetch(make_planned_row(*made.samples)) == whole(made)
    remote.close()


def test_a_missing_object_is_asked_for_once(made: RandomStore, proxy: Proxy) -> None:
    gone = [replace(sample, shard="shards/gone.tar") for sample in made.samples[:3]]
    remote = fetcher(retries=90)
    found = remote.fetch(make_planned_row(*gone, *made.samples[10:12]))
    for number in range(3):
        error = found[0, number]
        assert isinstance(error, PermanentStorageError)
        assert "shards/gone.tar" in str(error)
    assert [found[0, number] for number in (10, 11)] == made.members[10:12]
    assert len(proxy.ranges) <= 3
    remote.close()


def test_a_truncated_object_costs_only_what_is_gone(
    made: RandomStore, proxy: Proxy, s3: tuple[Any, tuple[str, int]]
) -> None:
    cut = made.samples[6]
    data = (made.folder / cut.shard).read_bytes()
    s3[0].put_object(Bucket="shards", Key="build/shards/cut.tar", Body=data[: cut.offset_bytes + 600])
    samples = [replace(sample, shard="shards/cut.tar") for sample in made.samples[:10]]
    remote = fetcher(retries=1, gap="1MB")
    found = remote.fetch(make_planned_row(*samples))
    assert [found[0, number] for number in range(6)] == made.members[:6]
    for number in range(6, 10):
        assert isinstance(found[0, number], StorageError)
        assert "truncated" in str(found[0, number])
    remote.close()


def test_a_wrong_checksum(made: RandomStore, proxy: Proxy) -> None:
    wrong = replace(made.samples[1], crc32=made.samples[1].crc32 ^ 1)
    remote = fetcher(retries=1)
    found = remote.fetch(make_planned_row(made.samples[0], wrong))
    assert found[0, 0] == made.members[0]
    assert isinstance(found[0, 1], IntegrityError)
    remote.close()


def test_cached_objects_are_not_asked_for_again(made: RandomStore, proxy: Proxy, tmp_path: Path) -> None:
    for _ in range(2):
        remote = fetcher(retries=0, cache=str(tmp_path / "cache"))
        assert remote.fetch(make_planned_row(*made.samples)) == whole(made)
        remote.close()
    assert len(proxy.ranges) == 4


def test_local_and_remote_in_one_row(made: RandomStore, proxy: Proxy) -> None:
    stores = [ObjectStore("s3://shards/build", client_retries=0), LocalStore(made.folder)]
    both = Fetcher(stores, ReaderConfig())
    found = both.fetch(make_planned_row(made.samples[0], replace(made.samples[1], shard_set=1)))
    assert found == {(0, 0): made.members[0], (1, 1): made.members[1]}
    both.close()


def test_closing_ends_the_waits(made: RandomStore, proxy: Proxy) -> None:
    proxy.is_down = True
    remote = fetcher(retries=100)
    thread = threading.Thread(target=remote.fetch, args=(make_planned_row(*made.samples[:2]),))
    thread.start()
    time.sleep(1.0)
    remote.close()
    thread.join(15)
    assert not thread.is_alive()
