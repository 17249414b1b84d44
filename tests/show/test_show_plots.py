"""The registry of plots: every function exists, files are PNGs, and errors name the option or the file."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from mmpack.errors import ConfigError, StorageError
from mmpack.packing import RunLengths, pack_runs, row_costs
from mmpack.show.plots import PLOTS, require_png_suffix, write_plot


@pytest.mark.parametrize("name", PLOTS)
def test_every_plot_names_an_existing_function(name: str) -> None:
    module, function = PLOTS[name].function.split(":")
    assert callable(getattr(import_module(module), function))
    assert PLOTS[name].content


def test_write_plot_writes_a_png(tmp_path: Path) -> None:
    packing = pack_runs(RunLengths([30, 60, 40], [0, 1, 2, 3]), 100)
    costs = row_costs(packing.packing, packing.lengths, quadratic=1.0, linear=0.0)
    path = tmp_path / "packing.PNG"
    write_plot("packing", path, packing, costs, 100)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_an_empty_packing_can_be_plotted(tmp_path: Path) -> None:
    packing = pack_runs(RunLengths([], [0]), 100)
    write_plot("packing", tmp_path / "empty.png", packing, [], 100)
    assert (tmp_path / "empty.png").read_bytes().startswith(b"\x89PNG")


def test_write_plot_errors_name_the_option_or_the_file(tmp_path: Path) -> None:
    packing = pack_runs(RunLengths([30], [0, 1]), 100)
    with pytest.raises(ConfigError, match=r"--plot: 'a\.pdf' is not the name of a PNG file"):
        write_plot("packing", tmp_path / "a.pdf", packing, [1.0], 100)
    path = tmp_path / "missing" / "a.png"
    with pytest.raises(StorageError, match=f"{path}: writing failed"):
        write_plot("packing", path, packing, [1.0], 100)
    assert not list(tmp_path.iterdir())


def test_the_suffix_check_accepts_no_plot_and_any_case() -> None:
    require_png_suffix(None)
    require_png_suffix(Path("A.PNG"))
    with pytest.raises(ConfigError):
        require_png_suffix(Path("png"))


def test_the_registry_and_the_commands_do_not_import_matplotlib() -> None:
    code = "import sys, mmpack.cli, mmpack.show.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
