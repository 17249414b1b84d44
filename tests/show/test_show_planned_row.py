"""HTML page of a row of a plan, built from the shards and annotated with values of the index."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mmpack import BuildConfig, build_shards
from mmpack.cli.show_row import show_row
from mmpack.errors import DataError
from mmpack.ingest import SourceConfig
from mmpack.plan import Plan, open_plan
from mmpack.show.row_page.planned_row import planned_row_html
from mmpack.stream import load_plan_config
from tools.make_recording import CameraSettings, make_recording

PLAN = """\
max_seq_len = 2048
global_batch = 2
window_steps = 2
seed = 3
[[datasets]]
name = "drive"
shards = "shards"
select = ["drive"]
max_epochs = 4
[[datasets]]
name = "texts"
shards = "shards"
select = ["texts"]
max_epochs = 4
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("planned")
    make_recording(root / "drive", CameraSettings(seconds=2.0), seed=1, faults=False, name="drive")
    lines = [json.dumps({"text": f"Text number {index} of the plan. " * 5}) for index in range(40)]
    (root / "texts.jsonl").write_text("\n".join(lines), "utf-8")
    samples = SourceConfig(name="texts", kind="text", path=str(root / "texts.jsonl"))
    config = BuildConfig(recordings=(str(root / "drive"),), samples=(samples,))
    assert build_shards(config, str(root / "shards")).manifest is not None
    (root / "plan.toml").write_text(PLAN, "utf-8")
    return root


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    return open_plan(load_plan_config(folder / "plan.toml"))


def test_page_of_a_planned_row_contains_the_residuals(plan: Plan) -> None:
    number = next(n for n in range(8) if any(d.is_run for d in plan.row(n).documents))
    planned = plan.row(number)
    page = planned_row_html(plan, number)
    slices = [sample for document in planned.documents if document.is_run for sample in document.samples]
    assert page.count('class="note">residual ') == len(slices)
    assert page.count("<details") == len(planned.documents)
    assert all(sample.key in page for document in planned.documents for sample in document.samples[:1])
    assert len(re.findall(r'<img src="data:image/jpeg', page)) == 6 * len(slices)
    assert f"<title>Row {number}</title>" in page


def test_page_of_a_row_is_deterministic(plan: Plan) -> None:
    assert planned_row_html(plan, 2) == planned_row_html(plan, 2)


def test_show_row_command_writes_the_page(plan: Plan, folder: Path, tmp_path: Path) -> None:
    show_row(folder / "plan.toml", 1, tmp_path / "row.html", False)
    assert (tmp_path / "row.html").read_text("utf-8") == planned_row_html(plan, 1, bidirectional_images=False)


def test_a_row_after_the_end_of_the_plan_is_an_error(plan: Plan) -> None:
    with pytest.raises(DataError):
        planned_row_html(plan, 10**6)
