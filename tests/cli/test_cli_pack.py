"""`mmpack pack` on a real build: what it prints is true of the index it was planned from."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mmpack import ShardSet
from mmpack.packing import pack_runs
from mmpack.plan.index_runs import load_index_runs
from mmpack.shards.index import MODALITY_COLUMNS
from tests.ingest.build_inputs import MMPACK, build_command, make_inputs, run


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    assert run(build_command(make_inputs(folder), folder / "out", "-j", "0")).returncode == 0
    return folder / "out"


def mmpack(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run([MMPACK, *map(str, arguments)])


def test_chains_are_the_runs_of_the_index(built: Path) -> None:
    shards = ShardSet(str(built))
    chains = load_index_runs(shards.index, shards.manifest)
    rows = shards.index.to_pylist()
    assert chains.offsets[0] == 0
    assert chains.offsets[-1] == len(rows) == len(chains.lengths)
    for start, stop, overhead in zip(chains.offsets, chains.offsets[1:], chains.overhead, strict=False):
        members = rows[start:stop]
        assert len({(row["recording"], row["run"], row["kind"]) for row in members}) == 1
        ordinals = [row["ordinal"] for row in members]
        assert ordinals == list(range(ordinals[0], ordinals[0] + len(members)))
        assert overhead == (4 if members[0]["kind"] == "slice" else 0)
        assert members[0]["kind"] == "slice" or len(members) == 1
    assert sum(chains.by_modality[name].sum() for name in MODALITY_COLUMNS) == chains.lengths.sum()
    # One drive has faults: what was set aside parts its runs.
    assert len(chains.offsets) - 1 > 40 + 12 + 5 + 2


def test_the_plan_is_the_librarys(built: Path) -> None:
    done = mmpack("pack", built, "--max-seq-len", 512, "--ranks", 4, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    shards = ShardSet(str(built))
    chains = load_index_runs(shards.index, shards.manifest)
    planned = pack_runs(chains.lengths, chains.offsets, 512, overhead=chains.overhead)
    assert (facts["rows"], facts["documents"], facts["cuts"]) == (
        planned.packing.rows,
        len(planned.lengths),
        planned.cuts,
    )
    assert sum(facts["share_of_places"].values()) == pytest.approx(1)
    assert facts["rows"] >= facts["rows_lower_bound"]
    assert facts["steps"] * 4 + facts["rows_left"] == facts["rows"]
    assert 0 < facts["utilisation_worst_step"] <= facts["utilisation"] <= 1
    assert np.add.reduceat(planned.lengths[planned.packing.ids], planned.packing.offsets[:-1]).max() <= 512


def test_in_words_and_as_a_picture(built: Path, tmp_path: Path) -> None:
    done = mmpack("pack", built, "--max-seq-len", 1024, "--plot", tmp_path / "pack.png")
    assert done.returncode == 0, done.stderr
    for word in ("rows", "fill", "documents", "cuts", "balance", "rows are needed"):
        assert word in done.stdout
    assert (tmp_path / "pack.png").read_bytes().startswith(b"\x89PNG")


def test_a_slice_longer_than_a_row_is_named(built: Path) -> None:
    done = mmpack("pack", built, "--max-seq-len", 20)
    assert done.returncode == 1
    assert "longer than a row of 20 places" in done.stderr
    assert "drive-000-00000000" in done.stderr or "sample '" in done.stderr
    assert "--max-seq-len to" in done.stderr


def test_ranks_that_cannot_share_a_batch(built: Path) -> None:
    done = mmpack("pack", built, "--ranks", 3, "--global-batch", 4, "--max-seq-len", 512)
    assert done.returncode == 1
    assert "3 ranks cannot share 4 rows" in done.stderr
