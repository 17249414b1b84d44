"""Errors of the files that `[[samples]]` names: where they are and where to correct them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmpack.errors import DataError
from mmpack.ingest import SourceConfig
from mmpack.ingest.tasks.sources import count_rows, read_source


def test_a_missing_or_empty_source_file_names_the_source_and_the_build_config(tmp_path: Path) -> None:
    source = SourceConfig(name="t", kind="text", path=str(tmp_path / "x.jsonl"))
    for read in (count_rows, lambda source: list(read_source(source))):
        with pytest.raises(DataError, match="no such file") as caught:
            read(source)
        assert caught.value.where == f"source 't', {tmp_path}/x.jsonl"
        assert caught.value.hint == "Correct the path in the [[samples]] table of the build config."
    (tmp_path / "x.jsonl").touch()
    with pytest.raises(DataError, match="empty") as caught:
        count_rows(source)
    assert "build config" in caught.value.hint


def test_a_missing_or_empty_media_file_names_its_row_and_the_source_file(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": "a", "media": "a.png"}) + "\n")
    source = SourceConfig(
        name="t", kind="image_text", path=str(tmp_path / "x.jsonl"), text="text", media="media"
    )
    with pytest.raises(DataError, match="no such file") as caught:
        list(read_source(source))
    assert caught.value.where == f"{tmp_path}/x.jsonl, row 0, {tmp_path}/a.png"
    assert caught.value.hint == "Correct the path in the source file."
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match="empty") as caught:
        list(read_source(source))
    assert "row" in caught.value.hint
