"""Tensors, and torchdata's StatefulDataLoader over both kinds of stream."""

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
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),  # torchdata's own
]


@pytest.fixture(params=["plan", "tars"])
def opened(request: pytest.FixtureRequest, mixed_shards: ShardSet, tmp_path: Path) -> Iterator[Any]:
    """A function that opens a stream anew, always the same."""
    streams: list[RowStream | TarStream] = []
    tars = [write_tar(tmp_path / f"{name}.tar", texts(name, range(9, 69))) for name in "ab"]

    def opening() -> RowStream | TarStream:
        if request.param == "plan":
            streams.append(open_small_stream(mixed_shards, tmp_path))
        else:
            streams.append(open_tar_stream(tars, tmp_path / "q.jsonl", pool=8))
        return streams[-1]

    yield opening
    for stream in streams:
        stream.close()


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Two batches, or rows, to the bit."""
    assert found.keys() == expected.keys()
    for name, one in found.items():
        other = expected[name]
        if isinstance(one, torch.Tensor):
            assert one.dtype == other.dtype
            assert torch.equal(one, other), name
        elif isinstance(one, list) and isinstance(one[0], torch.Tensor):
            assert all(map(torch.equal, one, other)), name
        else:
            assert one == other, name


def test_tensors_lie_on_the_memory_of_the_arrays(opened: Any) -> None:
    row = next(opened())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of memory that must not be written
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


def test_tensors_serve_a_model(opened: Any) -> None:
    batch = collate_tensors([next(opened())])
    embedding = torch.nn.Embedding(int(batch["input_ids"].max()) + 1, 4)
    logits = embedding(batch["input_ids"]) @ embedding.weight.T
    labels = batch["labels"].long()
    labels[labels >= logits.shape[-1]] = -100
    assert torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).isfinite()


@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("stop", [0, 5])
def test_a_state_in_mid_run_goes_on_exactly(opened: Any, batch_size: int | None, stop: int) -> None:
    whole = list(stateful_loader(opened(), batch_size=batch_size))
    first = stateful_loader(opened(), batch_size=batch_size)
    read = [batch for _, batch in zip(range(stop), first, strict=False)]
    # As a checkpoint is saved and read without trusting it.
    saved = io.BytesIO()
    torch.save(first.state_dict(), saved)
    saved.seek(0)
    second = stateful_loader(opened(), batch_size=batch_size)
    second.load_state_dict(torch.load(saved, weights_only=True))
    read += second
    assert len(read) == len(whole) > stop
    for found, expected in zip(read, whole, strict=True):
        assert_same(found, expected)


def test_the_state_holds_the_streams_once(opened: Any) -> None:
    stream = opened()
    loader = stateful_loader(stream)
    next(iter(loader))
    own = stream.state_dict()
    assert str(loader.state_dict()).count(str(own)) == 1


def test_a_loop_left_early_goes_on_behind_it_and_is_closed(opened: Any) -> None:
    before = set(threading.enumerate())
    with opened() as stream:
        loader = stateful_loader(stream)
        numbers = []
        for count in (3, 2):
            numbers += [batch["number"] for _, batch in zip(range(count), loader, strict=False)]
        assert numbers == [0, 1, 2, 3, 4]
        mine = set(threading.enumerate()) - before
        assert mine
    assert not any(thread.is_alive() for thread in mine)


def test_a_loader_that_is_forgotten_ends_its_threads(mixed_shards: ShardSet, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    loader = stateful_loader(open_small_stream(mixed_shards, tmp_path))
    next(iter(loader))
    mine = set(threading.enumerate()) - before
    assert mine
    del loader
    gc.collect()
    for thread in mine:
        thread.join(10)
        assert not thread.is_alive()


def test_rows_of_worker_processes_are_tensors_too(mixed_shards: ShardSet, tmp_path: Path) -> None:
    with open_small_stream(mixed_shards, tmp_path) as stream:
        expected = [row_tensors(next(stream)) for _ in range(3)]
    with open_small_stream(mixed_shards, tmp_path, reader={"workers": 1}) as stream:
        for found, other in zip(stateful_loader(stream), expected, strict=False):
            assert_same(found, other)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking beside threads
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_the_loader_are_refused(mixed_shards: ShardSet, tmp_path: Path, start: str) -> None:
    from torchdata.stateful_dataloader import StatefulDataLoader

    dataset = row_dataset(open_small_stream(mixed_shards, tmp_path))
    loader = StatefulDataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context=start)
    with pytest.raises(ConfigError, match=r"would read all rows.*num_workers=0"):
        next(iter(loader))


def test_the_dataset_serves_a_loader_of_ones_own(opened: Any) -> None:
    from torch.utils.data import DataLoader

    def only_numbers(rows: list[Row]) -> list[int]:
        return [row.number for row in rows]

    loader: Any = DataLoader(row_dataset(opened()), batch_size=3, collate_fn=only_numbers)
    found = list(loader)
    assert [number for batch in found for number in batch] == list(range(3 * len(found) - 3 + len(found[-1])))


def test_batches_divide_a_ranks_rows_of_a_step(mixed_shards: ShardSet, tmp_path: Path) -> None:
    stream = open_small_stream(mixed_shards, tmp_path, rank=1, ranks=2)
    with pytest.raises(ConfigError, match="batches of 3 do not divide a rank's 4 rows"):
        stateful_loader(stream, batch_size=3)
    with pytest.raises(ConfigError, match="0 is not 1 or more"):
        stateful_loader(stream, batch_size=0)
    with stream:
        batches = list(stateful_loader(stream, batch_size=4))
    assert [batch["numbers"].shape for batch in batches] == [(4,)] * 5
