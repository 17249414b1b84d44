"""A sound run over a small build, and what a run over a damaged copy of it must be."""

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

Losses = Mapping[str, str]
"""Keys of samples that cannot be read, and what the record has to say of each."""


@dataclass(frozen=True)
class IntactRun:
    """A build in `folder/out`, its plan in `folder/plan.toml`, and the rows of the whole run."""

    folder: Path
    plan: Plan
    planned: list[PlannedRow]
    rows: list[Row]

    def copy(self, to: Path) -> Path:
        """The folder once more, to be damaged."""
        return Path(shutil.copytree(self.folder, to / "run"))


def make_intact_run(folder: Path, inputs: Path) -> IntactRun:
    """Builds a drive with gaps, texts, captions and speech, and reads them all twice."""
    config = load_settings(make_inputs(inputs, drives=1), BuildConfig).resolve_paths(inputs)
    assert build_shards(config, str(folder / "out")).failures == []
    (folder / "plan.toml").write_text(PLAN)
    with RowStream.open(folder / "plan.toml") as stream:
        rows, plan = list(stream), stream.plan
    assert not (folder / "quarantine.jsonl").exists()
    return IntactRun(folder, plan, [plan.row(row.number) for row in rows], rows)


def read_rows(folder: Path | str, **reader: Any) -> list[Row]:
    """All rows of a run."""
    with RowStream.open(Path(folder) / "plan.toml", reader=reader) as stream:
        return list(stream)


def assert_equal(found: list[Row], expected: list[Row]) -> None:
    """To the bit."""
    assert [row.number for row in found] == [row.number for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.keys == other.keys
        for name, array in one.arrays().items():
            same = getattr(other, name)
            assert (array.dtype, array.shape) == (same.dtype, same.shape), (one.number, name)
            assert array.tobytes() == same.tobytes(), (one.number, name)


def assert_masked(folder: Path, found: list[Row], sound: IntactRun, losses: Losses) -> None:
    """The rows are the sound ones without `losses`, each of which is on record wherever it was met."""
    layout = sound.plan.layout
    expected = [
        row_without(row, planned, losses, layout)
        for row, planned in zip(sound.rows, sound.planned, strict=True)
    ]
    assert_equal(found, expected)
    for row, whole in zip(found, sound.rows, strict=True):
        if not row.document_valid.all():
            check_row_arrays(row, layout)
        masked = (row.document_ids < 0) & (whole.document_ids >= 0)
        assert (row.labels[masked] == -100).all()
    met = [
        (planned.number, sample.key)
        for planned in sound.planned
        for document in planned.documents
        for sample in document.samples
        if sample.key in losses
    ]
    recorded = read_quarantine(folder / "quarantine.jsonl") if losses else []
    assert [(fault.row, fault.key) for fault in recorded] == met
    assert {fault.key for fault in recorded} == set(losses)
    for fault in recorded:
        assert re.search(losses[fault.key], fault.reason), fault.reason
    assert losses or not (folder / "quarantine.jsonl").exists()


def of_shard(out: Path, shard: str) -> list[dict[str, Any]]:
    """The samples of a shard, in its order."""
    found = [row for row in edit_shard_set.read_index(out) if row["shard"] == f"shards/{shard}.tar"]
    return sorted(found, key=lambda row: row["offset_bytes"])


def flip_bit(out: Path, row: Mapping[str, Any], place: int) -> None:
    data = bytearray((out / row["shard"]).read_bytes())
    data[row["offset_bytes"] + place] ^= 1
    (out / row["shard"]).write_bytes(data)
