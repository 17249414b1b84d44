"""`mmpack show-mask`, and rows of a finished build."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmpack import ShardSet
from mmpack.errors import DataError
from mmpack.show.mask.index_rows import index_row_view
from tests.ingest.build_inputs import MMPACK, command, make_inputs, run


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    done = run(command(make_inputs(folder, drives=1), folder / "out", "--workers", "1"))
    assert done.returncode == 0, done.stderr
    return folder / "out"


def test_rows_of_a_build_hold_every_token_once(out: Path) -> None:
    shards = ShardSet(str(out))
    held = dict.fromkeys(shards.manifest.tokens_by_modality, 0)
    with pytest.raises(DataError, match="the build has") as last:
        index_row_view(shards, 10**9, 1024)
    number = int(str(last.value).partition("the build has ")[2].split()[0])
    runs = slices = 0
    for row in (index_row_view(shards, each, 1024) for each in range(number)):
        for piece in row.spans:
            held[piece.modality] += piece.stop - piece.start
        edges = [(piece.start, piece.stop) for piece in row.spans]
        assert [start for start, _ in edges] == [0, *(stop for _, stop in edges[:-1])]
        assert edges[-1][1] == row.cu_seqlens[-1] <= 1024
        vision = sum(piece.stop - piece.start for piece in row.spans if piece.modality == "vision")
        assert np.diff(row.images).sum() == vision
        assert row.slices is not None
        slices += len(row.slices)
        runs += sum(name.startswith("drive") for name in row.modality_names)
    assert number > 1
    assert slices == shards.manifest.slices
    # A run of slices has four special tokens around it that the index does not count.
    expected = dict(shards.manifest.tokens_by_modality)
    expected["special"] += 4 * runs
    assert held == expected


def test_a_sample_longer_than_a_row_is_named(out: Path) -> None:
    with pytest.raises(DataError, match="tokens do not fit in a row of 8"):
        index_row_view(ShardSet(str(out)), 0, 8)


def test_a_build_is_shown_and_drawn(out: Path, tmp_path: Path) -> None:
    picture = tmp_path / "row.png"
    done = run([MMPACK, "show-mask", str(out), "--max-seq-len", "512", "--picture", str(picture)])
    assert done.returncode == 0, done.stderr
    assert "all right" in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_lengths_as_json() -> None:
    done = run(
        [MMPACK, "show-mask", "--lengths", "100,50", "--max-seq-len", "200", "--block-size", "32", "--json"]
    )
    facts = json.loads(done.stdout)
    assert facts["cu_seqlens"] == [0, 100, 150]
    assert facts["fill"] == 0.75
    assert sum(facts["blocks"].values()) == 49
    assert all(check["right"] for check in facts["checks"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give a finished build or --lengths"),
        (["somewhere", "--lengths", "5"], "give a finished build or --lengths"),
        (["--lengths", "5,x"], "'5,x' is not a list"),
        (["--lengths", "5,-2"], "document 1 has -2 places"),
        (["--lengths", "5,6", "--max-seq-len", "10"], "the documents end at 11, the row at 10"),
        (["/nowhere/at/all"], "no manifest"),
    ],
)
def test_bad_input_is_one_line(options: list[str], message: str) -> None:
    done = run([MMPACK, "show-mask", *options])
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
