"""Rows as tensors, and torchdata's StatefulDataLoader over row streams and tar streams."""

from __future__ import annotations

import gc
import io
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpack import ShardSet
from mmpack.errors import ConfigError
from mmpack.stream import Row, RowStream, collate
from mmpack.stream.tars import TarStream
from mmpack.stream.torch import collate_tensors, row_dataset, row_tensors, stateful_loader
from tests.stream.small_streams import open_small_stream
from tests.stream.tar_files import open_tar_stream, texts, write_tar

torch = pytest.importorskip("torch")
pytest.importorskip("torchdata")
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),  # raised inside torchdata
]


@pytest.fixture(params=["plan", "tars"])
def open_stream(request: pytest.FixtureRequest, mixed_shards: ShardSet, tmp_path: Path) -> Iterator[Any]:
    """A function that opens the same stream anew at each call."""
    streams: list[RowStream | TarStream] = []
    tars = [write_tar(tmp_path / f"{name}.tar", texts(name, range(9, 69))) for name in "ab"]

    def open_anew() -> RowStream | TarStream:
        if request.param == "plan":
            streams.append(open_small_stream(mixed_shards, tmp_path))
        else:
            streams.append(open_tar_stream(tars, tmp_path / "q.jsonl", pool=8))
        return streams[-1]

    yield open_anew
    for stream in streams:
        stream.close()


def assert_same(batch: dict[str, Any], expected: dict[str, Any]) -> None:
    """Checks that two batches, or rows, are equal to the bit."""
    assert batch.keys() == expected.keys()
    for name, value in batch.items():
        other = expected[name]
        if isinstance(value, torch.Tensor):
            assert value.dtype == other.dtype
            assert torch.equal(value, other), name
        elif isinstance(value, list) and isinstance(value[0], torch.Tensor):
            assert all(map(torch.equal, value, other)), name
        else:
            assert value == other, name


def test_tensors_share_the_memory_of_the_arrays(open_stream: Any) -> None:
    row = next(open_stream())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns about memory that is not writable
        tensors = row_tensors(row)
        batch = collate_tensors([row, row])
    for name, array in row.arrays().items():
        assert tensors[name].numpy().dtype == array.dtype
        assert tensors[name].shape == array.shape
        if array.size:
            assert np.shares_memory(tensors[name].numpy(), array), name
    assert (tensors["number"], tensors["keys"]) == (row.number, row.keys)
    expected = collate([row, row])
    assert batch.keys() == expected.keys()
    assert batch["input_ids"].shape == (2, row.seq_len)
    assert batch["cu_seqlens"][1].tolist() == row.cu_seqlens.tolist()
    assert batch["keys"] == [row.keys, row.keys]


def test_tensors_fit_an_embedding_and_a_loss(open_stream: Any) -> None:
    batch = collate_tensors([next(open_stream())])
    embedding = torch.nn.Embedding(int(batch["input_ids"].max()) + 1, 4)
    logits = embedding(batch["input_ids"]) @ embedding.weight.T
    labels = batch["labels"].long()
    labels[labels >= logits.shape[-1]] = -100
    assert torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).isfinite()


@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("stop", [0, 5])
def test_a_loader_resumes_exactly_from_any_state(open_stream: Any, batch_size: int | None, stop: int) -> None:
    all_batches = list(stateful_loader(open_stream(), batch_size=batch_size))
    first = stateful_loader(open_stream(), batch_size=batch_size)
    batches = [batch for _, batch in zip(range(stop), first, strict=False)]
    # The state survives torch.save, and torch.load with weights_only, which loads untrusted checkpoints safely.
    saved = io.BytesIO()
    torch.save(first.state_dict(), saved)
    saved.seek(0)
    second = stateful_loader(open_stream(), batch_size=batch_size)
    second.load_state_dict(torch.load(saved, weights_only=True))
    batches += second
    assert len(batches) == len(all_batches) > stop
    for batch, expected in zip(batches, all_batches, strict=True):
        assert_same(batch, expected)


def test_the_loader_state_contains_the_stream_state_once(open_stream: Any) -> None:
    stream = open_stream()
    loader = stateful_loader(stream)
    next(iter(loader))
    stream_state = stream.state_dict()
    assert str(loader.state_dict()).count(str(stream_state)) == 1


def test_an_interrupted_loop_continues_and_closing_ends_the_threads(open_stream: Any) -> None:
    before = set(threading.enumerate())
    with open_stream() as stream:
        loader = stateful_loader(stream)
        numbers = []
        for count in (3, 2):
            numbers += [batch["number"] for _, batch in zip(range(count), loader, strict=False)]
        assert numbers == [0, 1, 2, 3, 4]
        stream_threads = set(threading.enumerate()) - before
        assert stream_threads
    assert not any(thread.is_alive() for thread in stream_threads)


def test_the_threads_of_an_abandoned_loader_end(mixed_shards: ShardSet, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    loader = stateful_loader(open_small_stream(mixed_shards, tmp_path))
    next(iter(loader))
    stream_threads = set(threading.enumerate()) - before
    assert stream_threads
    del loader
    gc.collect()
    for thread in stream_threads:
        thread.join(10)
        assert not thread.is_alive()


def test_rows_of_worker_processes_give_the_same_tensors(mixed_shards: ShardSet, tmp_path: Path) -> None:
    with open_small_stream(mixed_shards, tmp_path) as stream:
        expected = [row_tensors(next(stream)) for _ in range(3)]
    with open_small_stream(mixed_shards, tmp_path, reader={"workers": 1}) as stream:
        for row, other in zip(stateful_loader(stream), expected, strict=False):
            assert_same(row, other)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # forking a process with threads
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_worker_processes_of_a_loader_are_an_error(
    mixed_shards: ShardSet, tmp_path: Path, start: str
) -> None:
    from torchdata.stateful_dataloader import StatefulDataLoader

    dataset = row_dataset(open_small_stream(mixed_shards, tmp_path))
    loader = StatefulDataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context=start)
    with pytest.raises(ConfigError, match=r"would read all rows.*num_workers=0"):
        next(iter(loader))


def test_the_dataset_works_with_a_plain_data_loader(open_stream: Any) -> None:
    from torch.utils.data import DataLoader

    def row_numbers(rows: list[Row]) -> list[int]:
        return [row.number for row in rows]

    loader: Any = DataLoader(row_dataset(open_stream()), batch_size=3, collate_fn=row_numbers)
    batches = list(loader)
    numbers = [number for batch in batches for number in batch]
    assert numbers == list(range(3 * len(batches) - 3 + len(batches[-1])))


def test_the_batch_size_divides_the_rows_of_a_rank_in_a_step(mixed_shards: ShardSet, tmp_path: Path) -> None:
    stream = open_small_stream(mixed_shards, tmp_path, rank=1, ranks=2)
    with pytest.raises(ConfigError, match="batches of 3 rows do not divide the 4 rows of a rank"):
        stateful_loader(stream, batch_size=3)
    with pytest.raises(ConfigError, match="batch size 0 is less than 1"):
        stateful_loader(stream, batch_size=0)
    with stream:
        batches = list(stateful_loader(stream, batch_size=4))
    assert [batch["numbers"].shape for batch in batches] == [(4,)] * 5
