"""Tests of the fetcher on an object store through an unreliable network."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmpack.errors import IntegrityError, StorageError
from mmpack.fetch import fetcher as fetcher_module
from mmpack.fetch.fetcher import Fetcher
from mmpack.plan.plan_config import ReaderConfig
from mmpack.storage.local import LocalStore
from mmpack.storage.objects import ObjectStore
from mmpack.storage.store import PermanentStorageError
from tests.fetch.flaky_store import Proxy, run_proxy, run_s3_server, upload
from tests.fetch.random_stores import RandomStore, make_planned_row, make_store

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RandomStore:
    return make_store(tmp_path_factory.mktemp("remote"), shards=4, per_shard=10)


@pytest.fixture(scope="module")
def s3(store: RandomStore) -> Iterator[tuple[Any, tuple[str, int]]]:
    """A client of an S3 server that holds the store as s3://shards/build, and the address of the server."""
    with run_s3_server() as (client, address):
        upload(client, store.folder, "build")
        yield client, address


@pytest.fixture
def proxy(s3: tuple[Any, tuple[str, int]]) -> Iterator[Proxy]:
    with run_proxy(s3[1]) as proxy:
        yield proxy


def make_fetcher(**settings: Any) -> Fetcher:
    """Makes a fetcher whose client does not retry by itself."""
    return Fetcher([ObjectStore("s3://shards/build", client_retries=0)], ReaderConfig(**settings))


def all_members(store: RandomStore) -> dict:
    return {(0, number): members for number, members in enumerate(store.members)}


def test_neighbours_share_a_request_and_requests_run_concurrently(store: RandomStore, proxy: Proxy) -> None:
    proxy.delay_s = 0.2
    row = make_planned_row(*store.samples[::-1], *store.samples)
    remote = make_fetcher(retries=0)
    assert remote.fetch(row) == all_members(store)
    assert len(proxy.ranges) == 4  # one per shard
    assert proxy.max_concurrent >= 2
    remote.close()


def test_large_reads_are_split(store: RandomStore, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher_module, "MAX_READ_BYTES", 16_384)
    remote = make_fetcher(retries=0)
    assert remote.fetch(make_planned_row(*store.samples)) == all_members(store)
    sizes = [
        1 + int(stop) - int(start) for start, _, stop in (value[6:].partition("-") for value in proxy.ranges)
    ]
    assert len(sizes) > 8
    assert max(sizes) <= 16_384
    remote.close()


def test_no_sample_is_lost_when_one_request_in_ten_fails(store: RandomStore, proxy: Proxy) -> None:
    proxy.fail_every = 10
    remote = make_fetcher(retries=4, gap="0B")
    for number in range(12):
        chosen = store.samples[number::2]
        assert remote.fetch(make_planned_row(*chosen)) == {
            (0, sample.number): store.members[sample.number] for sample in chosen
        }
    assert proxy.num_failed >= 10
    assert len(proxy.ranges) < 400
    remote.close()


def test_samples_are_lost_without_retries(store: RandomStore, proxy: Proxy) -> None:
    """Without retries the same failures lose samples, and the error names the shard."""
    proxy.fail_every = 2
    remote = make_fetcher(retries=0, gap="0B")
    fetched = remote.fetch(make_planned_row(*store.samples[::2]))
    errors = [result for result in fetched.values() if isinstance(result, StorageError)]
    assert errors
    assert "s3://shards/build/shards/0000" in str(errors[0])
    remote.close()


def test_an_unavailable_store_gives_errors_and_recovers(store: RandomStore, proxy: Proxy) -> None:
    proxy.is_down = True
    remote = make_fetcher(retries=1)
    began = time.monotonic()
    fetched = remote.fetch(make_planned_row(*store.samples))
    assert all(type(result) is StorageError for result in fetched.values())
    assert len(fetched) == len(store.samples)
    # The number of requests is limited: two tries of each read, and two tries to get the size of the shard.
    assert len(proxy.ranges) <= 4 * 4
    assert time.monotonic() - began < 20
    proxy.is_down = False
    assert remote.fetch(make_planned_row(*store.samples)) == all_members(store)
    remote.close()


def test_a_missing_object_is_not_retried(store: RandomStore, proxy: Proxy) -> None:
    missing = [replace(sample, shard="shards/missing.tar") for sample in store.samples[:3]]
    remote = make_fetcher(retries=90)
    fetched = remote.fetch(make_planned_row(*missing, *store.samples[10:12]))
    for number in range(3):
        error = fetched[0, number]
        assert isinstance(error, PermanentStorageError)
        assert "shards/missing.tar" in str(error)
    assert [fetched[0, number] for number in (10, 11)] == store.members[10:12]
    assert len(proxy.ranges) <= 3
    remote.close()


def test_a_truncated_object_affects_only_the_missing_samples(
    store: RandomStore, proxy: Proxy, s3: tuple[Any, tuple[str, int]]
) -> None:
    cut = store.samples[6]
    data = (store.folder / cut.shard).read_bytes()
    s3[0].put_object(Bucket="shards", Key="build/shards/cut.tar", Body=data[: cut.offset_bytes + 600])
    samples = [replace(sample, shard="shards/cut.tar") for sample in store.samples[:10]]
    remote = make_fetcher(retries=1, gap="1MB")
    fetched = remote.fetch(make_planned_row(*samples))
    assert [fetched[0, number] for number in range(6)] == store.members[:6]
    for number in range(6, 10):
        assert isinstance(fetched[0, number], StorageError)
        assert "truncated" in str(fetched[0, number])
    remote.close()


def test_a_wrong_checksum_affects_only_its_sample(store: RandomStore, proxy: Proxy) -> None:
    wrong = replace(store.samples[1], crc32=store.samples[1].crc32 ^ 1)
    remote = make_fetcher(retries=1)
    fetched = remote.fetch(make_planned_row(store.samples[0], wrong))
    assert fetched[0, 0] == store.members[0]
    assert isinstance(fetched[0, 1], IntegrityError)
    remote.close()


def test_cached_objects_are_not_requested_again(store: RandomStore, proxy: Proxy, tmp_path: Path) -> None:
    for _ in range(2):
        remote = make_fetcher(retries=0, cache=str(tmp_path / "cache"))
        assert remote.fetch(make_planned_row(*store.samples)) == all_members(store)
        remote.close()
    assert len(proxy.ranges) == 4


def test_a_row_may_have_local_and_remote_samples(store: RandomStore, proxy: Proxy) -> None:
    stores = [ObjectStore("s3://shards/build", client_retries=0), LocalStore(store.folder)]
    both = Fetcher(stores, ReaderConfig())
    fetched = both.fetch(make_planned_row(store.samples[0], replace(store.samples[1], shard_set=1)))
    assert fetched == {(0, 0): store.members[0], (1, 1): store.members[1]}
    both.close()


def test_closing_ends_waiting_for_a_retry(store: RandomStore, proxy: Proxy) -> None:
    proxy.is_down = True
    remote = make_fetcher(retries=100)
    thread = threading.Thread(target=remote.fetch, args=(make_planned_row(*store.samples[:2]),))
    thread.start()
    time.sleep(1.0)
    remote.close()
    thread.join(15)
    assert not thread.is_alive()
