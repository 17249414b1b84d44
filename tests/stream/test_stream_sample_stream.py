"""Samples one by one: each once an epoch, in the same order on any ranks and threads, from any place on."""

from __future__ import annotations

import gc
import json
import shutil
import threading
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpack import SampleStream, ShardSet
from mmpack.errors import ConfigError, DataError, IntegrityError, MmpackError, QuarantineError
from mmpack.plan import epoch_order
from mmpack.plan.epoch_order_numpy import epoch_order_numpy
from mmpack.plan.plan_config import ReaderConfig
from mmpack.quarantine import read_quarantine
from mmpack.stream import sample_stream as samples_module


@pytest.fixture(scope="module")
def build(mixed_shards: ShardSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, for tests that damage it and mend it again."""
    target = tmp_path_factory.mktemp("samples") / "out"
    shutil.copytree(mixed_shards.store.url, target)
    return target


def keys(build: Path) -> list[str]:
    return ShardSet(str(build)).index["key"].to_pylist()


def key_of(key: str, members: dict[str, bytes]) -> str:
    return key


def opened(build: Path, **more: Any) -> SampleStream[str]:
    return SampleStream(str(build), key_of, **{"seed": 5, "locality": 4} | more)


def threads(count: int, **more: Any) -> ReaderConfig:
    return ReaderConfig(threads=count, prefetch=4, **more)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), n=st.integers(1, 300), key=st.integers(0, 2**64 - 1), step=st.integers(1, 9))
def test_the_order_is_the_planners(data: st.DataObject, n: int, key: int, step: int) -> None:
    block = data.draw(st.integers(1, n))
    first, count = data.draw(st.integers(0, 10**6)), data.draw(st.integers(0, 200))
    found = epoch_order_numpy(first, count, n, block, key, step)
    assert np.array_equal(found, epoch_order.epoch_order(first, count, n, block, np.uint64(key), step))


def test_every_epoch_has_each_sample_once_with_its_members(build: Path) -> None:
    shards = ShardSet(str(build))
    wanted = {row["key"]: shards.read(row) for row in shards.index.to_pylist()}
    with SampleStream(str(build), lambda key, members: (key, members), epochs=2) as stream:
        found = list(stream)
    n = stream.samples
    assert len(wanted) == n
    assert len(found) == 2 * n
    for epoch in (found[:n], found[n:]):
        assert dict(epoch) == wanted
    orders = [[key for key, _ in epoch] for epoch in (found[:n], found[n:])]
    assert orders[0] != orders[1]
    assert all(keys != list(wanted) for keys in orders)


def test_an_endless_stream_counts_its_epochs_on(build: Path) -> None:
    with opened(build, epochs=3) as ended, opened(build) as endless:
        finite = list(ended)
        assert list(islice(endless, len(finite))) == finite
        assert next(endless) in finite


def test_threads_change_nothing(build: Path) -> None:
    found = []
    for count in (0, 1, 2, 5):
        with opened(build, epochs=3, reader=threads(count)) as stream:
            found.append(list(stream))
    assert found.count(found[0]) == len(found)


@settings(max_examples=25, deadline=None)
@given(
    ranks=st.integers(1, 5),
    others=st.integers(1, 5),
    steps=st.integers(0, 12),
    counts=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_ranks_share_the_order_and_resume_as_others(
    mixed_shards: ShardSet, ranks: int, others: int, steps: int, counts: tuple[int, int]
) -> None:
    """Whoever stops after any number of steps goes on, on any number of ranks and threads, with what is left."""
    build = Path(mixed_shards.store.url)
    with opened(build, epochs=2) as alone:
        whole = list(alone)
    steps = min(steps, len(whole) // ranks)
    states, taken = [], []
    for rank in range(ranks):
        with opened(build, epochs=2, rank=rank, ranks=ranks, reader=threads(counts[0])) as stream:
            taken.append(list(islice(stream, steps)))
            states.append(json.loads(json.dumps(stream.state_dict())))
    assert [key for step in zip(*taken, strict=True) for key in step] == whole[: steps * ranks]
    assert states.count(states[0]) == ranks
    assert len(json.dumps(states[0])) < 200
    left: dict[int, str] = {}
    for rank in range(others):
        with opened(build, epochs=2, rank=rank, ranks=others, reader=threads(counts[1])) as stream:
            stream.load_state_dict(states[0])
            first = steps * ranks
            mine = [place for place in range(first, len(whole)) if place % others == rank]
            left |= dict(zip(mine, stream, strict=True))
    assert [left[place] for place in sorted(left)] == whole[steps * ranks :]


def test_a_stream_goes_back_to_a_state(build: Path) -> None:
    with opened(build) as stream:
        list(islice(stream, 7))
        state = stream.state_dict()
        after = list(islice(stream, 30))
        stream.load_state_dict(state)
        assert list(islice(stream, 20)) == after[:20]
        stream.close()
        assert list(islice(stream, 10)) == after[20:]


def test_at_the_end_all_ranks_are_at_the_same_place(build: Path) -> None:
    ranks = len(keys(build)) - 1  # the first has two samples, the others one
    states = []
    for rank in (0, 1, ranks - 1):
        with opened(build, epochs=1, rank=rank, ranks=ranks) as stream:
            assert len(list(stream)) == (2 if rank == 0 else 1)
            assert next(stream, None) is None
            states.append(stream.state_dict())
    assert states[0]["place"] == len(keys(build))
    assert states.count(states[0]) == 3


@pytest.mark.parametrize("change", [{"seed": 6}, {"locality": 5}])
def test_states_of_other_streams_are_refused(build: Path, change: dict[str, int]) -> None:
    state = opened(build).state_dict()
    [name] = change
    with pytest.raises(ConfigError, match=f"{name} was"):
        opened(build, **change).load_state_dict(state)


@pytest.mark.parametrize(
    "state", [{}, {"version": 1, "place": -1, "parts": {}}, {"version": 9, "place": 1, "parts": {}}, {"a": 1}]
)
def test_what_is_no_state_is_refused(build: Path, state: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        opened(build).load_state_dict(state)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rank": 2, "ranks": 2},
        {"rank": -1},
        {"locality": 0},
        {"epochs": -1},
        {"reader": ReaderConfig(workers=1)},
    ],
)
def test_wrong_settings(build: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        opened(build, **wrong)


def test_no_epoch_and_no_build(build: Path, tmp_path: Path) -> None:
    assert list(opened(build, epochs=0)) == []
    with pytest.raises(IntegrityError, match="no manifest"):
        opened(tmp_path)


def damage(build: Path, number: int) -> Callable[[], None]:
    """Changes a byte of a sample; calling what is returned mends it."""
    row = ShardSet(str(build)).index.slice(number, 1).to_pylist()[0]
    path = build / row["shard"]
    sound = path.read_bytes()
    place = row["offset_bytes"] + row["size_bytes"] // 2
    path.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
    return lambda: path.write_bytes(sound) and None


@pytest.mark.parametrize("count", [0, 2])
def test_an_unreadable_sample_is_raised_at_its_place_and_met_again(build: Path, count: int) -> None:
    whole = list(opened(build, epochs=1))
    mend = damage(build, keys(build).index(whole[9]))
    try:
        with opened(build, epochs=1, reader=threads(count)) as stream:
            assert list(islice(stream, 9)) == whole[:9]
            for _ in range(2):
                with pytest.raises(IntegrityError, match="crc32"):
                    next(stream)
                assert stream.state_dict()["place"] == 9
            mend()
            assert list(stream) == whole[9:]
    finally:
        mend()


def test_something_may_stand_for_an_unreadable_sample(build: Path, tmp_path: Path) -> None:
    whole = list(opened(build, epochs=1))
    mend = damage(build, keys(build).index(whole[9]))
    reader = threads(2, max_corrupt=1, quarantine=str(tmp_path / "quarantine.jsonl"))
    met: list[MmpackError] = []

    def instead(key: str, error: MmpackError) -> str:
        met.append(error)
        return f"not {key}"

    try:
        with opened(build, epochs=2, instead=instead, reader=reader) as stream:
            found = list(islice(stream, len(whole)))
            assert found == [*whole[:9], f"not {whole[9]}", *whole[10:]]
            assert isinstance(met[0], IntegrityError)
            [fault] = read_quarantine(tmp_path / "quarantine.jsonl")
            assert (fault.row, fault.key, fault.rank) == (9, whole[9], 0)
            assert "crc32" in fault.reason
            with pytest.raises(QuarantineError):
                list(stream)
    finally:
        mend()


def test_errors_of_the_decoder(build: Path, tmp_path: Path) -> None:
    """A DataError says that the sample is damaged; anything else is the decoder's own fault, and always raised."""
    whole = list(opened(build, epochs=1))

    def decoder(kind: type[Exception]) -> Callable[[str, dict[str, bytes]], str]:
        def decode(key: str, members: dict[str, bytes]) -> str:
            if key == whole[3]:
                raise kind("no")
            return key

        return decode

    reader = threads(2, quarantine=str(tmp_path / "quarantine.jsonl"))
    arguments: dict[str, Any] = {"seed": 5, "locality": 4, "epochs": 1, "reader": reader}
    for kind in (DataError, ValueError):
        with SampleStream(str(build), decoder(kind), **arguments) as stream:
            assert list(islice(stream, 3)) == whole[:3]
            with pytest.raises(kind, match="no"):
                next(stream)
    arguments["instead"] = lambda key, error: "?"
    with SampleStream(str(build), decoder(DataError), **arguments) as stream:
        assert list(stream) == [*whole[:3], "?", *whole[4:]]
    with (
        SampleStream(str(build), decoder(ValueError), **arguments) as stream,
        pytest.raises(ValueError, match="no"),
    ):
        list(stream)


def ahead() -> int:
    return sum(thread.name.startswith("mmpack-prefetch") for thread in threading.enumerate())


def test_threads_end_when_a_stream_is_closed_or_forgotten(build: Path) -> None:
    before = ahead()
    stream = opened(build, reader=threads(3))
    next(stream)
    assert ahead() == before + 3
    stream.close()
    assert ahead() == before
    next(stream)
    del stream
    gc.collect()
    assert ahead() == before
    with opened(build, reader=threads(0)) as stream:
        next(stream)
        assert ahead() == before


def test_no_more_is_made_ahead_than_asked_for(build: Path) -> None:
    made = []

    def decode(key: str, members: dict[str, bytes]) -> str:
        time.sleep(0.002)  # too slow to be made together
        made.append(key)
        return key

    with SampleStream(str(build), decode, reader=threads(2)) as stream:
        next(stream)
        time.sleep(0.1)
        assert 1 < len(made) <= 5


def test_samples_made_together_are_the_same(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to 32 at a time, across the ends of blocks and epochs."""
    one_by_one = list(opened(build, epochs=5, reader=threads(0)))
    monkeypatch.setattr(samples_module, "_BATCH_SECONDS", 1e9)
    for count in (0, 2):
        with opened(build, epochs=5, reader=threads(count)) as stream:
            assert list(islice(stream, len(one_by_one))) == one_by_one
    with opened(build, epochs=5, rank=1, ranks=3, reader=threads(2)) as stream:
        assert list(stream) == one_by_one[1::3]


def test_only_fast_samples_are_made_together() -> None:
    pace = samples_module._BatchSizer(1, 4)
    for size in (1, 2, 4, 4):
        assert (pace.size, pace.by_turns) == (size, size == 4)
        pace.update(size, 0.0001)
    slow = samples_module._BatchSizer(1, 4)
    slow.update(1, 0.01)
    assert (slow.size, slow.by_turns) == (1, False)
