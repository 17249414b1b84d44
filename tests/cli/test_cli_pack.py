"""`mmpack pack` on a shard set: the output agrees with the index."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mmpack import ShardSet
from mmpack.packing import RunLengths, pack_runs
from mmpack.plan.index_runs import load_index_runs
from mmpack.shards.index import MODALITY_COLUMNS
from tests.ingest.build_inputs import MMPACK, build_command, make_inputs, run


@pytest.fixture(scope="module")
def shard_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    assert run(build_command(make_inputs(folder), folder / "out", "-j", "0")).returncode == 0
    return folder / "out"


def mmpack(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run([MMPACK, *map(str, arguments)])


def test_runs_agree_with_the_index(shard_set: Path) -> None:
    shards = ShardSet(str(shard_set))
    runs = load_index_runs(shards.index, shards.manifest)
    rows = shards.index.to_pylist()
    assert runs.offsets[0] == 0
    assert runs.offsets[-1] == len(rows) == len(runs.lengths)
    for start, stop, overhead in zip(runs.offsets, runs.offsets[1:], runs.overhead, strict=False):
        members = rows[start:stop]
        assert len({(row["recording"], row["run"], row["kind"]) for row in members}) == 1
        ordinals = [row["ordinal"] for row in members]
        assert ordinals == list(range(ordinals[0], ordinals[0] + len(members)))
        assert overhead == (4 if members[0]["kind"] == "slice" else 0)
        assert members[0]["kind"] == "slice" or len(members) == 1
    assert sum(runs.by_modality[name].sum() for name in MODALITY_COLUMNS) == runs.lengths.sum()
    # One drive has faults: its quarantined slices split its runs.
    assert len(runs.offsets) - 1 > 40 + 12 + 5 + 2


def test_the_json_output_agrees_with_the_library(shard_set: Path) -> None:
    done = mmpack("pack", shard_set, "--max-seq-len", 512, "--ranks", 4, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    shards = ShardSet(str(shard_set))
    runs = load_index_runs(shards.index, shards.manifest)
    run_packing = pack_runs(RunLengths(runs.lengths, runs.offsets, runs.overhead), 512)
    assert (report["rows"], report["documents"], report["cuts"]) == (
        run_packing.packing.rows,
        len(run_packing.lengths),
        run_packing.cuts,
    )
    assert sum(report["share_of_positions"].values()) == pytest.approx(1)
    assert report["share_of_positions"]["padding"] == pytest.approx(1 - report["fill"])
    assert report["share_of_positions"]["document_overhead"] > 0
    assert (report["runs"], report["forced_cuts"]) == (len(runs.overhead), run_packing.forced_cuts)
    assert report["rows"] >= report["rows_lower_bound"]
    assert report["steps"] * 4 + report["unscheduled_rows"] == report["rows"]
    assert 0 < report["utilisation_worst_step"] <= report["utilisation"] <= 1
    assert (
        np.add.reduceat(run_packing.lengths[run_packing.packing.ids], run_packing.packing.offsets[:-1]).max()
        <= 512
    )


def test_text_output_and_plot(shard_set: Path, tmp_path: Path) -> None:
    done = mmpack("pack", shard_set, "--max-seq-len", 1024, "--plot", tmp_path / "pack.png")
    assert done.returncode == 0, done.stderr
    for word in ("rows", "fill", "documents", "cuts", "balance", "rows are needed"):
        assert word in done.stdout
    assert (tmp_path / "pack.png").read_bytes().startswith(b"\x89PNG")


def test_a_slice_longer_than_a_row_is_an_error_that_names_the_slice(shard_set: Path) -> None:
    done = mmpack("pack", shard_set, "--max-seq-len", 20)
    assert done.returncode == 1
    assert "longer than a row of 20 positions" in done.stderr
    assert "drive-000-00000000" in done.stderr or "sample '" in done.stderr
    assert "--max-seq-len to" in done.stderr


def test_ranks_that_cannot_share_a_batch_are_an_error(shard_set: Path) -> None:
    done = mmpack("pack", shard_set, "--ranks", 3, "--global-batch", 4, "--max-seq-len", 512)
    assert done.returncode == 1
    assert "3 ranks cannot share 4 rows" in done.stderr


@pytest.mark.parametrize("option", ["--quadratic", "--linear"])
@pytest.mark.parametrize(
    ("factor", "message"),
    [
        ("inf", "inf is not a finite number"),
        ("1e308", "exceed the largest float"),
    ],
)
def test_a_cost_factor_that_is_not_finite_or_overflows_is_an_error(
    shard_set: Path, option: str, factor: str, message: str
) -> None:
    done = mmpack("pack", shard_set, "--max-seq-len", 512, option, factor)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert option in line
    assert message in line
