"""`mmpack mixture` over shard sets: the forecast agrees with the rows of the plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from mmpack.cli.mixture import mixture
from mmpack.errors import ConfigError, IntegrityError, StorageError
from mmpack.plan import open_plan
from mmpack.plan.plan_config import PlanConfig
from mmpack.settings import load_settings
from tests.plan.small_plans import NAMES, all_rows, make_small_index

app = typer.Typer()
app.command()(mixture)

PHASES = """
[[phases]]
name = "cold"
tokens = "50k"
temperature = 1.2

[[phases]]
name = "mid"
tokens = "300k"
temperature = [3.0, 5.0]
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixture")
    make_small_index(folder / "build")
    datasets = "".join(
        f'[[datasets]]\nname = "{name}"\nshards = "build"\nselect = ["{name}"]\nlocality = 8\n'
        + ("max_epochs = 1\n" if name == "robot" else "")
        for name in NAMES
    )
    path = folder / "plan.toml"
    path.write_text(f"max_seq_len = 1024\nglobal_batch = 8\nwindow_steps = 4\n{datasets}{PHASES}")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def test_the_forecast_agrees_with_the_rows(plan: Path) -> None:
    report = json.loads(run(plan, "--json").stdout)
    opened_plan = open_plan(load_settings(plan, PlanConfig).resolve_paths(plan.parent), window_starts=False)
    tokens = dict.fromkeys(NAMES, 0)
    for row in all_rows(opened_plan):
        for document in row.documents:
            tokens[NAMES[document.dataset]] += document.tokens
    total = sum(tokens.values())
    # The rows end with the last full step, at most one step before the end of the phases.
    assert report["tokens"] == 350_000
    assert 350_000 - 3 * 8 * 1024 < total <= 350_000 + 8 * 1024
    for name in NAMES:
        assert tokens[name] / total == pytest.approx(report["datasets"][name]["tokens"] / 350_000, abs=0.02)
    assert report["datasets"]["robot"]["epochs"] == pytest.approx(1)
    assert [finding["dataset"] for finding in report["findings"] if finding["kind"] == "cap"] == ["robot"]
    assert sum(report["phases"][0]["tokens"].values()) == pytest.approx(50_000, abs=4)


def test_text_output_and_plot(plan: Path, tmp_path: Path) -> None:
    done = run(plan, "--tokens", "200k", "--plot", tmp_path / "mixture.png")
    for text in ("cold", "mid", "50k – 200k", "robot", "reached", "its share goes to", "plot:"):
        assert text in done.stdout
    assert (tmp_path / "mixture.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_data_set_or_token_count_is_an_error(plan: Path) -> None:
    wrong = plan.with_name("wrong.toml")
    wrong.write_text(plan.read_text() + '[[phases]]\nname = "hot"\ndatasets = ["robto"]\n')
    with pytest.raises(ConfigError, match=r"phases\.hot\.datasets.*'robto'.*Did you mean 'robot'"):
        run(wrong)
    with pytest.raises(ConfigError, match="--tokens"):
        run(plan, "--tokens", "soon")


def _plan_of_shard_set(folder: Path) -> Path:
    """Writes a plan whose only data set is in the folder `shard-set` next to it."""
    path = folder / "plan.toml"
    path.write_text('max_seq_len = 64\nglobal_batch = 4\n[[datasets]]\nname = "web"\nshards = "shard-set"\n')
    return path


def test_a_missing_folder_of_a_data_set_is_an_error_with_file_data_set_and_path(tmp_path: Path) -> None:
    path = _plan_of_shard_set(tmp_path)
    with pytest.raises(StorageError) as caught:
        run(path)
    assert str(caught.value) == (
        f"{path} [datasets.web.shards]: shard set {tmp_path / 'shard-set'}: there is no such folder. "
        "Check the path; a relative path starts at the folder of the plan file."
    )


def test_a_folder_without_a_manifest_is_an_unfinished_build(tmp_path: Path) -> None:
    path = _plan_of_shard_set(tmp_path)
    (tmp_path / "shard-set").mkdir()
    with pytest.raises(IntegrityError) as caught:
        run(path)
    assert str(caught.value) == (
        f"{path} [datasets.web.shards]: shard set {tmp_path / 'shard-set'}: the build is not finished: "
        "there is no manifest.json. Run `mmpack build-shards` again to resume the build."
    )


def test_an_error_of_a_data_set_names_the_plan_file(plan: Path, tmp_path: Path) -> None:
    text = plan.read_text().replace('select = ["robot"]', 'select = ["robots"]')
    path = tmp_path / "plan.toml"
    path.write_text(text.replace('"build"', f'"{plan.parent / "build"}"'))
    with pytest.raises(ConfigError, match="no recording or source of") as caught:
        run(path)
    assert caught.value.where == f"{path} [datasets.robot]"
