"""Rows prefetched in worker processes: the same rows, even if workers are killed."""

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
from tests.ingest.build_inputs import wait_until_gone

pytestmark = pytest.mark.timeout(60)


def named_memory(pid: int) -> str:
    """Returns the mapped files of /dev/shm, including semaphores: memory of a process that could outlive it."""
    return "".join(line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "/dev/shm" in line)


def join_buffers(buffers: list[bytes | memoryview]) -> np.ndarray:
    return np.frombuffer(bytearray(b"".join(buffers)), np.uint8)


def test_pack_row_and_unpack_row_are_inverse() -> None:
    for result in expected_rows(3):
        data = join_buffers(pack_row(*result))
        unpacked = unpack_row(data)
        assert_same_row(result, unpacked)
        base = data.ctypes.data
        for name, array in unpacked[0].arrays().items():
            assert (array.ctypes.data - base) % ALIGN_BYTES == 0 or not array.size, name
            assert array.flags.writeable
            assert not array.size or np.shares_memory(array, data)


def test_arrays_that_are_not_contiguous_are_packed_correctly() -> None:
    row, unreadable = expected_rows(1)[0]
    wide = np.arange(200, dtype=np.int32)
    changed = type(row)(**{**row.arrays(), "number": 0, "keys": row.keys, "input_ids": wide[::2]})
    assert_same_row((changed, unreadable), unpack_row(join_buffers(pack_row(changed, unreadable))))


def test_incomplete_data_of_a_row_is_an_error() -> None:
    data = join_buffers(pack_row(*expected_rows(1)[0]))
    for end in (0, 5, 40, 300, len(data) // 2):
        with pytest.raises(IntegrityError, match="not a row"):
            unpack_row(data[:end])


@pytest.mark.parametrize(("workers", "threads"), [(1, 1), (1, 3), (2, 2)])
def test_rows_of_worker_processes_keep_order_and_content(workers: int, threads: int) -> None:
    gc.collect()
    before = count_open_descriptors()
    setup = FakeRowSetup(FakeRowFunction(max_delay_s=0.01, patches=9))
    with ProcessPrefetcher(setup, planned_rows(30), workers=workers, threads=threads, depth=5) as prefetcher:
        for result, other in zip(prefetcher, expected_rows(30, patches=9), strict=True):
            assert_same_row(result, other)
            result[0].patches[:1] = 7  # the arrays are writable
            assert (result[0].patches[0] == 7).all()
    del result
    gc.collect()
    assert count_open_descriptors() <= before
    assert count_row_memfds() == 0


def test_a_rows_memory_is_freed_with_its_last_array() -> None:
    with ProcessPrefetcher(
        FakeRowSetup(FakeRowFunction(patches=100)), planned_rows(6), workers=1, threads=1, depth=2
    ) as prefetcher:
        patches = [row.patches for row, _ in prefetcher]
        gc.collect()
        assert count_row_memfds() == 6  # each row is mapped once and keeps no descriptor
        results = expected_rows(6, patches=100)
        for array, (row, _) in zip(patches, results, strict=True):
            np.testing.assert_array_equal(array, row.patches)
        del patches[1:], array
        gc.collect()
        assert count_row_memfds() == 1
        del patches
        gc.collect()
        assert count_row_memfds() == 0


def test_an_error_is_raised_in_place_of_its_row() -> None:
    with ProcessPrefetcher(
        FakeRowSetup(FakeRowFunction(fails_at=5)), planned_rows(9), workers=2, threads=1, depth=4
    ) as prefetcher:
        assert [next(prefetcher)[0].number for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(DataError, match="a fault") as caught:
            next(prefetcher)
        assert (caught.value.where, caught.value.hint) == ("row 5", "None.")
        assert [row.number for row, _ in prefetcher] == [6, 7, 8]


class FailingSetup:
    """A setup that raises an error when it is called in the worker."""

    def __call__(self) -> None:
        raise ZeroDivisionError("setup")


class FailingRowsSetup:
    """A setup whose row function raises errors other than MmpackError."""

    def __call__(self):
        return {}.__getitem__


def test_other_errors_become_mmpack_errors_of_one_line() -> None:
    with ProcessPrefetcher(FailingSetup(), planned_rows(2), workers=1, threads=2, depth=2) as prefetcher:  # pyright: ignore[reportArgumentType]
        for _ in range(2):
            with pytest.raises(MmpackError, match="unexpected ZeroDivisionError: setup") as caught:
                next(prefetcher)
            assert caught.value.where == "setting up a worker"
    with (
        ProcessPrefetcher(FailingRowsSetup(), planned_rows(1), workers=1, threads=1, depth=2) as prefetcher,
        pytest.raises(MmpackError, match="unexpected KeyError"),
    ):
        next(prefetcher)


def test_killing_workers_at_random_does_not_change_the_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Kills random workers with SIGKILL while the rows are read."""
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
    with ProcessPrefetcher(setup, planned_rows(60), workers=2, threads=2, depth=8) as prefetcher:
        killer.start()
        for result, other in zip(prefetcher, expected_rows(60, patches=50), strict=True):
            assert_same_row(result, other)
            time.sleep(0.02)
    stop.set()
    killer.join()
    assert killed
    assert "a worker died (signal 9)" in caplog.text


def test_a_row_that_kills_its_worker_twice_is_built_at_the_third_try(tmp_path: Path) -> None:
    victims = tmp_path / "victims"
    victims.touch()
    setup = FakeRowSetup(FakeRowFunction(dies_at=2, max_deaths=2, deaths_path=str(victims)))
    with ProcessPrefetcher(setup, planned_rows(6), workers=1, threads=2, depth=3) as prefetcher:
        assert [row.number for row, _ in prefetcher] == list(range(6))
    assert victims.read_bytes() == b"xx"


def test_a_row_that_kills_every_worker_is_an_error_in_place_of_the_row(tmp_path: Path) -> None:
    victims = tmp_path / "victims"
    victims.touch()
    setup = FakeRowSetup(FakeRowFunction(dies_at=2, max_deaths=100, deaths_path=str(victims)))
    with ProcessPrefetcher(setup, planned_rows(5), workers=1, threads=1, depth=3) as prefetcher:
        assert [next(prefetcher)[0].number for _ in range(2)] == [0, 1]
        with pytest.raises(MmpackError, match="3 workers died while they built this row") as caught:
            next(prefetcher)
        assert caught.value.where == "row 2"
        assert "signal 9" in str(caught.value)
        assert [row.number for row, _ in prefetcher] == [3, 4]


def test_closing_or_abandoning_a_prefetcher_ends_its_workers(tmp_path: Path) -> None:
    gc.collect()
    before = count_open_descriptors()
    for abandon in (False, True):
        setup = FakeRowSetup(FakeRowFunction(max_delay_s=20, pids_folder=str(tmp_path)))
        prefetcher = ProcessPrefetcher(setup, planned_rows(1 << 40), workers=2, threads=1, depth=3)
        deadline_s = time.monotonic() + 20
        while len(os.listdir(tmp_path)) < 2 and time.monotonic() < deadline_s:
            time.sleep(0.01)
        start_s = time.monotonic()
        if not abandon:
            prefetcher.close()
            assert list(prefetcher) == []
        del prefetcher
        gc.collect()
        assert time.monotonic() - start_s < 5
        pids = [int(path.name) for path in tmp_path.iterdir()]
        assert len(pids) == 2
        assert wait_until_gone(pids, within_s=5) == []
        for path in list(tmp_path.iterdir()):
            path.unlink()
    assert count_open_descriptors() <= before


_PARENT = """
import sys
sys.path[:0] = {path!r}
from tests.fetch.random_stores import FakeRowFunction, FakeRowSetup, planned_rows
from mmpack.stream.workers.pool import ProcessPrefetcher
prefetcher = ProcessPrefetcher(
    FakeRowSetup(FakeRowFunction(patches=3000, max_delay_s=0.01, pids_folder=sys.argv[1])),
    planned_rows(1 << 40), workers=2, threads=2, depth=6,
)
results = [next(prefetcher) for _ in range(10)]
print("ready", flush=True)
{end}
"""


@pytest.mark.parametrize("end", ["import time; time.sleep(60)", "1 / 0"])
def test_workers_end_with_their_parent(tmp_path: Path, end: str) -> None:
    """Kills the parent, or lets it fail without closing, and checks that no worker and no memory is left."""
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
        assert wait_until_gone(pids, within_s=0.1) == pids
        assert [named_memory(pid) for pid in (parent.pid, *pids)] == ["", "", ""]
        parent.send_signal(signal.SIGKILL)
    _, errors = parent.communicate(timeout=30)
    assert parent.returncode == (-signal.SIGKILL if "sleep" in end else 1), errors
    assert "Fatal" not in errors
    assert "Exception ignored" not in errors
    assert wait_until_gone(pids, within_s=5) == []
