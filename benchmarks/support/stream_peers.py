"""The loaders that benchmarks/stream.py compares: one small class each, all with the same methods.

Each loader is configured as its documentation shows, for one sample at a time, with a deterministic shuffle if it has
one. Each worker process prefetches two samples, where the loader has such a setting, and calls :func:`decode`. Loaders
based on torch's DataLoader get tensors, which it passes through shared memory. The packages of a loader are imported when
the loader is created, not when this module is imported.
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

IdAndPayload = tuple[int, Any]
SEED = 7
#: Loaders that shuffle only within a buffer get a buffer of a tenth of the set.
_BUFFER_SHARE = 10


class Loader:
    """The interface of a measured loader.

    Attributes:
        package: package whose version is reported.
        has_state: whether the loader can save a state and resume from it.

    Args:
        samples: set of samples to load.
    """

    package = ""
    has_state = True

    def __init__(self, samples: BenchmarkSamples) -> None:
        self.samples = samples
        self.home = samples.folder / type(self).__name__.lower()
        self.count = len(samples.ranges)

    def prepare(self) -> None:
        """Writes the samples to `home` in the format of the loader; called once, in a process of its own."""

    def open(self, workers: int) -> None:
        """Opens the loader with a number of worker processes."""
        raise NotImplementedError

    def epoch(self) -> Iterator[IdAndPayload]:
        """Yields the id and payload of each sample of the next epoch, or of the rest of an epoch after `resume`."""
        raise NotImplementedError

    def state(self) -> Any:
        """Returns the state within an epoch."""
        raise NotImplementedError

    def resume(self, state: Any) -> None:
        """Resumes from a state; called after `open`."""
        raise NotImplementedError


class Floor(Loader):
    """A loop of `pread` and the decoder. Worker processes read equal shares and send sample ids only."""

    has_state = False

    def open(self, workers: int) -> None:
        self._workers, self._epoch = workers, 0

    def epoch(self) -> Iterator[IdAndPayload]:
        order = np.random.default_rng((SEED, self._epoch)).permutation(self.count).tolist()
        self._epoch += 1
        if not self._workers:
            yield from self._read(order)
            return
        ids: SimpleQueue[int] = SimpleQueue(ctx=get_context())
        for worker in range(self._workers):
            Process(target=self._send, args=(order[worker :: self._workers], ids), daemon=True).start()
        for _ in order:
            yield ids.get(), None

    def _read(self, order: list[int]) -> Iterator[IdAndPayload]:
        files = self.samples.open_files()
        for id_ in order:
            yield id_, decode(self.samples.kind, self._read_members(files, id_))
        for file in files:
            os.close(file)

    def _read_members(self, files: list[int], id_: int) -> Members:
        return self.samples.read(files, id_)

    def _send(self, order: list[int], ids: SimpleQueue[int]) -> None:
        for id_, _ in self._read(order):
            ids.put(id_)


class CheckedFloor(Floor):
    """The floor with a checksum of the bytes, as mmpack has it; the difference is the cost of the checksum."""

    def __init__(self, samples: BenchmarkSamples) -> None:
        super().__init__(samples)
        self._crc32 = import_module("isal.isal_zlib").crc32

    def _read_members(self, files: list[int], id_: int) -> Members:
        members = super()._read_members(files, id_)
        for data in members.values():
            self._crc32(data)
        return members


class Mmpack(Loader):
    """mmpack over the same tars with an index; it uses threads in place of worker processes, and none for 0 workers."""

    package = "mmpack"

    def __init__(self, samples: BenchmarkSamples) -> None:
        super().__init__(samples)
        os.environ["MMPACK_CACHE"] = str(self.home / "cache")
        self._sample_stream = import_module("mmpack.stream.sample_stream")

    def prepare(self) -> None:
        import_module("benchmarks.support.stream_index").write_shard_set(self.samples, self.home)
        # The first opening derives the columns of the index and caches them.
        import_module("mmpack.plan.catalog").IndexCatalog(str(self.home))

    def open(self, workers: int) -> None:
        plan_config = import_module("mmpack.plan.plan_config")
        reader = plan_config.ReaderConfig(threads=workers, prefetch=max(1, 2 * workers))
        self._stream = self._sample_stream.SampleStream(
            str(self.home),
            self._decode,
            config=self._sample_stream.SampleStreamConfig(seed=SEED),
            reader=reader,
        )
        self._left = self.count

    def epoch(self) -> Iterator[IdAndPayload]:
        while self._left:
            sample = next(self._stream)
            self._left -= 1
            yield sample
        self._left = self.count

    def state(self) -> Any:
        return self._stream.state_dict()

    def resume(self, state: Any) -> None:
        self._stream.load_state_dict(state)
        self._left = self.count - state["position"] % self.count

    def _decode(self, key: str, members: Members) -> IdAndPayload:
        return self.samples.parse_id(key), decode(self.samples.kind, members)


class Torchdata(Loader):
    """torchdata's StatefulDataLoader over a map-style dataset of byte ranges, which reads like the floor."""

    package = "torchdata"

    def __init__(self, samples: BenchmarkSamples) -> None:
        super().__init__(samples)
        self._torch, self._loaders = import_module("torch"), import_module("torchdata.stateful_dataloader")

    def open(self, workers: int) -> None:
        generator = self._torch.Generator().manual_seed(SEED)
        dataset = _RangeDataset(self.samples)
        self._loader = self._loaders.StatefulDataLoader(
            dataset, batch_size=None, shuffle=True, generator=generator, num_workers=workers
        )

    def epoch(self) -> Iterator[IdAndPayload]:
        yield from self._loader

    def state(self) -> Any:
        return self._loader.state_dict()

    def resume(self, state: Any) -> None:
        self._loader.load_state_dict(state)


class _RangeDataset:
    """A map-style dataset of byte ranges."""

    def __init__(self, samples: BenchmarkSamples) -> None:
        self._samples, self._files = samples, samples.open_files()

    def __len__(self) -> int:
        return len(self._samples.ranges)

    def __getitem__(self, id_: int) -> IdAndPayload:
        return id_, _decode_to_tensor(self._samples.kind, self._samples.read(self._files, id_))


class Webdataset(Loader):
    """webdataset over the same tars, with shuffled tars and a shuffle buffer. It has no state."""

    package = "webdataset"
    has_state = False

    def __init__(self, samples: BenchmarkSamples) -> None:
        super().__init__(samples)
        self._webdataset = import_module("webdataset")

    def open(self, workers: int) -> None:
        buffer = self.count // _BUFFER_SHARE
        tars = [str(path) for path in self.samples.tars]
        data = self._webdataset.WebDataset(tars, shardshuffle=SHARDS, detshuffle=True, seed=SEED)
        data = data.shuffle(buffer, initial=buffer).map(self._decode)
        self._loader = self._webdataset.WebLoader(data, batch_size=None, num_workers=workers)

    def epoch(self) -> Iterator[IdAndPayload]:
        yield from self._loader

    def _decode(self, sample: dict[str, Any]) -> IdAndPayload:
        return self.samples.parse_id(sample["__key__"]), _decode_to_tensor(self.samples.kind, sample)


class Energon(Loader):
    """Energon over the same tars with its own index: crude samples, cooked in the worker, with a shuffle buffer."""

    package = "megatron-energon"

    def __init__(self, samples: BenchmarkSamples) -> None:
        super().__init__(samples)
        self._energon = import_module("megatron.energon")

    def prepare(self) -> None:
        self.home.mkdir()
        for path in self.samples.tars:
            (self.home / path.name).symlink_to(path)
        files = import_module("megatron.energon.epathlib")
        preparation = import_module("megatron.energon.flavors.webdataset.prepare")
        preparation.WebdatasetPreparator.prepare_dataset(
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
            return energon.ImageSample(
                **energon.basic_sample_keys(sample), image=_decode_to_tensor(kind, sample)
            )

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

    def epoch(self) -> Iterator[IdAndPayload]:
        for sample in self._loader:
            yield self.samples.parse_id(sample.__key__), sample.image

    def state(self) -> Any:
        return self._loader.save_state_rank()

    def resume(self, state: Any) -> None:
        self._loader.restore_state_rank(state)


class Mosaic(Loader):
    """MosaicML Streaming over MDS shards, shuffled with `py1e`."""

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
            for id_, members in self.samples.all():
                out.write({"number": id_, **members})

    def open(self, workers: int) -> None:
        kind, streaming = self.samples.kind, self._streaming

        class MosaicDataset(streaming.StreamingDataset):
            def __getitem__(self, at: int) -> Any:
                sample = super().__getitem__(at)
                return sample["number"], _decode_to_tensor(kind, sample)

        data = MosaicDataset(local=str(self.home), shuffle=True, shuffle_seed=SEED, batch_size=1)
        # The loader counts delivered samples by the length of the first column of a batch, so batches are columns.
        self._loader = streaming.StreamingDataLoader(
            data, batch_size=1, num_workers=workers, collate_fn=_collate_columns
        )

    def epoch(self) -> Iterator[IdAndPayload]:
        for batch in self._loader:
            yield batch["number"][0], batch["payload"][0]

    def state(self) -> Any:
        return self._loader.state_dict()

    def resume(self, state: Any) -> None:
        self._loader.load_state_dict(state)


class Litdata(Loader):
    """LitData over chunks written by `optimize`, shuffled."""

    package = "litdata"

    def __init__(self, samples: BenchmarkSamples) -> None:
        super().__init__(samples)
        self._litdata = import_module("litdata")

    def prepare(self) -> None:
        files = self.samples.open_files()

        def read_record(id_: int) -> dict[str, Any]:
            return {"number": id_, **self.samples.read(files, id_)}

        self._litdata.optimize(
            fn=read_record,
            inputs=list(range(self.count)),
            output_dir=str(self.home),
            chunk_bytes=_shard_bytes(self.samples),
            num_workers=1,
            start_method="fork",
        )

    def open(self, workers: int) -> None:
        kind, litdata = self.samples.kind, self._litdata

        class LitdataDataset(litdata.StreamingDataset):
            def __getitem__(self, index: Any) -> Any:
                sample = super().__getitem__(index)
                return sample["number"], _decode_to_tensor(kind, sample)

        data = LitdataDataset(str(self.home), shuffle=True, seed=SEED)
        self._loader = litdata.StreamingDataLoader(
            data, batch_size=1, num_workers=workers, collate_fn=_unwrap_single
        )

    def epoch(self) -> Iterator[IdAndPayload]:
        yield from self._loader

    def state(self) -> Any:
        return self._loader.state_dict()

    def resume(self, state: Any) -> None:
        self._loader.load_state_dict(state)


class Grain(Loader):
    """Grain over ArrayRecord files: a global shuffle, spawned worker processes, and one stream of repeated epochs.

    Its default read options (16 threads and 500 prefetched samples per process) would keep every decoded sample of a set
    in memory. They are set to values like those of the other loaders: no threads for 0 workers, and else one thread and
    two prefetched samples per worker.
    """

    package = "grain"

    def __init__(self, samples: BenchmarkSamples) -> None:
        super().__init__(samples)
        self._grain = import_module("grain")
        import_module("grain.sources")

    def prepare(self) -> None:
        self.home.mkdir()
        records = import_module("array_record.python.array_record_module")
        for path, ids in zip(self._paths(), np.array_split(range(self.count), SHARDS), strict=True):
            writer = records.ArrayRecordWriter(path, "group_size:1,uncompressed")
            files = self.samples.open_files()
            for id_ in ids.tolist():
                writer.write(_join_record(id_, self.samples.read(files, id_)))
            writer.close()

    def open(self, workers: int) -> None:
        grain = self._grain
        source = grain.sources.ArrayRecordDataSource(self._paths())
        data = grain.MapDataset.source(source).shuffle(SEED).map(_RecordDecoder(self.samples.kind)).repeat()
        options = (
            grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
            if workers
            else grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        )
        data = data.to_iter_dataset(options)
        if workers:
            processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
            data = data.mp_prefetch(processes)
        self._iterator = iter(data)

    def epoch(self) -> Iterator[IdAndPayload]:
        for _ in range(self.count):
            yield next(self._iterator)

    def state(self) -> Any:
        return self._iterator.get_state()

    def resume(self, state: Any) -> None:
        self._iterator.set_state(state)

    def _paths(self) -> list[str]:
        return [str(self.home / f"{index:06d}.array_record") for index in range(SHARDS)]


class _RecordDecoder:
    """A decoder of records that can be pickled for spawned workers."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __call__(self, record: bytes) -> IdAndPayload:
        id_, members = _split_record(record)
        return id_, decode(self._kind, members)


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


def _decode_to_tensor(kind: str, members: Members) -> Any:
    payload = decode(kind, members)
    return payload if isinstance(payload, bytes) else import_module("torch").from_numpy(payload)


def _collate_columns(batch: list[IdAndPayload]) -> dict[str, list[Any]]:
    return {"number": [id_ for id_, _ in batch], "payload": [payload for _, payload in batch]}


def _unwrap_single(batch: list[IdAndPayload]) -> IdAndPayload:
    return batch[0]


def _shard_bytes(samples: BenchmarkSamples) -> int:
    return max(path.stat().st_size for path in samples.tars)


def _join_record(id_: int, members: Members) -> bytes:
    """Encodes a record: the length of the header, the header with id, names and sizes as JSON, and the members."""
    header = json.dumps([id_, [(name, len(data)) for name, data in members.items()]]).encode()
    return b"".join((len(header).to_bytes(4, "big"), header, *members.values()))


def _split_record(record: bytes) -> tuple[int, Members]:
    offset = 4 + int.from_bytes(record[:4], "big")
    id_, sizes = json.loads(record[4:offset])
    members: dict[str, bytes] = {}
    for name, size in sizes:
        members[name] = record[offset : offset + size]
        offset += size
    return id_, members


def _torchvision_stub() -> Any:
    """Defines operators that torchvision needs at import if torch comes from another build.

    MosaicML Streaming imports torchvision but does not use it here.
    """
    library = import_module("torch").library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library
