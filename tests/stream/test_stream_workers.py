"""Rows made ahead in worker processes: the same rows, whatever becomes of the workers."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mmpack.errors import DataError, IntegrityError, MmpackError
from mmpack.stream.workers.pool import ProcessPrefetcher
from mmpack.stream.workers.transport import ALIGN_BYTES, pack_row, unpack_row
from tests.fetch.random_stores import (
    FakeRowFunction,
    FakeRowSetup,
    assert_same_row,
    count_open_descriptors,
    count_row_memfds,
    expected_rows,
    planned_rows,
)
from tests.ingest.build_inputs import wait_gone

pytestmark = pytest.mark.timeout(60)


def named_memory(pid: int) -> str:
    """What of a process's memory has a name that would outlive it: files in /dev/shm, semaphores among them."""
    return "".join(line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "/dev/shm" in line)


def joined(buffers: list[bytes | memoryview]) -> np.ndarray:
    return np.frombuffer(bytearray(b"".join(buffers)), np.uint8)


def test_a_row_survives_its_encoding() -> None:
    for one in expected_rows(3):
        data = joined(pack_row(*one))
        other = unpack_row(data)
        assert_same_row(one, other)
        base = data.ctypes.data
        for name, array in other[0].arrays().items():
            assert (array.ctypes.data - base) % ALIGN_BYTES == 0 or not array.size, name
            assert array.flags.writeable
            assert not array.size or np.shares_memory(array, data)


def test_views_that_are_not_contiguous_are_sent_right() -> None:
    row, faults = expected_rows(1)[0]
    wide = np.arange(200, dtype=np.int32)
    changed = type(row)(**{**row.arrays(), "number": 0, "keys": row.keys, "input_ids": wide[::2]})
    assert_same_row((changed, faults), unpack_row(joined(pack_row(changed, faults))))


def test_what_is_no_row_is_refused() -> None:
    data = joined(pack_row(*expected_rows(1)[0]))
    for end in (0, 5, 40, 300, len(data) // 2):
        with pytest.raises(IntegrityError, match="no row"):
            unpack_row(data[:end])


@pytest.mark.parametrize(("workers", "threads"), [(1, 1), (1, 3), (2, 2)])
def test_order_and_content(workers: int, threads: int) -> None:
    gc.collect()
    before = count_open_descriptors()
    setup = FakeRowSetup(FakeRowFunction(max_delay_s=0.01, patches=9))
    with ProcessPrefetcher(setup, planned_rows(30), workers=workers, threads=threads, depth=5) as ahead:
        for one, other in zip(ahead, expected_rows(30, patches=9), strict=True):
            assert_same_row(one, other)
            one[0].patches[:1] = 7  # a consumer may write into it
            assert (one[0].patches[0] == 7).all()
    del one
    gc.collect()
    assert count_open_descriptors() <= before
    assert count_row_memfds() == 0


def test_a_rows_memory_is_freed_with_its_last_array() -> None:
    with ProcessPrefetcher(
        FakeRowSetup(FakeRowFunction(patches=100)), planned_rows(6), workers=1, threads=1, depth=2
    ) as ahead:
        patches = [row.patches for row, _ in ahead]
        gc.collect()
        assert count_row_memfds() == 6  # mapped once each, and no descriptor is kept for them
        again = expected_rows(6, patches=100)
        for array, (row, _) in zip(patches, again, strict=True):
            np.testing.assert_array_equal(array, row.patches)
        del patches[1:], array
        gc.collect()
        assert count_row_memfds() == 1
        del patches
        gc.collect()
        assert count_row_memfds() == 0


def test_an_error_in_its_place() -> None:
    with ProcessPrefetcher(
        FakeRowSetup(FakeRowFunction(fails_at=5)), planned_rows(9), workers=2, threads=1, depth=4
    ) as ahead:
        assert [next(ahead)[0].number for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(DataError, match="a fault") as caught:
            next(ahead)
        assert (caught.value.where, caught.value.hint) == ("row 5", "None.")
        assert [row.number for row, _ in ahead] == [6, 7, 8]


class Broken:
    """A setup that fails, once unpickled."""

    def __call__(self) -> None:
        raise ZeroDivisionError("setup")


class Wrong:
    """A setup whose rows fail with errors that are none of ours."""

    def __call__(self):
        return {}.__getitem__


def test_other_errors_are_said_in_one_line() -> None:
    with ProcessPrefetcher(Broken(), planned_rows(2), workers=1, threads=2, depth=2) as ahead:  # pyright: ignore[reportArgumentType]
        for _ in range(2):
            with pytest.raises(MmpackError, match="unexpected ZeroDivisionError: setup") as caught:
                next(ahead)
            assert caught.value.where == "setting up a worker"
    with (
        ProcessPrefetcher(Wrong(), planned_rows(1), workers=1, threads=1, depth=2) as ahead,
        pytest.raises(MmpackError, match="unexpected KeyError"),
    ):
        next(ahead)


def test_workers_killed_at_random_change_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """kill -9 of a random worker, again and again: the same rows in the same order."""
    setup = FakeRowSetup(FakeRowFunction(max_delay_s=0.03, patches=50, pids_folder=str(tmp_path)))
    stop = threading.Event()
    killed: list[int] = []

    def kill() -> None:
        while len(killed) < 2 and not stop.wait(0.1 + random.random() * 0.4):
            alive = [int(path.name) for path in tmp_path.iterdir() if int(path.name) not in killed]
            if alive:
                killed.append(random.choice(alive))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(killed[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    with ProcessPrefetcher(setup, planned_rows(60), workers=2, threads=2, depth=8) as ahead:
        killer.start()
        for one, other in zip(ahead, expected_rows(60, patches=50), strict=True):
            assert_same_row(one, other)
            time.sleep(0.02)
    stop.set()
    killer.join()
    assert killed
    assert "a worker died (signal 9)" in caplog.text


def test_a_row_that_kills_its_worker_twice_is_made_at_last(tmp_path: Path) -> None:
    victims = tmp_path / "victims"
    victims.touch()
    setup = FakeRowSetup(FakeRowFunction(dies_at=2, max_deaths=2, deaths_path=str(victims)))
    with ProcessPrefetcher(setup, planned_rows(6), workers=1, threads=2, depth=3) as ahead:
        assert [row.number for row, _ in ahead] == list(range(6))
    assert victims.read_bytes() == b"xx"


def test_a_row_that_kills_every_worker_is_an_error_in_its_place(tmp_path: Path) -> None:
    victims = tmp_path / "victims"
    victims.touch()
    setup = FakeRowSetup(FakeRowFunction(dies_at=2, max_deaths=100, deaths_path=str(victims)))
    with ProcessPrefetcher(setup, planned_rows(5), workers=1, threads=1, depth=3) as ahead:
        assert [next(ahead)[0].number for _ in range(2)] == [0, 1]
        with pytest.raises(MmpackError, match="3 workers died of it") as caught:
            next(ahead)
        assert caught.value.where == "row 2"
        assert "signal 9" in str(caught.value)
        assert [row.number for row, _ in ahead] == [3, 4]


def test_close_in_the_midst_and_forgetting(tmp_path: Path) -> None:
    gc.collect()
    before = count_open_descriptors()
    for forget in (False, True):
        setup = FakeRowSetup(FakeRowFunction(max_delay_s=20, pids_folder=str(tmp_path)))
        ahead = ProcessPrefetcher(setup, planned_rows(1 << 40), workers=2, threads=1, depth=3)
        until = time.monotonic() + 20
        while len(os.listdir(tmp_path)) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        began = time.monotonic()
        if not forget:
            ahead.close()
            assert list(ahead) == []
        del ahead
        gc.collect()
        assert time.monotonic() - began < 5
        pids = [int(path.name) for path in tmp_path.iterdir()]
        assert len(pids) == 2
        assert wait_gone(pids, within_s=5) == []
        for path in list(tmp_path.iterdir()):
            path.unlink()
    assert count_open_descriptors() <= before


_PARENT = """
import sys
sys.path[:0] = {path!r}
from tests.fetch.random_stores import FakeRowFunction, FakeRowSetup, planned_rows
from mmpack.stream.workers.pool import ProcessPrefetcher
ahead = ProcessPrefetcher(
    FakeRowSetup(FakeRowFunction(patches=3000, max_delay_s=0.01, pids_folder=sys.argv[1])),
    planned_rows(1 << 40), workers=2, threads=2, depth=6,
)
kept = [next(ahead) for _ in range(10)]
print("ready", flush=True)
{end}
"""


@pytest.mark.parametrize("end", ["import time; time.sleep(60)", "1 / 0"])
def test_workers_end_with_their_parent(tmp_path: Path, end: str) -> None:
    """Whether it is killed, ends without closing, or fails: no worker and no memory stays."""
    code = _PARENT.format(path=[str(Path(__file__).parent), str(Path(__file__).parents[2])], end=end)
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == 2
    if "sleep" in end:
        assert wait_gone(pids, within_s=0.1) == pids
        assert [named_memory(pid) for pid in (parent.pid, *pids)] == ["", "", ""]
        parent.send_signal(signal.SIGKILL)
    _, said = parent.communicate(timeout=30)
    assert parent.returncode == (-signal.SIGKILL if "sleep" in end else 1), said
    assert "Fatal" not in said
    assert "Exception ignored" not in said
    assert wait_gone(pids, within_s=5) == []
