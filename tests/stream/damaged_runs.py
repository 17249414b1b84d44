"""A run over a small intact shard set, and checks of runs over damaged copies of it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpack.ingest import BuildConfig, build_shards
from mmpack.plan import PlannedRow
from mmpack.quarantine import read_quarantine
from mmpack.settings import load_settings
from mmpack.stream import Plan, Row, RowStream
from tests.ingest.build_inputs import make_inputs
from tests.rows.damaged_rows import row_without
from tests.rows.row_checks import check_row_arrays
from tests.shards import edit_shard_set

PLAN = """\
max_seq_len = 512
global_batch = 2
window_steps = 4
seed = 4

[reader]
threads = 2
prefetch = 4
retries = 1

[[datasets]]
name = "drive"
shards = "out"
select = ["drive-*"]
max_epochs = 2

[[datasets]]
name = "texts"
shards = "out"
select = ["texts"]
max_epochs = 2

[[datasets]]
name = "pairs"
shards = "out"
select = ["captions", "speech"]
contrastive = true
max_epochs = 2
"""

Reasons = Mapping[str, str]
"""For each unreadable sample, by key, a regular expression that its recorded reason must match."""


@dataclass(frozen=True)
class IntactRun:
    """A shard set in `folder/out`, its plan in `folder/plan.toml`, and all rows of the plan."""

    folder: Path
    plan: Plan
    planned: list[PlannedRow]
    rows: list[Row]

    def copy(self, to: Path) -> Path:
        """Copies the folder, so that a test can damage the copy."""
        return Path(shutil.copytree(self.folder, to / "run"))


def make_intact_run(folder: Path, inputs: Path) -> IntactRun:
    """Builds a drive with gaps, texts, captions and speech, and reads all rows of a plan of two epochs."""
    config = load_settings(make_inputs(inputs, drives=1), BuildConfig).resolve_paths(inputs)
    assert build_shards(config, str(folder / "out")).failures == []
    (folder / "plan.toml").write_text(PLAN)
    with RowStream.open(folder / "plan.toml") as stream:
        rows, plan = list(stream), stream.plan
    assert not (folder / "quarantine.jsonl").exists()
    return IntactRun(folder, plan, [plan.row(row.number) for row in rows], rows)


def read_rows(folder: Path | str, **reader: Any) -> list[Row]:
    """Reads all rows of the plan in `folder`, with the `[reader]` settings `reader`."""
    with RowStream.open(Path(folder) / "plan.toml", reader=reader) as stream:
        return list(stream)


def assert_equal(rows: list[Row], expected: list[Row]) -> None:
    """Checks that the rows are equal to the bit."""
    assert [row.number for row in rows] == [row.number for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row.keys == other.keys
        for name, array in row.arrays().items():
            same = getattr(other, name)
            assert (array.dtype, array.shape) == (same.dtype, same.shape), (row.number, name)
            assert array.tobytes() == same.tobytes(), (row.number, name)


def assert_masked(folder: Path, rows: list[Row], intact: IntactRun, reasons: Reasons) -> None:
    """Checks that `rows` are the intact rows without the samples of `reasons`, and that each of these is recorded.

    A sample must be recorded once for every row that contains it, in the order of the rows.
    """
    layout = intact.plan.layout
    expected = [
        row_without(row, planned, reasons, layout)
        for row, planned in zip(intact.rows, intact.planned, strict=True)
    ]
    assert_equal(rows, expected)
    for row, intact_row in zip(rows, intact.rows, strict=True):
        if not row.document_valid.all():
            check_row_arrays(row, layout)
        masked = (row.document_ids < 0) & (intact_row.document_ids >= 0)
        assert (row.labels[masked] == -100).all()
    unreadable = [
        (planned.number, sample.key)
        for planned in intact.planned
        for document in planned.documents
        for sample in document.samples
        if sample.key in reasons
    ]
    records = read_quarantine(folder / "quarantine.jsonl") if reasons else []
    assert [(record.row, record.key) for record in records] == unreadable
    assert {record.key for record in records} == set(reasons)
    for record in records:
        assert re.search(reasons[record.key], record.reason), record.reason
    assert reasons or not (folder / "quarantine.jsonl").exists()


def read_shard_index(out: Path, shard: str) -> list[dict[str, Any]]:
    """Returns the index entries of a shard, in the order of its samples."""
    entries = [row for row in edit_shard_set.read_index(out) if row["shard"] == f"shards/{shard}.tar"]
    return sorted(entries, key=lambda row: row["offset_bytes"])


def flip_bit(out: Path, row: Mapping[str, Any], offset: int) -> None:
    """Flips one bit of the sample of the index entry `row`, in the byte `offset` of the sample."""
    data = bytearray((out / row["shard"]).read_bytes())
    data[row["offset_bytes"] + offset] ^= 1
    (out / row["shard"]).write_bytes(data)
