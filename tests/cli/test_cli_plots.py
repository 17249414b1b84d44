"""Every command checks the name of a plot before any work, with the same message."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ingest.build_inputs import MMPACK, run

COMMANDS = {
    "mixture": "plan.toml",
    "pack": "shards",
    "report": "shards",
    "show-mask": "--lengths=10,20",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_plot_that_is_no_png_is_an_error(command: str, tmp_path: Path) -> None:
    done = run([MMPACK, command, COMMANDS[command], "--plot", str(tmp_path / "plot.txt")])
    assert done.returncode == 1
    assert (
        done.stderr
        == "error: --plot: 'plot.txt' is not the name of a PNG file. Use a name that ends in .png.\n"
    )
    assert not list(tmp_path.iterdir())
