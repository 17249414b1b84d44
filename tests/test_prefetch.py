"""Rows made ahead in threads: in order, bounded, and never hanging."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from mmpack.prefetch import Prefetcher
from tests.fetch.random_stores import FakeRowFunction, assert_same_row, expected_rows, planned_rows

pytestmark = pytest.mark.timeout(60)


def ahead_threads() -> int:
    return sum(thread.name.startswith("mmpack-ahead") for thread in threading.enumerate())


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_order_and_content(threads: int, depth: int) -> None:
    made = FakeRowFunction(max_delay_s=0.005)
    with Prefetcher(made.make, planned_rows(40), threads=threads, depth=depth) as ahead:
        got = list(ahead)
    assert len(got) == 40
    for one, other in zip(got, expected_rows(40), strict=True):
        assert_same_row(one, other)
    assert ahead_threads() == 0


@pytest.mark.parametrize("depth", [1, 3, 8])
def test_never_further_ahead_than_depth(depth: int) -> None:
    """Neither items taken nor results made run ahead of the consumer, however slow it is."""
    consumed = 0
    furthest = 0
    begun = 0
    lock = threading.Lock()

    def make(number: int) -> int:
        nonlocal furthest, begun
        with lock:
            begun += 1
            furthest = max(furthest, begun - consumed)
        return number

    with Prefetcher(make, iter(range(60)), threads=3, depth=depth) as ahead:
        for number in range(60):
            time.sleep(0.002)
            with lock:
                # The one that is handed over now is no longer ahead.
                consumed += 1
            assert next(ahead) == number
    assert 1 <= furthest <= depth + 1
    assert furthest >= min(depth, 2)


def test_an_error_in_its_place() -> None:
    def make(number: int) -> int:
        time.sleep(random.random() * 0.003)
        if number % 5 == 3:
            raise ValueError(f"number {number}")
        return number

    with Prefetcher(make, iter(range(20)), threads=3, depth=6) as ahead:
        for number in range(20):
            if number % 5 == 3:
                with pytest.raises(ValueError, match=f"^number {number}$"):
                    next(ahead)
            else:
                assert next(ahead) == number
        with pytest.raises(StopIteration):
            next(ahead)


def test_an_error_of_the_items_ends_it_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield from range(7)
        raise KeyError("plan")

    ahead = Prefetcher(lambda number: number, items(), threads=3, depth=4)
    assert [next(ahead) for _ in range(7)] == list(range(7))
    with pytest.raises(KeyError, match="plan"):
        next(ahead)
    assert list(ahead) == []
    ahead.close()


def test_no_items() -> None:
    with Prefetcher(lambda number: number, iter(()), threads=2, depth=2) as ahead:
        assert list(ahead) == []


def test_close_in_the_midst() -> None:
    ahead = Prefetcher(FakeRowFunction(max_delay_s=0.02).make, planned_rows(1 << 40), threads=3, depth=5)
    assert next(ahead)[0].number == 0
    ahead.close()
    assert ahead_threads() == 0
    assert list(ahead) == []
    ahead.close()


def test_a_forgotten_one_closes_itself() -> None:
    ahead = Prefetcher(FakeRowFunction().make, planned_rows(1 << 40), threads=2, depth=3)
    next(ahead)
    del ahead
    gc.collect()
    until = time.monotonic() + 10
    while ahead_threads() and time.monotonic() < until:
        time.sleep(0.01)
    assert ahead_threads() == 0


def test_close_while_another_thread_waits_for_a_result() -> None:
    release = threading.Event()
    ahead = Prefetcher(lambda _: release.wait(20), iter(range(3)), threads=1, depth=1)
    got: list[object] = []
    consumer = threading.Thread(target=lambda: got.extend(ahead))
    consumer.start()
    time.sleep(0.05)
    threading.Timer(0.1, release.set).start()
    ahead.close()
    consumer.join(10)
    assert not consumer.is_alive()
    assert got == []


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "raise RuntimeError('consumer')"])
def test_the_interpreter_exits_though_nobody_closed(end: str) -> None:
    code = f"""
import time
from mmpack.prefetch import Prefetcher

def endless():
    while True:
        yield 0

def make(item):
    time.sleep(0.05)
    return item

ahead = Prefetcher(make, endless(), threads=3, depth=4)
next(ahead)
{end}
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == (0 if not end else 3 if "Exit" in end else 1), done.stderr
    assert ("consumer" in done.stderr) == ("consumer" in end)
    assert "Fatal" not in done.stderr
