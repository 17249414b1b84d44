"""Loaders beside each other for benchmarks/stream.py: one small class each, all with the same methods.

Each is set up as its own documents show, for one sample at a time, with its deterministic shuffle where it has
one; with worker processes each of them keeps two samples ready, where that can be said. Members reach
:func:`decode` in the worker. Loaders that stand on torch's DataLoader are given tensors, which it passes through
shared memory. A loader's packages are imported when it is made, not when this file is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib import import_module
from multiprocessing import Process, get_context
from multiprocessing.queues import SimpleQueue
from typing import Any

import numpy as np

from benchmarks.support.stream_inputs import SHARDS, BenchmarkSamples, Members, decode

Delivered = tuple[int, Any]
SEED = 7
_BUFFER_SHARE = 10  # a shuffle buffer, where that is all there is, holds a tenth of the set


class Loader:
    """What is measured.

    Attributes:
        package: of the version that is reported.
        saves: whether there is a state to go on from.

    Args:
        samples: one set.
    """

    package = ""
    saves = True

    def __init__(self, samples: BenchmarkSamples) -> None:
        self.samples = samples
        self.home = samples.folder / type(self).__name__.lower()
        self.count = len(samples.ranges)

    def prepare(self) -> None:
        """Writes the samples in the loader's own format to `home`, once, in a process of its own."""

    def open(self, workers: int) -> None:
        """Makes the loader."""
        raise NotImplementedError

    def epoch(self) -> Iterator[Delivered]:
        """(id, what was decoded) of each sample of the next epoch, or of what is left of it after `resume`."""
        raise NotImplementedError

    def state(self) -> Any:
        """Where it stands, in the midst of an epoch."""
        raise NotImplementedError

    def resume(self, state: Any) -> None:
        """After `open`: goes on from there."""
        raise NotImplementedError


class Floor(Loader):
    """Bare `pread` at the samples' ranges and the decoder. Two processes read half each and hand over ids alone."""

    saves = False

    def open(self, workers: int) -> None:
        self._workers, self._passes = workers, 0

    def epoch(self) -> Iterator[Delivered]:
        order = np.random.default_rng((SEED, self._passes)).permutation(self.count).tolist()
        self._passes += 1
        if not self._workers:
            yield from self._read(order)
            return
        numbers: SimpleQueue[int] = SimpleQueue(ctx=get_context())
        for worker in range(self._workers):
            Process(target=self._send, args=(order[worker :: self._workers], numbers), daemon=True).start()
        for _ in order:
            yield numbers.get(), None

    def _read(self, order: list[int]) -> Iterator[Delivered]:
        files = self.samples.open_files()
        for number in order:
            yield number, decode(self.samples.kind, self._members(files, number))
        for file in files:
            os.close(file)

    def _members(self, files: list[int], number: int) -> Members:
        return self.samples.read(files, number)

    def _send(self, order: list[int], numbers: SimpleQueue[int]) -> None:
        for number, _ in self._read(order):
            numbers.put(number)


class CheckedFloor(Floor):
    """The floor that also checks the bytes, as mmpack does: what the checksum costs."""

    def __init__(self, samples: BenchmarkSamples) -> None:
        super().__init__(samples)
        self._crc32 = import_module("isal.isal_zlib").crc32

    def _members(self, files: list[int], number: int) -> Members:
        members = super()._members(files, number)
        for data in members.values():
            self._crc32(data)
        return members


class Mmpack(Loader):
    """The same tars with mmpack's index; threads in place of workers, none without."""

    package = "mmpack"

    def __init__(self, samples: BenchmarkSamples) -> None:
        super().__init__(samples)
        os.environ["MMPACK_CACHE"] = str(self.home / "cache")
        self._samples = import_module("mmpack.stream.sample_stream")

    def prepare(self) -> None:
        import_module("benchmarks.support.stream_index").write_build(self.samples, self.home)
        import_module("mmpack.plan.catalog").IndexCatalog(str(self.home))  # derives its columns, once

    def open(self, workers: int) -> None:
        settings = import_module("mmpack.plan.plan_config").ReaderConfig
        reader = settings(threads=workers, prefetch=max(1, 2 * workers))
        self._stream = self._samples.SampleStream(str(self.home), self._decoded, seed=SEED, reader=reader)
        self._left = self.count

    def epoch(self) -> Iterator[Delivered]:
        while self._left:
            delivered = next(self._stream)
            self._left -= 1
            yield delivered
        self._left = self.count

    def state(self) -> Any:
        return self._stream.state_dict()

    def resume(self, state: Any) -> None:
        self._stream.load_state_dict(state)
        self._left = self.count - state["place"] % self.count

    def _decoded(self, key: str, members: Members) -> Delivered:
        return self.samples.number(key), decode(self.samples.kind, members)


class Torchdata(Loader):
    """torchdata's StatefulDataLoader over a map of byte ranges: the floor's reader, delivered."""

    package = "torchdata"

    def __init__(self, samples: BenchmarkSamples) -> None:
        super().__init__(samples)
        self._torch, self._loaders = import_module("torch"), import_module("torchdata.stateful_dataloader")

    def open(self, workers: int) -> None:
        generator = self._torch.Generator().manual_seed(SEED)
        ranges = _Ranges(self.samples)
        self._loader = self._loaders.StatefulDataLoader(
            ranges, batch_size=None, shuffle=True, generator=generator, num_workers=workers
        )

    def epoch(self) -> Iterator[Delivered]:
        yield from self._loader

    def state(self) -> Any:
        return self._loader.state_dict()

    def resume(self, state: Any) -> None:
        self._loader.load_state_dict(state)


class _Ranges:
    def __init__(self, samples: BenchmarkSamples) -> None:
        self._samples, self._files = samples, samples.open_files()

    def __len__(self) -> int:
        return len(self._samples.ranges)

    def __getitem__(self, number: int) -> Delivered:
        return number, _tensor(self._samples.kind, self._samples.read(self._files, number))


class Webdataset(Loader):
    """Tars read through, their order and a buffer shuffled. It has no state."""

    package = "webdataset"
    saves = False

    def __init__(self, samples: BenchmarkSamples) -> None:
        super().__init__(samples)
        self._webdataset = import_module("webdataset")

    def open(self, workers: int) -> None:
        buffer = self.count // _BUFFER_SHARE
        tars = [str(path) for path in self.samples.tars]
        data = self._webdataset.WebDataset(tars, shardshuffle=SHARDS, detshuffle=True, seed=SEED)
        data = data.shuffle(buffer, initial=buffer).map(self._decoded)
        self._loader = self._webdataset.WebLoader(data, batch_size=None, num_workers=workers)

    def epoch(self) -> Iterator[Delivered]:
        yield from self._loader

    def _decoded(self, sample: dict[str, Any]) -> Delivered:
        return self.samples.number(sample["__key__"]), _tensor(self.samples.kind, sample)


class Energon(Loader):
    """The same tars with Energon's own index; crude samples, cooked in the worker; a shuffle buffer."""

    package = "megatron-energon"

    def __init__(self, samples: BenchmarkSamples) -> None:
        super().__init__(samples)
        self._energon = import_module("megatron.energon")

    def prepare(self) -> None:
        self.home.mkdir()
        for path in self.samples.tars:
            (self.home / path.name).symlink_to(path)
        files = import_module("megatron.energon.epathlib")
        preparing = import_module("megatron.energon.flavors.webdataset.prepare")
        preparing.WebdatasetPreparator.prepare_dataset(
            files.EPath(str(self.home)),
            [path.name for path in self.samples.tars],
            split_parts_ratio=[("train", 1.0)],
            workers=1,
        )
        text = "__module__: megatron.energon\n__class__: CrudeWebdataset\n"
        (self.home / ".nv-meta" / "dataset.yaml").write_text(text)

    def open(self, workers: int) -> None:
        energon, kind = self._energon, self.samples.kind

        @energon.stateless
        def cook(sample: dict[str, Any]) -> Any:
            return energon.ImageSample(**energon.basic_sample_keys(sample), image=_tensor(kind, sample))

        class Encoder(energon.TaskEncoder):
            decoder = None
            cookers = [energon.Cooker(cook)]

        config = energon.WorkerConfig(rank=0, world_size=1, num_workers=workers, seed_offset=SEED)
        data = energon.get_train_dataset(
            str(self.home),
            worker_config=config,
            batch_size=None,
            shuffle_buffer_size=self.count // _BUFFER_SHARE,
            max_samples_per_sequence=None,
            virtual_epoch_length=self.count,
            task_encoder=Encoder(),
        )
        self._loader = energon.get_savable_loader(data)

    def epoch(self) -> Iterator[Delivered]:
        for sample in self._loader:
            yield self.samples.number(sample.__key__), sample.image

    def state(self) -> Any:
        return self._loader.save_state_rank()

    def resume(self, state: Any) -> None:
        self._loader.restore_state_rank(state)


class Mosaic(Loader):
    """MDS shards, shuffled by `py1e`."""

    package = "mosaicml-streaming"

    def __init__(self, samples: BenchmarkSamples) -> None:
        super().__init__(samples)
        self._stub = _torchvision_stub()
        self._streaming = import_module("streaming")
        import_module("streaming.base.util").clean_stale_shared_memory()

    def prepare(self) -> None:
        columns = {"number": "int"} | {name: "bytes" for name, _, _ in self.samples.ranges[0][1]}
        with self._streaming.MDSWriter(
            out=str(self.home), columns=columns, size_limit=_shard_bytes(self.samples)
        ) as out:
            for number, members in self.samples.all():
                out.write({"number": number, **members})

    def open(self, workers: int) -> None:
        kind, streaming = self.samples.kind, self._streaming

        class Decoded(streaming.StreamingDataset):
            def __getitem__(self, at: int) -> Any:
                found = super().__getitem__(at)
                return found["number"], _tensor(kind, found)

        data = Decoded(local=str(self.home), shuffle=True, shuffle_seed=SEED, batch_size=1)
        # Its count of what was handed over takes the length of a batch's first column.
        self._loader = streaming.StreamingDataLoader(
            data, batch_size=1, num_workers=workers, collate_fn=_columns
        )

    def epoch(self) -> Iterator[Delivered]:
        for batch in self._loader:
            yield batch["number"][0], batch["payload"][0]

    def state(self) -> Any:
        return self._loader.state_dict()

    def resume(self, state: Any) -> None:
        self._loader.load_state_dict(state)


class Litdata(Loader):
    """Chunks made by `optimize`, shuffled."""

    package = "litdata"

    def __init__(self, samples: BenchmarkSamples) -> None:
        super().__init__(samples)
        self._litdata = import_module("litdata")

    def prepare(self) -> None:
        files = self.samples.open_files()

        def numbered(number: int) -> dict[str, Any]:
            return {"number": number, **self.samples.read(files, number)}

        self._litdata.optimize(
            fn=numbered,
            inputs=list(range(self.count)),
            output_dir=str(self.home),
            chunk_bytes=_shard_bytes(self.samples),
            num_workers=1,
            start_method="fork",
        )

    def open(self, workers: int) -> None:
        kind, litdata = self.samples.kind, self._litdata

        class Decoded(litdata.StreamingDataset):
            def __getitem__(self, index: Any) -> Any:
                found = super().__getitem__(index)
                return found["number"], _tensor(kind, found)

        data = Decoded(str(self.home), shuffle=True, seed=SEED)
        self._loader = litdata.StreamingDataLoader(
            data, batch_size=1, num_workers=workers, collate_fn=_only_one
        )

    def epoch(self) -> Iterator[Delivered]:
        yield from self._loader

    def state(self) -> Any:
        return self._loader.state_dict()

    def resume(self, state: Any) -> None:
        self._loader.load_state_dict(state)


class Grain(Loader):
    """ArrayRecord files, a global shuffle; worker processes are spawned. One stream of repeated epochs.

    Its defaults for reading (16 threads and 500 samples ahead in each process) would hold every decoded sample of
    a set: they are set to what the others have, no thread without workers and two samples ahead with them.
    """

    package = "grain"

    def __init__(self, samples: BenchmarkSamples) -> None:
        super().__init__(samples)
        self._grain = import_module("grain")
        import_module("grain.sources")

    def prepare(self) -> None:
        self.home.mkdir()
        records = import_module("array_record.python.array_record_module")
        for path, numbers in zip(self._paths(), np.array_split(range(self.count), SHARDS), strict=True):
            writer = records.ArrayRecordWriter(path, "group_size:1,uncompressed")
            files = self.samples.open_files()
            for number in numbers.tolist():
                writer.write(_join_record(number, self.samples.read(files, number)))
            writer.close()

    def open(self, workers: int) -> None:
        grain = self._grain
        source = grain.sources.ArrayRecordDataSource(self._paths())
        data = grain.MapDataset.source(source).shuffle(SEED).map(_FromRecord(self.samples.kind)).repeat()
        options = (
            grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
            if workers
            else grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        )
        data = data.to_iter_dataset(options)
        if workers:
            ahead = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
            data = data.mp_prefetch(ahead)
        self._iterator = iter(data)

    def epoch(self) -> Iterator[Delivered]:
        for _ in range(self.count):
            yield next(self._iterator)

    def state(self) -> Any:
        return self._iterator.get_state()

    def resume(self, state: Any) -> None:
        self._iterator.set_state(state)

    def _paths(self) -> list[str]:
        return [str(self.home / f"{number:06d}.array_record") for number in range(SHARDS)]


class _FromRecord:
    """Spawned workers are sent it."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __call__(self, record: bytes) -> Delivered:
        number, members = _split_record(record)
        return number, decode(self._kind, members)


LOADERS: dict[str, type[Loader]] = {
    "floor": Floor,
    "floor+crc32": CheckedFloor,
    "mmpack": Mmpack,
    "torchdata": Torchdata,
    "webdataset": Webdataset,
    "Energon": Energon,
    "MosaicML": Mosaic,
    "LitData": Litdata,
    "Grain": Grain,
}


def _tensor(kind: str, members: Members) -> Any:
    found = decode(kind, members)
    return found if isinstance(found, bytes) else import_module("torch").from_numpy(found)


def _columns(batch: list[Delivered]) -> dict[str, list[Any]]:
    return {"number": [number for number, _ in batch], "payload": [payload for _, payload in batch]}


def _only_one(batch: list[Delivered]) -> Delivered:
    return batch[0]


def _shard_bytes(samples: BenchmarkSamples) -> int:
    return max(path.stat().st_size for path in samples.tars)


def _join_record(number: int, members: Members) -> bytes:
    """A record: the length of a header of names and sizes, the header, the members."""
    header = json.dumps([number, [(name, len(data)) for name, data in members.items()]]).encode()
    return b"".join((len(header).to_bytes(4, "big"), header, *members.values()))


def _split_record(record: bytes) -> tuple[int, Members]:
    at = 4 + int.from_bytes(record[:4], "big")
    number, sizes = json.loads(record[4:at])
    members: dict[str, bytes] = {}
    for name, size in sizes:
        members[name] = record[at : at + size]
        at += size
    return number, members


def _torchvision_stub() -> Any:
    """Operators that torchvision, which MosaicML imports and does not use, misses beside a torch of another build."""
    library = import_module("torch").library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library
