"""`mmpack show-mask`, and row views of a shard set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmpack import ShardSet
from mmpack.errors import DataError
from mmpack.layout import Modality
from mmpack.show.mask.index_rows import index_row_view
from tests.ingest.build_inputs import MMPACK, build_command, make_inputs, run


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    result = run(build_command(make_inputs(folder, drives=1), folder / "out", "--workers", "1"))
    assert result.returncode == 0, result.stderr
    return folder / "out"


def test_rows_of_a_shard_set_contain_every_token_once(out: Path) -> None:
    shards = ShardSet(str(out))
    counts = dict.fromkeys(shards.manifest.tokens_by_modality, 0)
    with pytest.raises(DataError, match="the shard set has") as caught:
        index_row_view(shards, 10**9, 1024)
    num_rows = int(str(caught.value).partition("the shard set has ")[2].split()[0])
    runs = slices = 0
    for row in (index_row_view(shards, number, 1024) for number in range(num_rows)):
        for span in row.spans:
            counts[span.modality.name.lower()] += span.num_positions
        edges = [(span.start, span.stop) for span in row.spans]
        assert [start for start, _ in edges] == [0, *(stop for _, stop in edges[:-1])]
        assert edges[-1][1] == row.cu_seqlens[-1] <= 1024
        vision = sum(span.num_positions for span in row.spans if span.modality == Modality.VISION)
        assert np.diff(row.image_spans).sum() == vision
        images = [(span.start, span.stop) for span in row.spans if span.image >= 0]
        assert [span.image for span in row.spans if span.image >= 0] == list(range(len(images)))
        assert images == [tuple(image) for image in row.image_spans.tolist()]
        assert row.slices is not None
        slices += len(row.slices)
        runs += sum(name.startswith("drive") for name in row.document_names)
    assert num_rows > 1
    assert slices == shards.manifest.slices
    # The prefix and suffix of a run have four special tokens that the index does not count.
    expected = dict(shards.manifest.tokens_by_modality)
    expected["special"] += 4 * runs
    assert counts == expected


def test_a_sample_longer_than_a_row_is_an_error(out: Path) -> None:
    with pytest.raises(DataError, match="tokens do not fit in a row of 8"):
        index_row_view(ShardSet(str(out)), 0, 8)


def test_show_mask_prints_and_plots_a_row(out: Path, tmp_path: Path) -> None:
    plot = tmp_path / "row.png"
    result = run([MMPACK, "show-mask", str(out), "--max-seq-len", "512", "--plot", str(plot)])
    assert result.returncode == 0, result.stderr
    assert "all correct" in result.stdout
    assert result.stdout.endswith(f"plot: {plot}\n")
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_lengths_option_with_json_output() -> None:
    result = run(
        [MMPACK, "show-mask", "--lengths", "100,50", "--max-seq-len", "200", "--block-size", "32", "--json"]
    )
    report = json.loads(result.stdout)
    assert report["cu_seqlens"] == [0, 100, 150]
    assert report["fill"] == 0.75
    assert sum(report["blocks"].values()) == 49
    assert all(check["passed"] for check in report["checks"])


def test_causal_rows_have_no_image_spans(out: Path) -> None:
    spans = {
        option: json.loads(run([MMPACK, "show-mask", str(out), option, "--json"]).stdout)["image_spans"]
        for option in ("--bidirectional-images", "--causal")
    }
    assert spans["--bidirectional-images"]
    assert spans["--causal"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "exactly one of a shard set and --lengths is required"),
        (["somewhere", "--lengths", "5"], "exactly one of a shard set and --lengths is required"),
        (["--lengths", "5,x"], "'5,x' is not a list"),
        (["--lengths", "5,-2"], "document 1 has -2 positions"),
        (["--lengths", "0"], "--lengths: document 0 has 0 positions. Every length is at least 1."),
        (
            ["--lengths", "5,6", "--max-seq-len", "10"],
            "the documents end at position 11, but the row ends at 10",
        ),
        (["/nowhere/at/all"], "/nowhere/at/all: there is no such folder. Check the path."),
    ],
)
def test_bad_input_gives_one_line_on_stderr(options: list[str], message: str) -> None:
    result = run([MMPACK, "show-mask", *options])
    assert result.returncode == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
