"""`mmpack mixture` over builds: what it forecasts is what the plan's rows hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from mmpack.cli.mixture import mixture
from mmpack.errors import ConfigError
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
    return CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)


def test_the_forecast_is_what_the_rows_hold(plan: Path) -> None:
    facts = json.loads(run(plan, "--json").stdout)
    opened = open_plan(load_settings(plan, PlanConfig).resolve_paths(plan.parent), ledger=False)
    held = dict.fromkeys(NAMES, 0)
    for row in all_rows(opened):
        for document in row.documents:
            held[NAMES[document.dataset]] += document.tokens
    total = sum(held.values())
    # The rows end with the last whole step, a step before the phases do at most.
    assert facts["tokens"] == 350_000
    assert 350_000 - 3 * 8 * 1024 < total <= 350_000 + 8 * 1024
    for name in NAMES:
        assert held[name] / total == pytest.approx(facts["datasets"][name]["tokens"] / 350_000, abs=0.02)
    assert facts["datasets"]["robot"]["epochs"] == pytest.approx(1)
    assert [finding["dataset"] for finding in facts["findings"] if finding["kind"] == "cap"] == ["robot"]
    assert sum(facts["phases"][0]["tokens"].values()) == pytest.approx(50_000, abs=4)


def test_in_words_and_as_a_picture(plan: Path, tmp_path: Path) -> None:
    done = run(plan, "--tokens", "200k", "--plot", tmp_path / "mixture.png")
    for text in ("cold", "mid", "50k – 200k", "robot", "reached", "its share goes to", "picture:"):
        assert text in done.stdout
    assert (tmp_path / "mixture.png").read_bytes().startswith(b"\x89PNG")


def test_a_data_set_that_is_not_there(plan: Path) -> None:
    wrong = plan.with_name("wrong.toml")
    wrong.write_text(plan.read_text() + '[[phases]]\nname = "hot"\ndatasets = ["robto"]\n')
    with pytest.raises(ConfigError, match=r"phases\.hot\.datasets.*'robto'.*Did you mean 'robot'"):
        run(wrong)
    with pytest.raises(ConfigError, match="--tokens"):
        run(plan, "--tokens", "soon")
