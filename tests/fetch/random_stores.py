"""Small stores of random samples, planned rows of these samples, and rows with random arrays."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mmpack.errors import DataError
from mmpack.plan.planned_rows import PlannedDocument, PlannedRow, PlannedSample
from mmpack.quarantine import UnreadableSample
from mmpack.rows.row import Row
from mmpack.shards import tar


@dataclass
class RandomStore:
    """The folder of a store, its planned samples and their members."""

    folder: Path
    samples: list[PlannedSample] = field(default_factory=list)
    members: list[dict[str, bytes]] = field(default_factory=list)


def make_store(
    root: Path, *, shards: int = 2, per_shard: int = 12, size: int = 3000, shard_set: int = 0
) -> RandomStore:
    """Writes tars of samples with two members each."""
    random = np.random.default_rng(shard_set)
    store = RandomStore(root)
    (root / "shards").mkdir(parents=True)
    for shard in range(shards):
        name = f"shards/{shard:05d}.tar"
        data = b""
        for _ in range(per_shard):
            number = len(store.samples)
            key = f"sample-{shard_set}-{number:05d}"
            members = {
                "bin": random.bytes(size + number),
                "json": b'{"n":%d}' % number,
            }
            packed = b"".join(
                tar.make_header(f"{key}.{extension}", len(content)) + content + tar.make_padding(len(content))
                for extension, content in members.items()
            )
            store.samples.append(
                PlannedSample(
                    shard_set=shard_set,
                    number=number,
                    key=key,
                    kind="text",
                    shard=name,
                    offset_bytes=len(data),
                    size_bytes=len(packed),
                    crc32=zlib.crc32(packed),
                    tokens=10,
                    tokens_text=10,
                )
            )
            store.members.append(members)
            data += packed
        (root / name).write_bytes(data + tar.END_OF_ARCHIVE)
    return store


def make_planned_row(*samples: PlannedSample, number: int = 0) -> PlannedRow:
    """Makes a planned row with one document per sample."""
    return PlannedRow(number, tuple(PlannedDocument(0, (sample,), sample.tokens) for sample in samples))


def planned_rows(count: int, start: int = 0) -> Iterator[PlannedRow]:
    """Yields planned rows, each with one sample that does not exist."""
    for number in range(start, start + count):
        yield make_planned_row(
            PlannedSample(
                shard_set=0,
                number=number,
                key=f"key-{number}",
                kind="text",
                shard="s.tar",
                offset_bytes=0,
                size_bytes=1,
                crc32=0,
                tokens=10,
                tokens_text=10,
            ),
            number=number,
        )


@dataclass(frozen=True)
class FakeRowFunction:
    """A replacement of the row pipeline: the content and the duration of a row follow from its number.

    Attributes:
        patches: number of patches of 16 × 16 pixels in every row.
        max_delay_s: longest duration of a row.
        fails_at: number of the row that raises a DataError.
        dies_at: number of the row that kills its process, while the file `deaths_path` has fewer than `max_deaths`
            bytes.
        max_deaths: number of times that `dies_at` kills a process.
        deaths_path: file to which every killed process appends one byte.
        pids_folder: folder in which every process that makes rows creates a file named by its process id.
    """

    patches: int = 4
    max_delay_s: float = 0.0
    fails_at: int = -1
    dies_at: int = -1
    max_deaths: int = 0
    deaths_path: str = ""
    pids_folder: str = ""

    def __call__(self) -> FakeRowFunction:
        if self.pids_folder:
            (Path(self.pids_folder) / str(os.getpid())).touch()
        return self

    def make(self, planned: PlannedRow) -> tuple[Row, list[UnreadableSample]]:
        """Makes a row and one unreadable sample."""
        if self.max_delay_s:
            time.sleep(self.max_delay_s * np.random.default_rng(~planned.number % 1000).random())
        if planned.number == self.fails_at:
            raise DataError("a fault", where=f"row {planned.number}", hint="None.")
        if planned.number == self.dies_at and os.path.getsize(self.deaths_path) < self.max_deaths:
            with open(self.deaths_path, "ab") as file:
                file.write(b"x")
            os.kill(os.getpid(), 9)
        return make_row(planned, self.patches)


@dataclass(frozen=True)
class FakeRowSetup:
    """The setup of a worker: calling it returns the `make` method of its `FakeRowFunction`."""

    rows: FakeRowFunction

    def __call__(self):
        return self.rows().make


def make_row(planned: PlannedRow, patches: int) -> tuple[Row, list[UnreadableSample]]:
    """Makes a row with random arrays of many shapes, some of them empty, and one unreadable sample."""
    random = np.random.default_rng(planned.number)
    length = 64 + planned.number % 7

    def ints(*shape: int, dtype: type = np.int32) -> np.ndarray:
        return random.integers(0, 100, shape).astype(dtype)

    row = Row(
        number=planned.number,
        input_ids=ints(length),
        labels=ints(length),
        position_ids=ints(length),
        document_ids=ints(length),
        cu_seqlens=ints(3),
        document_valid=np.array([True, False]),
        datasets=ints(2, dtype=np.int16),
        keys=tuple(tuple(sample.key for sample in document.samples) for document in planned.documents),
        modality=ints(length, dtype=np.int8),
        slice_ids=ints(length),
        t_ns=random.integers(0, 1 << 60, 3),
        patches=random.integers(0, 255, (patches, 16, 16, 3), dtype=np.uint8),
        patch_index=ints(patches),
        image_spans=ints(1, 2),
        image_grids=ints(1, 2),
        values=random.standard_normal((5, 3)).astype(np.float32),
        value_mask=random.random((5, 3)) < 0.5,
        value_index=ints(5),
        value_stream=ints(5, dtype=np.int16),
        actions=np.empty((0, 3), np.float32),
        action_mask=np.empty((0, 3), bool),
        action_index=ints(0),
        action_stream=ints(0, dtype=np.int16),
        audio_frames=np.empty((0, 320), np.float32),
        audio_index=ints(0),
        pairs=np.empty((0, 2), np.int32),
        cls_index=np.empty((0, 2), np.int32),
    )
    unreadable = UnreadableSample(
        row=planned.number, key="broken", shard="s.tar", offset_bytes=1, size_bytes=2, reason="a reason"
    )
    return row, [unreadable]


def assert_same_row(
    one: tuple[Row, list[UnreadableSample]], other: tuple[Row, list[UnreadableSample]]
) -> None:
    """Asserts that two rows have equal arrays, dtypes and shapes, and equal unreadable samples."""
    assert one[1] == other[1]
    assert (one[0].number, one[0].keys) == (other[0].number, other[0].keys)
    for name, array in one[0].arrays().items():
        other_array = other[0].arrays()[name]
        assert (array.dtype, array.shape) == (other_array.dtype, other_array.shape), name
        np.testing.assert_array_equal(array, other_array, err_msg=name)


def expected_rows(count: int, patches: int = 4, start: int = 0) -> list[tuple[Row, list[UnreadableSample]]]:
    """Returns the rows that `FakeRowFunction` makes of `planned_rows(count)`."""
    return [make_row(planned, patches) for planned in planned_rows(count, start)]


def count_open_descriptors() -> int:
    """Returns the number of open file descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def count_row_memfds(pid: int | str = "self") -> int:
    """Returns the number of descriptors and mappings of anonymous files that transport rows."""
    count = sum("memfd:mmpack" in line for line in Path(f"/proc/{pid}/maps").read_text().splitlines())
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += "memfd:mmpack" in os.readlink(handle)
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return count
