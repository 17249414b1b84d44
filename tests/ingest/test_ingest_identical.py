"""The same input gives the same bytes, for any number of workers and ranks and after any kill."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import webdataset

from mmpack import ShardSet, verify
from tests.ingest.build_inputs import (
    build_command,
    compute_digests,
    kill_process,
    list_descendants,
    make_inputs,
    run,
    wait_until_gone,
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


#: Factor on the estimated duration of a build after a kill that came too late; its inverse after one too early.
_SHORTER = 0.85


@pytest.fixture(scope="module")
def reference(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "out"
    done = run(build_command(config, out, "--workers", "1"))
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def duration_s(config: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """Measures the duration of a complete build, from which the times of kills are derived."""
    start_s = time.monotonic()
    run(build_command(config, tmp_path_factory.mktemp("timed") / "out", "--workers", "2"))
    return time.monotonic() - start_s


def test_the_reference_build_is_complete(reference: Path) -> None:
    verification = verify(str(reference))
    assert verification.problems == []
    assert verification.notes == []
    manifest = ShardSet(str(reference)).manifest
    assert manifest.samples == verification.samples == manifest.slices + 40 + 12 + 5
    assert len(manifest.shards) > 8
    assert not (reference / "_build" / "scratch").exists()


def test_webdataset_reads_a_shard_set(reference: Path) -> None:
    shards = ShardSet(str(reference))
    dataset = webdataset.WebDataset(shards.urls, shardshuffle=False)
    keys = [sample["__key__"] for sample in dataset]
    assert [Path(key).name for key in keys] == shards.index["key"].to_pylist()


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_any_number_of_workers_gives_the_same_bytes(
    config: Path, reference: Path, tmp_path: Path, workers: int
) -> None:
    done = run(build_command(config, tmp_path / "out", "--workers", str(workers)))
    assert done.returncode == 0, done.stderr
    assert compute_digests(tmp_path / "out") == compute_digests(reference)


def test_ranks_in_any_order_give_the_same_bytes(config: Path, reference: Path, tmp_path: Path) -> None:
    for rank in (2, 0, 1):
        done = run(build_command(config, tmp_path / "out", "--rank", str(rank), "--ranks", "3", "-j", "0"))
        assert done.returncode == 0, done.stderr
    assert compute_digests(tmp_path / "out") == compute_digests(reference)


def test_simultaneous_ranks_give_the_same_bytes(config: Path, reference: Path, tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            build_command(config, tmp_path / "out", "--rank", str(rank), "--ranks", "3", "-j", "0")
        )
        for rank in range(3)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert compute_digests(tmp_path / "out") == compute_digests(reference)


def test_a_finished_build_is_not_rewritten(config: Path, reference: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in reference.glob("shards/*")}
    assert run(build_command(config, reference)).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in reference.glob("shards/*")} == before


def _kill_build(config: Path, reference: Path, out: Path, after_s: float) -> bool:
    """Kills a build after `after_s` seconds and finishes it; returns True if it was still running when killed."""
    process = subprocess.Popen(
        build_command(config, out, "--workers", "2"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    time.sleep(after_s)
    workers = list_descendants(process.pid)
    was_running = process.poll() is None
    kill_process(process)
    assert wait_until_gone(workers) == [], "workers outlived their build"
    # A file with its final name is complete at any time.
    for path in out.glob("shards/*.tar"):
        assert path.read_bytes() == (reference / "shards" / path.name).read_bytes()
    done = run(build_command(config, out, "--workers", "2"))
    assert done.returncode == 0, done.stderr
    assert compute_digests(out) == compute_digests(reference)
    return was_running


def _kill_a_worker(
    config: Path, reference: Path, out: Path, after_s: float, pick: random.Random
) -> tuple[bool, bool]:
    """Kills one worker of a running build, which must end with the same result.

    Returns:
        Whether a worker was killed, and whether the build was still running after `after_s` seconds.
    """
    process = subprocess.Popen(
        build_command(config, out, "--workers", "2"),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    time.sleep(after_s)
    # Python's resource tracker is a child process as well, but not a worker.
    workers = [
        pid
        for pid in list_descendants(process.pid)
        if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
    ]
    killed, was_running = False, process.poll() is None
    if workers:
        try:
            subprocess.run(
                ["kill", f"-{signal.SIGKILL.value}", str(pick.choice(workers))],
                check=True,
                stderr=subprocess.DEVNULL,
            )
            killed = True
        except subprocess.CalledProcessError:
            pass  # The worker has just ended.
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert compute_digests(out) == compute_digests(reference)
    return killed, was_running


@pytest.mark.parametrize("share", [0.35, 0.55, 0.75])
def test_a_killed_build_resumes_to_the_same_bytes(
    config: Path, reference: Path, tmp_path: Path, duration_s: float, share: float
) -> None:
    _kill_build(config, reference, tmp_path / "out", duration_s * share)


def test_a_killed_worker_is_replaced(
    config: Path, reference: Path, tmp_path: Path, duration_s: float
) -> None:
    _kill_a_worker(config, reference, tmp_path / "out", duration_s * 0.6, random.Random(0))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_build_killed_at_twenty_random_times(
    config: Path, reference: Path, tmp_path: Path, duration_s: float
) -> None:
    pick = random.Random(20260824)
    hits = 0
    for attempt in range(60):
        was_running = _kill_build(
            config, reference, tmp_path / f"out{attempt}", pick.uniform(0.2, 1.0) * duration_s
        )
        hits += was_running
        # A busy machine made the measured duration too long; a build that has ended is shorter than it.
        duration_s *= 1.0 if was_running else _SHORTER
        if hits == 20:
            return
    pytest.fail(f"only {hits} of 60 kills hit a running build")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_killed_at_twenty_random_times(
    config: Path, reference: Path, tmp_path: Path, duration_s: float
) -> None:
    pick = random.Random(20260825)
    hits = 0
    for attempt in range(60):
        out = tmp_path / f"out{attempt}"
        killed, was_running = _kill_a_worker(
            config, reference, out, pick.uniform(0.3, 0.9) * duration_s, pick
        )
        hits += killed
        if not killed:
            # The build had ended, or its workers had not started yet.
            duration_s *= 1 / _SHORTER if was_running else _SHORTER
        if hits == 20:
            return
    pytest.fail(f"only {hits} of 60 kills hit a worker")
