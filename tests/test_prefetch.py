"""The prefetcher: order of results, bounded depth, errors, and closing without a hang."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from mmpack.prefetch import Closeable, Prefetcher
from tests.fetch.random_stores import FakeRowFunction, assert_same_row, expected_rows, planned_rows

pytestmark = pytest.mark.timeout(60)


def count_prefetch_threads() -> int:
    return sum(thread.name.startswith("mmpack-prefetch") for thread in threading.enumerate())


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(threads: int, depth: int) -> None:
    row_function = FakeRowFunction(max_delay_s=0.005)
    with Prefetcher(row_function.make, planned_rows(40), threads=threads, depth=depth) as prefetcher:
        rows = list(prefetcher)
    assert len(rows) == 40
    for one, other in zip(rows, expected_rows(40), strict=True):
        assert_same_row(one, other)
    assert count_prefetch_threads() == 0


@pytest.mark.parametrize("depth", [1, 3, 8])
def test_at_most_depth_results_are_ahead_of_the_consumer(depth: int) -> None:
    """The limit holds for taken items and for finished results, however slow the consumer is."""
    consumed = 0
    max_ahead = 0
    started = 0
    lock = threading.Lock()

    def compute(item: int) -> int:
        nonlocal max_ahead, started
        with lock:
            started += 1
            max_ahead = max(max_ahead, started - consumed)
        return item

    with Prefetcher(compute, iter(range(60)), threads=3, depth=depth) as prefetcher:
        for item in range(60):
            time.sleep(0.002)
            with lock:
                # The result that is taken now no longer counts.
                consumed += 1
            assert next(prefetcher) == item
    assert 1 <= max_ahead <= depth + 1
    assert max_ahead >= min(depth, 2)


def test_an_error_is_raised_at_the_position_of_its_result() -> None:
    def compute(item: int) -> int:
        time.sleep(random.random() * 0.003)
        if item % 5 == 3:
            raise ValueError(f"item {item}")
        return item

    with Prefetcher(compute, iter(range(20)), threads=3, depth=6) as prefetcher:
        for item in range(20):
            if item % 5 == 3:
                with pytest.raises(ValueError, match=f"^item {item}$"):
                    next(prefetcher)
            else:
                assert next(prefetcher) == item
        with pytest.raises(StopIteration):
            next(prefetcher)


def test_an_error_of_the_items_ends_the_iteration_at_its_position() -> None:
    def items() -> Iterator[int]:
        yield from range(7)
        raise KeyError("plan")

    prefetcher = Prefetcher(lambda item: item, items(), threads=3, depth=4)
    assert [next(prefetcher) for _ in range(7)] == list(range(7))
    with pytest.raises(KeyError, match="plan"):
        next(prefetcher)
    assert list(prefetcher) == []
    prefetcher.close()


def test_no_items_give_no_results() -> None:
    with Prefetcher(lambda item: item, iter(()), threads=2, depth=2) as prefetcher:
        assert list(prefetcher) == []


def test_close_before_the_end_stops_the_threads() -> None:
    prefetcher = Prefetcher(FakeRowFunction(max_delay_s=0.02).make, planned_rows(1 << 40), threads=3, depth=5)
    assert next(prefetcher)[0].number == 0
    prefetcher.close()
    assert count_prefetch_threads() == 0
    assert list(prefetcher) == []
    prefetcher.close()


def test_an_unreferenced_prefetcher_closes_itself() -> None:
    prefetcher = Prefetcher(FakeRowFunction().make, planned_rows(1 << 40), threads=2, depth=3)
    next(prefetcher)
    del prefetcher
    gc.collect()
    deadline = time.monotonic() + 10
    while count_prefetch_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert count_prefetch_threads() == 0


class _CloseableFunction(Closeable):
    """A function that records how many prefetch threads are left when it is closed."""

    def __init__(self, closed: list[int]) -> None:
        self._closed = closed

    def __call__(self, item: int) -> int:
        return item

    def close(self) -> None:
        self._closed.append(count_prefetch_threads())


@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize("is_abandoned", [False, True])
def test_a_closeable_function_is_closed_once_after_the_threads(threads: int, is_abandoned: bool) -> None:
    closed: list[int] = []
    prefetcher = Prefetcher(_CloseableFunction(closed), iter(range(1 << 40)), threads=threads, depth=3)
    assert next(prefetcher) == 0
    assert closed == []
    if not is_abandoned:
        prefetcher.close()
        prefetcher.close()
    del prefetcher
    gc.collect()
    assert closed == [0]


def test_close_while_another_thread_waits_for_a_result() -> None:
    release = threading.Event()
    prefetcher = Prefetcher(lambda _: release.wait(20), iter(range(3)), threads=1, depth=1)
    results: list[object] = []
    consumer = threading.Thread(target=lambda: results.extend(prefetcher))
    consumer.start()
    time.sleep(0.05)
    threading.Timer(0.1, release.set).start()
    prefetcher.close()
    consumer.join(10)
    assert not consumer.is_alive()
    assert results == []


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "raise RuntimeError('consumer')"])
def test_the_interpreter_exits_with_an_open_prefetcher(end: str) -> None:
    code = f"""
import time
from mmpack.prefetch import Prefetcher

def endless():
    while True:
        yield 0

def compute(item):
    time.sleep(0.05)
    return item

prefetcher = Prefetcher(compute, endless(), threads=3, depth=4)
next(prefetcher)
{end}
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == (0 if not end else 3 if "Exit" in end else 1), done.stderr
    assert ("consumer" in done.stderr) == ("consumer" in end)
    assert "Fatal" not in done.stderr
