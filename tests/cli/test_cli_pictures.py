"""Where a picture is to be written is checked before anything else, and every command says the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ingest.build_inputs import MMPACK, run

COMMANDS = [
    ("mixture", "plan.toml", "--plot"),
    ("pack", "shards", "--plot"),
    ("report", "shards", "--picture"),
    ("show-mask", "--lengths=10,20", "--picture"),
]


@pytest.mark.parametrize(("command", "given", "option"), COMMANDS, ids=[each[0] for each in COMMANDS])
def test_a_picture_is_a_png(command: str, given: str, option: str, tmp_path: Path) -> None:
    done = run([MMPACK, command, given, option, str(tmp_path / "picture.txt")])
    assert done.returncode == 1
    assert done.stderr == f"error: {option}: 'picture.txt' is no name of a PNG. Let it end in .png.\n"
    assert not list(tmp_path.iterdir())
