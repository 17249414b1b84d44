"""The same input gives the same bytes: on any number of workers and ranks, and after any kill."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import webdataset

from mmpack import ShardSet, verify
from tests.ingest.build_inputs import children, command, digests, kill_process, make_inputs, run, wait_gone


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def reference(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "out"
    done = run(command(config, out, "--workers", "1"))
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def duration_s(config: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """How long a whole build takes here, which moments to kill at are drawn from."""
    begun = time.monotonic()
    run(command(config, tmp_path_factory.mktemp("timed") / "out", "--workers", "2"))
    return time.monotonic() - begun


def test_the_reference_is_whole(reference: Path) -> None:
    verdict = verify(str(reference))
    assert verdict.problems == []
    assert verdict.notes == []
    manifest = ShardSet(str(reference)).manifest
    assert manifest.samples == verdict.samples == manifest.slices + 40 + 12 + 5
    assert len(manifest.shards) > 8
    assert not (reference / "_build" / "scratch").exists()


def test_webdataset_reads_it(reference: Path) -> None:
    shards = ShardSet(str(reference))
    dataset = webdataset.WebDataset(shards.urls, shardshuffle=False)
    keys = [sample["__key__"] for sample in dataset]
    assert [Path(key).name for key in keys] == shards.index["key"].to_pylist()


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_any_number_of_workers(config: Path, reference: Path, tmp_path: Path, workers: int) -> None:
    done = run(command(config, tmp_path / "out", "--workers", str(workers)))
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "out") == digests(reference)


def test_ranks_in_any_order(config: Path, reference: Path, tmp_path: Path) -> None:
    for rank in (2, 0, 1):
        done = run(command(config, tmp_path / "out", "--rank", str(rank), "--num-ranks", "3", "-j", "0"))
        assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "out") == digests(reference)


def test_ranks_at_once(config: Path, reference: Path, tmp_path: Path) -> None:
    started = [
        subprocess.Popen(
            command(config, tmp_path / "out", "--rank", str(rank), "--num-ranks", "3", "-j", "0")
        )
        for rank in range(3)
    ]
    assert [process.wait(timeout=120) for process in started] == [0, 0, 0]
    assert digests(tmp_path / "out") == digests(reference)


def test_a_finished_build_is_left_alone(config: Path, reference: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in reference.glob("shards/*")}
    assert run(command(config, reference)).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in reference.glob("shards/*")} == before


def _kill_whole_build(config: Path, reference: Path, out: Path, after_s: float) -> bool:
    """Kills a build after a while and finishes it; whether it was still at work."""
    process = subprocess.Popen(
        command(config, out, "--workers", "2"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    time.sleep(after_s)
    workers = children(process.pid)
    was_running = process.poll() is None
    kill_process(process)
    assert wait_gone(workers) == [], "workers outlived their build"
    # What has its final name is whole at every moment.
    for path in out.glob("shards/*.tar"):
        assert path.read_bytes() == (reference / "shards" / path.name).read_bytes()
    done = run(command(config, out, "--workers", "2"))
    assert done.returncode == 0, done.stderr
    assert digests(out) == digests(reference)
    return was_running


def _kill_a_worker(config: Path, reference: Path, out: Path, after_s: float, pick: random.Random) -> bool:
    """Kills one worker of a running build, which has to end as if nothing had happened; whether there was one to kill."""
    process = subprocess.Popen(
        command(config, out, "--workers", "2"), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    time.sleep(after_s)
    # Python's resource tracker is a child as well, and not ours to kill.
    workers = [
        pid for pid in children(process.pid) if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
    ]
    killed = False
    if workers:
        try:
            subprocess.run(
                ["kill", f"-{signal.SIGKILL.value}", str(pick.choice(workers))],
                check=True,
                stderr=subprocess.DEVNULL,
            )
            killed = True
        except subprocess.CalledProcessError:
            pass  # it had just ended
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert digests(out) == digests(reference)
    return killed


@pytest.mark.parametrize("moment", range(3))
def test_kill_the_build(
    config: Path, reference: Path, tmp_path: Path, duration_s: float, moment: int
) -> None:
    _kill_whole_build(config, reference, tmp_path / "out", duration_s * (0.35 + 0.2 * moment))


def test_kill_a_worker(config: Path, reference: Path, tmp_path: Path, duration_s: float) -> None:
    _kill_a_worker(config, reference, tmp_path / "out", duration_s * 0.6, random.Random(0))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_the_build_at_twenty_random_moments(
    config: Path, reference: Path, tmp_path: Path, duration_s: float
) -> None:
    pick = random.Random(20260824)
    hits = 0
    for number in range(60):
        hits += _kill_whole_build(
            config, reference, tmp_path / f"out{number}", pick.uniform(0.2, 1.0) * duration_s
        )
        if hits == 20:
            return
    pytest.fail(f"only {hits} of 60 kills met a build at work")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_a_worker_at_twenty_random_moments(
    config: Path, reference: Path, tmp_path: Path, duration_s: float
) -> None:
    pick = random.Random(20260825)
    hits = 0
    for number in range(60):
        out = tmp_path / f"out{number}"
        hits += _kill_a_worker(config, reference, out, pick.uniform(0.3, 0.9) * duration_s, pick)
        if hits == 20:
            return
    pytest.fail(f"only {hits} of 60 kills met a worker")
