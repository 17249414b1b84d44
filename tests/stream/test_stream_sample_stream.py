"""SampleStream: each sample once per epoch, in the same order on any number of ranks and threads, resumable anywhere."""

from __future__ import annotations

import gc
import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpack import SampleStream, ShardSet
from mmpack.errors import ConfigError, DataError, IntegrityError, MmpackError, QuarantineError, StorageError
from mmpack.plan.plan_config import ReaderConfig
from mmpack.quarantine import read_quarantine
from mmpack.stream import SampleStreamConfig, sample_stream
from tests.examples import examples


@pytest.fixture(scope="module")
def build(mixed_shards: ShardSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a shard set, for tests that damage it and restore it."""
    target = tmp_path_factory.mktemp("samples") / "out"
    shutil.copytree(mixed_shards.store.url, target)
    return target


def keys(build: Path) -> list[str]:
    return ShardSet(str(build)).index["key"].to_pylist()


def decode_key(key: str, members: dict[str, bytes]) -> str:
    return key


def open_stream(build: Path, **settings: Any) -> SampleStream[str]:
    """Opens a stream of the keys of a shard set. `settings` are fields of SampleStreamConfig and arguments of the stream."""
    return SampleStream(str(build), decode_key, **stream_arguments(settings))


def stream_arguments(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the keyword arguments of a stream: `config` for fields of SampleStreamConfig, other settings as they are."""
    names = {field.name for field in fields(SampleStreamConfig)}
    config: dict[str, Any] = {"seed": 5, "locality": 4} | {
        name: settings[name] for name in names & settings.keys()
    }
    others = {name: settings[name] for name in settings.keys() - names}
    return {"config": SampleStreamConfig(**config), **others}


def reader_config(threads: int, **settings: Any) -> ReaderConfig:
    return ReaderConfig(threads=threads, prefetch=4, **settings)


def test_every_epoch_has_each_sample_once_with_its_members(build: Path) -> None:
    shards = ShardSet(str(build))
    expected = {row["key"]: shards.read(row) for row in shards.index.to_pylist()}
    with SampleStream(
        str(build), lambda key, members: (key, members), config=SampleStreamConfig(epochs=2)
    ) as stream:
        samples = list(stream)
    n = stream.samples
    assert len(expected) == n
    assert len(samples) == 2 * n
    for epoch in (samples[:n], samples[n:]):
        assert dict(epoch) == expected
    orders = [[key for key, _ in epoch] for epoch in (samples[:n], samples[n:])]
    assert orders[0] != orders[1]
    assert all(keys != list(expected) for keys in orders)


def test_an_endless_stream_starts_with_the_epochs_of_a_finite_one(build: Path) -> None:
    with open_stream(build, epochs=3) as finite, open_stream(build) as endless:
        keys = list(finite)
        assert list(islice(endless, len(keys))) == keys
        assert next(endless) in keys


def test_the_number_of_threads_does_not_change_the_samples(build: Path) -> None:
    results = []
    for threads in (0, 1, 2, 5):
        with open_stream(build, epochs=3, reader=reader_config(threads)) as stream:
            results.append(list(stream))
    assert results.count(results[0]) == len(results)


@settings(max_examples=examples(25), deadline=None)
@given(
    ranks=st.integers(1, 5),
    resumed_ranks=st.integers(1, 5),
    steps=st.integers(0, 12),
    threads=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_ranks_share_the_order_and_resume_on_other_numbers_of_ranks(
    mixed_shards: ShardSet, ranks: int, resumed_ranks: int, steps: int, threads: tuple[int, int]
) -> None:
    """Stops after any number of steps and resumes with the remaining samples, on any numbers of ranks and threads."""
    build = Path(mixed_shards.store.url)
    with open_stream(build, epochs=2) as single:
        all_keys = list(single)
    steps = min(steps, len(all_keys) // ranks)
    states, read = [], []
    for rank in range(ranks):
        with open_stream(build, epochs=2, rank=rank, ranks=ranks, reader=reader_config(threads[0])) as stream:
            read.append(list(islice(stream, steps)))
            states.append(json.loads(json.dumps(stream.state_dict())))
    assert [key for step in zip(*read, strict=True) for key in step] == all_keys[: steps * ranks]
    assert states.count(states[0]) == ranks
    assert len(json.dumps(states[0])) < 200
    remaining: dict[int, str] = {}
    for rank in range(resumed_ranks):
        reader = reader_config(threads[1])
        with open_stream(build, epochs=2, rank=rank, ranks=resumed_ranks, reader=reader) as stream:
            stream.load_state_dict(states[0])
            first = steps * ranks
            positions = [
                position for position in range(first, len(all_keys)) if position % resumed_ranks == rank
            ]
            remaining |= dict(zip(positions, stream, strict=True))
    assert [remaining[position] for position in sorted(remaining)] == all_keys[steps * ranks :]


def test_a_stream_returns_to_an_earlier_state(build: Path) -> None:
    with open_stream(build) as stream:
        list(islice(stream, 7))
        state = stream.state_dict()
        after = list(islice(stream, 30))
        stream.load_state_dict(state)
        assert list(islice(stream, 20)) == after[:20]
        stream.close()
        assert list(islice(stream, 10)) == after[20:]


def test_at_the_end_all_ranks_have_the_same_state(build: Path) -> None:
    ranks = len(keys(build)) - 1  # rank 0 has two samples, each other rank one
    states = []
    for rank in (0, 1, ranks - 1):
        with open_stream(build, epochs=1, rank=rank, ranks=ranks) as stream:
            assert len(list(stream)) == (2 if rank == 0 else 1)
            assert next(stream, None) is None
            states.append(stream.state_dict())
    assert states[0]["position"] == len(keys(build))
    assert states.count(states[0]) == 3


@pytest.mark.parametrize("change", [{"seed": 6}, {"locality": 5}])
def test_the_state_of_another_stream_is_an_error(build: Path, change: dict[str, int]) -> None:
    state = open_stream(build).state_dict()
    [name] = change
    with pytest.raises(ConfigError, match=f"{name} was"):
        open_stream(build, **change).load_state_dict(state)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "not a state of a sample stream"),
        ({"a": 1}, "not a state of a sample stream"),
        ({"version": 2, "position": -1, "fingerprint_parts": {}}, "not a state of a sample stream"),
        ({"version": 2, "place": 1, "parts": {}}, "not a state of a sample stream"),
        # The keys of version 1.
        (
            {"version": 1, "place": 1, "parts": {}},
            "has version 1, but this version of mmpack reads version 2",
        ),
        ({"version": 9, "position": 1, "fingerprint_parts": {}}, "has version 9, .* reads version 2"),
    ],
)
def test_an_invalid_state_is_an_error(build: Path, state: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_stream(build).load_state_dict(state)


@pytest.mark.parametrize(
    "settings",
    [
        {"rank": 2, "ranks": 2},
        {"rank": -1},
        {"locality": 0},
        {"epochs": -1},
        {"reader": ReaderConfig(workers=1)},
    ],
)
def test_invalid_settings_are_an_error(build: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        open_stream(build, **settings)


def test_zero_epochs_are_empty_and_a_missing_shard_set_is_an_error(build: Path, tmp_path: Path) -> None:
    assert list(open_stream(build, epochs=0)) == []
    with pytest.raises(IntegrityError, match=r"the build is not finished: there is no manifest\.json"):
        open_stream(tmp_path)
    with pytest.raises(StorageError, match="there is no such folder"):
        open_stream(tmp_path / "nowhere")


def damage(build: Path, index: int) -> Callable[[], None]:
    """Flips a bit of a sample, and returns a function that restores it."""
    row = ShardSet(str(build)).index.slice(index, 1).to_pylist()[0]
    path = build / row["shard"]
    data = path.read_bytes()
    offset = row["offset_bytes"] + row["size_bytes"] // 2
    path.write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
    return lambda: path.write_bytes(data) and None


@pytest.mark.parametrize("threads", [0, 2])
def test_an_unreadable_sample_raises_at_its_position_every_time(build: Path, threads: int) -> None:
    all_keys = list(open_stream(build, epochs=1))
    restore = damage(build, keys(build).index(all_keys[9]))
    try:
        with open_stream(build, epochs=1, reader=reader_config(threads)) as stream:
            assert list(islice(stream, 9)) == all_keys[:9]
            for _ in range(2):
                with pytest.raises(IntegrityError, match="crc32"):
                    next(stream)
                assert stream.state_dict()["position"] == 9
            restore()
            assert list(stream) == all_keys[9:]
    finally:
        restore()


def test_a_fallback_replaces_an_unreadable_sample(build: Path, tmp_path: Path) -> None:
    all_keys = list(open_stream(build, epochs=1))
    restore = damage(build, keys(build).index(all_keys[9]))
    reader = reader_config(2, max_corrupt=1, quarantine=str(tmp_path / "quarantine.jsonl"))
    errors: list[MmpackError] = []

    def fallback(key: str, error: MmpackError) -> str:
        errors.append(error)
        return f"not {key}"

    try:
        with open_stream(build, epochs=2, fallback=fallback, reader=reader) as stream:
            values = list(islice(stream, len(all_keys)))
            assert values == [*all_keys[:9], f"not {all_keys[9]}", *all_keys[10:]]
            assert isinstance(errors[0], IntegrityError)
            [record] = read_quarantine(tmp_path / "quarantine.jsonl")
            assert (record.row, record.key, record.rank) == (9, all_keys[9], 0)
            assert "crc32" in record.reason
            with pytest.raises(QuarantineError):
                list(stream)
    finally:
        restore()


def test_a_fallback_replaces_only_mmpack_errors_of_the_decoder(build: Path, tmp_path: Path) -> None:
    """A DataError means that the sample is damaged. Any other error is a fault of the decoder and is always raised."""
    all_keys = list(open_stream(build, epochs=1))

    def make_decoder(type_: type[Exception]) -> Callable[[str, dict[str, bytes]], str]:
        def decode(key: str, members: dict[str, bytes]) -> str:
            if key == all_keys[3]:
                raise type_("no")
            return key

        return decode

    reader = reader_config(2, quarantine=str(tmp_path / "quarantine.jsonl"))
    arguments = stream_arguments({"epochs": 1, "reader": reader})
    for type_ in (DataError, ValueError):
        with SampleStream(str(build), make_decoder(type_), **arguments) as stream:
            assert list(islice(stream, 3)) == all_keys[:3]
            with pytest.raises(type_, match="no"):
                next(stream)
    arguments = stream_arguments({"epochs": 1, "reader": reader, "fallback": lambda key, error: "?"})
    with SampleStream(str(build), make_decoder(DataError), **arguments) as stream:
        assert list(stream) == [*all_keys[:3], "?", *all_keys[4:]]
    with (
        SampleStream(str(build), make_decoder(ValueError), **arguments) as stream,
        pytest.raises(ValueError, match="no"),
    ):
        list(stream)


def count_prefetch_threads() -> int:
    return sum(thread.name.startswith("mmpack-prefetch") for thread in threading.enumerate())


def test_threads_end_when_a_stream_is_closed_or_abandoned(build: Path) -> None:
    before = count_prefetch_threads()
    stream = open_stream(build, reader=reader_config(3))
    next(stream)
    assert count_prefetch_threads() == before + 3
    stream.close()
    assert count_prefetch_threads() == before
    next(stream)
    del stream
    gc.collect()
    assert count_prefetch_threads() == before
    with open_stream(build, reader=reader_config(0)) as stream:
        next(stream)
        assert count_prefetch_threads() == before


def test_prefetching_is_bounded(build: Path) -> None:
    decoded = []

    def decode(key: str, members: dict[str, bytes]) -> str:
        time.sleep(0.002)  # slow enough that samples are decoded one by one
        decoded.append(key)
        return key

    with SampleStream(str(build), decode, reader=reader_config(2)) as stream:
        next(stream)
        time.sleep(0.1)
        assert 1 < len(decoded) <= 5


def test_batches_do_not_change_the_samples(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decodes batches of up to 32 samples, across the ends of blocks and epochs."""
    one_by_one = list(open_stream(build, epochs=5, reader=reader_config(0)))
    monkeypatch.setattr(sample_stream, "_BATCH_SECONDS", 1e9)
    for threads in (0, 2):
        with open_stream(build, epochs=5, reader=reader_config(threads)) as stream:
            assert list(islice(stream, len(one_by_one))) == one_by_one
    with open_stream(build, epochs=5, rank=1, ranks=3, reader=reader_config(2)) as stream:
        assert list(stream) == one_by_one[1::3]


def test_batches_grow_only_for_fast_samples() -> None:
    sizer = sample_stream._BatchSizer(1, 4)
    for size in (1, 2, 4, 4):
        assert (sizer.size, sizer.is_serial) == (size, size == 4)
        sizer.update(size, 0.0001)
    slow = sample_stream._BatchSizer(1, 4)
    slow.update(1, 0.01)
    assert (slow.size, slow.is_serial) == (1, False)
