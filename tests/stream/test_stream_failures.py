"""Row streams in a failing environment: unreliable stores, full disks, killed processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmpack.errors import QuarantineError
from mmpack.stream import RowStream
from tests.conftest import ROOT
from tests.fetch.flaky_store import Proxy, run_proxy, run_s3_server, upload
from tests.ingest.build_inputs import list_descendants, wait_until_gone
from tests.small_disk import mount_small_disk
from tests.stream.damaged_runs import IntactRun, assert_equal, assert_masked, read_rows, read_shard_index

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def s3(intact_run: IntactRun) -> Iterator[tuple[Any, tuple[str, int]]]:
    """A server that holds the intact shard set as s3://shards/intact."""
    with run_s3_server() as (client, address):
        upload(client, intact_run.folder / "out", "intact")
        yield client, address


@pytest.fixture
def proxy(s3: tuple[Any, tuple[str, int]]) -> Iterator[Proxy]:
    with run_proxy(s3[1]) as proxy:
        yield proxy


@pytest.fixture
def remote(intact_run: IntactRun, proxy: Proxy, tmp_path: Path) -> Path:
    """A folder with the plan over the shards of the server."""
    text = (intact_run.folder / "plan.toml").read_text()
    (tmp_path / "plan.toml").write_text(text.replace('shards = "out"', 'shards = "s3://shards/intact"'))
    return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_that_fails_one_read_in_ten_changes_no_row(
    intact_run: IntactRun, remote: Path, proxy: Proxy, workers: int
) -> None:
    stream = RowStream.open(remote / "plan.toml", reader={"workers": workers, "retries": 6})
    proxy.clear()
    proxy.fail_every = 10
    with stream:
        assert_equal(list(stream), intact_run.rows)
    assert proxy.num_failed >= 3
    assert stream.quarantine.count == 0
    assert not (remote / "quarantine.jsonl").exists()


def test_samples_of_a_missing_object_are_masked(
    intact_run: IntactRun, remote: Path, s3: tuple[Any, tuple[str, int]]
) -> None:
    client, _ = s3
    upload(client, intact_run.folder / "out", "less")
    rows = read_shard_index(intact_run.folder / "out", "drive-000-00010")
    client.delete_object(Bucket="shards", Key=f"less/{rows[0]['shard']}")
    plan = remote / "plan.toml"
    plan.write_text(plan.read_text().replace("shards/intact", "shards/less"))
    reasons = {row["key"]: r"s3://shards/less/shards/drive-000-00010\.tar: " for row in rows}
    assert_masked(remote, read_rows(remote), intact_run, reasons)


def test_an_unreachable_store_stops_the_run(remote: Path, proxy: Proxy) -> None:
    stream = RowStream.open(remote / "plan.toml", reader={"retries": 2, "max_corrupt": 5})
    start_s = time.monotonic()
    with stream:
        next(stream)
        proxy.is_down = True
        with pytest.raises(QuarantineError, match=r"6 samples cannot be read.*503"):
            list(stream)
    assert time.monotonic() - start_s < 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB, less than the size of the samples."""
    with mount_small_disk("400k", tmp_path) as disk:
        yield disk


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_on_a_full_disk_changes_no_row(
    intact_run: IntactRun, small_disk: Path, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    cache = str(small_disk / "cache")
    settings = {"cache": cache, "cache_size": "1GB", "workers": workers, "threads": 1}
    assert_equal(read_rows(intact_run.folder, **settings), intact_run.rows)
    free = os.statvfs(small_disk)
    assert free.f_bavail * free.f_bsize < 40_000
    assert list((small_disk / "cache").glob("*/aside-*")) == []
    if not workers:
        assert caplog.text.count("No space left on device") == 1
    # The samples that fitted into the cache serve the next run.
    assert_equal(read_rows(intact_run.folder, cache=cache, cache_size="1GB"), intact_run.rows)


def read_process_state(pid: int) -> str:
    """Returns the state letter of a process, as 'R' or 'Z'; empty if the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def named_memory(*pids: int) -> list[str]:
    """Lists the files of /dev/shm that the processes have mapped: memory that could outlive them."""
    return [
        line
        for pid in pids
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines()
        if "/dev/shm" in line
    ]


def test_a_killed_worker_is_replaced(intact_run: IntactRun) -> None:
    own = set(list_descendants(os.getpid()))
    with RowStream.open(intact_run.folder / "plan.toml", reader={"workers": 2, "prefetch": 2}) as stream:
        rows = [next(stream)]
        victim, other = sorted(set(list_descendants(os.getpid())) - own)
        os.kill(victim, signal.SIGKILL)
        rows += list(stream)
        assert read_process_state(victim) == ""
        assert read_process_state(other) not in ("", "Z")
        assert named_memory(other) == []
    assert_equal(rows, intact_run.rows)
    assert set(list_descendants(os.getpid())) <= own


_CONSUMER = """
import sys
from mmpack.stream import RowStream
stream = RowStream.open(sys.argv[1], reader={"workers": 2, "prefetch": 4})
rows = [next(stream) for _ in range(3)]
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_killed_consumer_leaves_no_process_and_no_memory(intact_run: IntactRun) -> None:
    before = set(os.listdir("/dev/shm"))
    consumer = subprocess.Popen(
        [sys.executable, "-c", _CONSUMER, str(intact_run.folder / "plan.toml")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert consumer.stdout is not None
    assert consumer.stdin is not None
    assert consumer.stdout.readline() == b"ready\n"
    workers = list_descendants(consumer.pid)
    assert len(workers) == 2
    # No memory has a name in /dev/shm, so none can be left there, even if other programs use the folder.
    assert named_memory(consumer.pid, *workers) == []
    consumer.send_signal(signal.SIGKILL)
    assert consumer.wait(timeout=10) == -signal.SIGKILL
    assert wait_until_gone(workers, within_s=5) == []
    assert [pid for pid in list_descendants(os.getpid()) if read_process_state(pid) == "Z"] == []
    owned = {str(pid) for pid in (consumer.pid, *workers)}
    new = set(os.listdir("/dev/shm")) - before
    assert [name for name in new if "mmpack" in name or any(pid in name for pid in owned)] == []
    consumer.stdin.close()
    consumer.stdout.close()
