"""The commands of the stream on a small build: what they print is the library's, and bad input is one clear line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpack.ingest import BuildConfig, build_shards
from mmpack.layout import Modality
from mmpack.mixture.forecast import forecast_mixture
from mmpack.plan.balance_report import compare_balance_modes
from mmpack.quarantine import QuarantineRecord, read_quarantine
from mmpack.settings import load_settings
from mmpack.show.mixture_table import forecast_report as mixture_facts
from mmpack.show.row_page.planned_row import planned_row_html
from mmpack.stream import RowStream, load_plan_config, open_plan
from mmpack.stream.replay import replay_quarantine
from tests.ingest.build_inputs import MMPACK, make_inputs, run

PLAN = """\
max_seq_len = 512
global_batch = 4
window_steps = 2
seed = 4

[reader]
retries = 0

[[datasets]]
name = "drive"
shards = "out"
select = ["drive-*"]
max_epochs = 2

[[datasets]]
name = "rest"
shards = "out"
select = ["texts", "captions", "speech"]
max_epochs = 2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build in `out` and its plan in `plan.toml`."""
    made, folder = tmp_path_factory.mktemp("inputs"), tmp_path_factory.mktemp("stream")
    config = load_settings(make_inputs(made, drives=1), BuildConfig).resolve_paths(made)
    assert build_shards(config, str(folder / "out")).failures == []
    (folder / "plan.toml").write_text(PLAN)
    return folder


@pytest.fixture
def plan(folder: Path) -> Path:
    return folder / "plan.toml"


@pytest.fixture
def damaged(folder: Path, tmp_path: Path) -> Path:
    """The folder once more, with a shard of captions gone, a text that lost a bit, and the record of a run."""
    copy = Path(shutil.copytree(folder, tmp_path / "damaged"))
    (copy / "out" / "shards" / "captions-00000.tar").rename(copy / "away.tar")
    shard = copy / "out" / "shards" / "texts-00000.tar"
    data = shard.read_bytes()
    shard.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with RowStream.open(copy / "plan.toml") as stream:
        assert sum(1 for _ in stream) > 8
    return copy


def mmpack(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A command in this process: the whole of `main`, without the seconds that importing takes."""
    from mmpack.cli import main

    stdout, stderr = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.setattr(sys, "argv", ["mmpack", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
    return subprocess.CompletedProcess(sys.argv, int(code), stdout.getvalue(), stderr.getvalue())


def told(*arguments: object) -> Any:
    """The JSON of a command that ends well."""
    done = mmpack(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)


def line_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a refusal."""
    assert done.returncode == 1, (done.returncode, done.stdout[-500:], done.stderr)
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def test_stream_tells_of_the_rows_it_read(plan: Path) -> None:
    facts = told("stream", plan, "--rows", 5, "--first-step", 1, "--rank", 1, "--ranks", 2)
    with RowStream.open(plan, rank=1, ranks=2) as stream:
        stream.seek(1)
        rows = [next(stream) for _ in range(5)]
    assert {row.number // 4 for row in rows} == {1, 2, 3}
    assert facts["rows"] == 5
    assert facts["tokens"] == sum(row.tokens for row in rows)
    assert facts["documents"] == sum(len(row.keys) for row in rows)
    assert facts["fill"] == pytest.approx(facts["tokens"] / (5 * 512))
    lengths = np.concatenate([np.diff(row.cu_seqlens) for row in rows])
    dataset = np.concatenate([row.datasets for row in rows])
    for number, name in enumerate(("drive", "rest")):
        share = lengths[dataset == number].sum() / lengths.sum()
        assert facts["datasets"][name] == pytest.approx(share)
    places = np.concatenate([row.modality[row.document_ids >= 0] for row in rows])
    for each in Modality:
        assert facts["modalities"][each.name.lower()] == pytest.approx((places == each).sum() / (5 * 512))
    assert facts["unreadable"] == 0


def test_stream_in_words(plan: Path) -> None:
    done = run([MMPACK, "stream", str(plan), "--rows", "4"])
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("rows", "documents", "fill", "drive", "rest", "vision", "unreadable", "0 samples"):
        assert word in done.stdout
    assert "rate" not in done.stdout


def test_benchmark_near_the_end_of_the_run(plan: Path) -> None:
    steps = sum(1 for _ in open_plan(load_plan_config(plan)).steps())
    facts = told("stream", plan, "--benchmark", "--first-step", steps - 1)
    assert facts["rows"] == 4
    assert set(facts["one_row_ms"]) == {"plan", "read", "decode"}
    assert all(ms > 0 for ms in facts["one_row_ms"].values())
    for rate in ("rows_per_s", "tokens_per_s", "mb_per_s", "open_s", "first_row_s"):
        assert facts[rate] > 0


def test_benchmark_in_words_and_workers(plan: Path) -> None:
    done = mmpack("stream", plan, "--benchmark", "--rows", 3, "--workers", 1, "--threads", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert "(1 workers, 1 threads)" in done.stdout
    assert "CPU time of one thread" in done.stdout


def test_balance_is_the_librarys(plan: Path) -> None:
    facts = told("stream", plan, "--balance", "--ranks", 2)
    expected = compare_balance_modes(open_plan(load_plan_config(plan)), ranks=2, windows=4)
    assert facts == {"ranks": 2, "in_force": "rank", "modes": [asdict(each) for each in expected]}
    done = mmpack("stream", plan, "--balance", "--ranks", 2)
    assert (done.returncode, done.stderr) == (0, "")
    assert "rank (in force)" in done.stdout
    for each in expected:
        assert f"{each.utilisation:.4f}" in done.stdout


def test_mixture_is_the_librarys(plan: Path) -> None:
    facts = told("mixture", plan)
    opened = open_plan(load_plan_config(plan))
    seen = forecast_mixture(opened.schedule, [each.tokens for each in opened.datasets], [2.0, 2.0])
    expected = mixture_facts(seen, [2.0, 2.0], [each.num_documents for each in opened.datasets])
    assert facts == json.loads(json.dumps(expected))
    assert facts["datasets"]["rest"]["epoch_documents"] == 40 + 12 + 5
    assert facts["datasets"]["drive"]["epochs"] == pytest.approx(2, rel=0.02)


def test_show_row_writes_the_librarys_page(plan: Path, tmp_path: Path) -> None:
    page = tmp_path / "row.html"
    done = mmpack("show-row", plan, 3, "--out", page)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"page: {page}\n"
    assert page.read_text("utf-8") == planned_row_html(open_plan(load_plan_config(plan)), 3)


def test_replay_tells_what_is_readable_now(damaged: Path, tmp_path: Path) -> None:
    record, plan = damaged / "quarantine.jsonl", damaged / "plan.toml"
    faults = read_quarantine(record)
    assert len({(fault.row, fault.key) for fault in faults}) >= 10
    done = mmpack("replay", record, plan, "--json")
    count = len({(fault.row, fault.key) for fault in faults})
    assert f"{count} of {count} samples cannot be read, the first '" in line_of(done)
    found = json.loads(done.stdout)
    assert [(each["row"], each["key"], each["outcome"]) for each in found] == [
        (fault.row, fault.key, "same") for fault in dict.fromkeys(faults)
    ]
    # The captions are back, the text is not, and its shard is damaged in another way now.
    (damaged / "away.tar").rename(damaged / "out" / "shards" / "captions-00000.tar")
    (damaged / "out" / "shards" / "texts-00000.tar").write_bytes(b"")
    done = mmpack("replay", record, plan)
    texts = {fault.key for fault in faults if fault.key.startswith("texts")}
    assert len(texts) == 1
    assert f"2 of {count} samples cannot be read, the first '{texts.pop()}': " in line_of(done)
    assert done.stdout.count("readable now") == count - 2
    assert done.stdout.count("another fault") == 2


def test_replay_ends_well_when_all_is_mended(folder: Path, damaged: Path, tmp_path: Path) -> None:
    record, plan = damaged / "quarantine.jsonl", folder / "plan.toml"
    found = told("replay", record, plan)
    assert {each["outcome"] for each in found} == {"readable"}
    faults = read_quarantine(record)
    assert replay_quarantine(open_plan(load_plan_config(plan)), [*faults, *faults]) == replay_quarantine(
        open_plan(load_plan_config(plan)), faults
    )
    page = tmp_path / "page.html"
    done = mmpack("replay", record, plan, "--line", 2, "--out", page)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"page: {page}\n")
    assert page.read_text("utf-8") == planned_row_html(open_plan(load_plan_config(plan)), faults[1].row)
    found = told("replay", record, plan, "--key", faults[0].key)
    assert {each["key"] for each in found} == {faults[0].key}
    (tmp_path / "none.jsonl").write_text("")
    assert told("replay", tmp_path / "none.jsonl", plan) == []


def test_a_record_holds_in_another_folder(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was given a relative path records where its shards are, not where it stood."""
    (damaged / "quarantine.jsonl").unlink()
    monkeypatch.chdir(damaged)
    done = mmpack("stream", "plan.toml", "--rows", 100)
    assert (done.returncode, done.stderr) == (0, "")
    monkeypatch.chdir("/")
    faults = read_quarantine(damaged / "quarantine.jsonl")
    missing = next(fault for fault in faults if "captions" in fault.key)
    assert missing.reason.startswith(f"{damaged / 'out' / 'shards' / 'captions-00000.tar'}: ")
    found = replay_quarantine(open_plan(load_plan_config(damaged / "plan.toml")), faults)
    assert {each.outcome for each in found} == {"same"}


def test_a_cache_does_not_hide_the_damage(damaged: Path, folder: Path, tmp_path: Path) -> None:
    text = (folder / "plan.toml").read_text().replace("[reader]\n", f'[reader]\ncache = "{tmp_path}/cache"\n')
    for place in (folder, damaged):
        (place / "cached.toml").write_text(text.replace('"out"', f'"{damaged / "out"}"'))
    shard = damaged / "out" / "shards" / "captions-00000.tar"
    (damaged / "away.tar").rename(shard)
    with RowStream.open(damaged / "cached.toml") as stream:
        assert sum(1 for _ in stream) > 8
    shard.unlink()
    captions = [fault for fault in read_quarantine(damaged / "quarantine.jsonl") if "captions" in fault.key]
    found = replay_quarantine(open_plan(load_plan_config(damaged / "cached.toml")), captions[:2])
    assert {each.outcome for each in found} == {"same"}


@pytest.mark.parametrize(("old", "new"), [("seed = 4", "seed = 5"), ("max_epochs = 2", "max_epochs = 0.3")])
def test_replay_of_another_plan_says_so(damaged: Path, old: str, new: str) -> None:
    plan = damaged / "other.toml"
    plan.write_text(PLAN.replace(old, new))
    opened = open_plan(load_plan_config(plan))
    faults = read_quarantine(damaged / "quarantine.jsonl")
    held = []
    for fault in faults:
        rows = [opened.row(fault.row)] if fault.row < 4 * len(list(opened.steps())) else []
        keys = {sample.key for row in rows for document in row.documents for sample in document.samples}
        held.append(fault.key in keys)
    line = next(number for number, is_held in enumerate(held, start=1) if not is_held)
    done = mmpack("replay", damaged / "quarantine.jsonl", plan, "--line", line)
    assert "1 of 1 faults are not of this plan" in line_of(done)
    assert "Give the plan of the run" in done.stderr
    assert "not in this row" in done.stdout


def write_fault(path: Path, **changes: Any) -> None:
    fault = {
        "row": 0,
        "key": "texts-00000000",
        "shard": "s",
        "offset_bytes": 0,
        "size_bytes": 1,
        "reason": "[bold]no markup",
        "rank": 0,
        "date": "2026-01-01T00:00:00+00:00",
    }
    path.write_text(json.dumps(fault | changes) + "\n")


def test_replay_takes_no_row_on_trust(plan: Path, tmp_path: Path) -> None:
    record = tmp_path / "quarantine.jsonl"
    for row in (-1, -(1 << 62), 1000, (1 << 63) - 1):
        write_fault(record, row=row)
        (found,) = replay_quarantine(open_plan(load_plan_config(plan)), read_quarantine(record))
        assert isinstance(found.sample, QuarantineRecord)
        assert (found.outcome, bool(found.reason)) == ("absent", True)
    write_fault(record, key="[red]key[/]", row=2)
    done = mmpack("replay", record, plan)
    assert "[red]key[/]" in done.stdout
    assert "row 2 of this plan does not contain this sample" in line_of(done)


Refused = Callable[[Path, Path], tuple[tuple[object, ...], tuple[str, ...]]]


def no_plan(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    return ("stream", tmp / "none.toml"), ("none.toml", "no such file")


def other_plan(tmp: Path, old: str, new: str, folder: Path) -> Path:
    text = PLAN.replace(old, new).replace('"out"', f'"{folder / "out"}"')
    (tmp / "plan.toml").write_text(text)
    return tmp / "plan.toml"


def unknown_key(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    plan = other_plan(tmp, "window_steps", "window_stepz", folder)
    return ("stream", plan), ("plan.toml", "unknown key", "Did you mean 'window_steps'?")


def unknown_dataset_key(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    plan = other_plan(tmp, 'select = ["drive-*"]', 'selekt = ["drive-*"]', folder)
    return ("mixture", plan), ("datasets", "Did you mean 'select'?")


def unknown_recording(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    plan = other_plan(tmp, "drive-*", "drvie-000", folder)
    return ("show-row", plan), ("datasets.drive", "Did you mean 'drive-000'?")


def no_shards(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    (tmp / "plan.toml").write_text(PLAN)
    return ("stream", tmp / "plan.toml"), (str(tmp / "out"),)


def step_behind_the_end(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    return ("stream", folder / "plan.toml", "--first-step", 1000), ("the plan ends after", "rows")


def row_behind_the_end(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    return ("show-row", folder / "plan.toml", 1000), ("the plan ends after", "rows")


def ranks_that_do_not_divide(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    return ("stream", folder / "plan.toml", "--ranks", 3), ("3 ranks cannot share 4 rows per step",)


def ranks_that_do_not_divide_balance(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    return ("stream", folder / "plan.toml", "--balance", "--ranks", 3), ("3 ranks cannot share 4 rows",)


def no_such_rank(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    return ("stream", folder / "plan.toml", "--rank", 2, "--ranks", 2), ("rank 2 of 2 ranks",)


def too_many_threads(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    return ("stream", folder / "plan.toml", "--threads", 5000), ("5000", "threads")


def batch_too_large(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    plan = other_plan(tmp, "global_batch = 4", "global_batch = 512", folder)
    return ("stream", plan, "--balance"), ("do not fill one step of 512 rows", "Lower global_batch")


def row_too_short(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    plan = other_plan(tmp, "max_seq_len = 512", "max_seq_len = 32", folder)
    return ("stream", plan), ("do not fit a row of 32", "max_seq_len")


def damaged_index(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    shutil.copytree(folder / "out", tmp / "out")
    manifest = tmp / "out" / "manifest.json"
    content = json.loads(manifest.read_bytes())
    content["files"]["index.parquet"] = "1" * 64
    manifest.write_text(json.dumps(content))
    (tmp / "plan.toml").write_text(PLAN)
    return ("stream", tmp / "plan.toml"), ("index.parquet", "sha256")


def damaged_manifest(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    shutil.copytree(folder / "out", tmp / "out")
    (tmp / "out" / "manifest.json").write_text('{"format": ')
    (tmp / "plan.toml").write_text(PLAN)
    return ("show-row", tmp / "plan.toml"), ("manifest.json",)


def page_without_a_folder(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    page = tmp / "none" / "row.html"
    return ("show-row", folder / "plan.toml", "--out", page), (
        str(page),
        "writing failed (No such file or directory)",
    )


def no_quarantine(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    return ("replay", tmp / "none.jsonl", folder / "plan.toml"), ("none.jsonl", "No such file")


def quarantine_that_is_no_json(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    return ("replay", folder / "plan.toml", folder / "plan.toml"), (
        "plan.toml, line 1",
        "not a quarantine record",
    )


def fault_behind_the_last(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    write_fault(tmp / "q.jsonl")
    return ("replay", tmp / "q.jsonl", folder / "plan.toml", "--line", 2), ("--line", "fault 2 of 1")


def key_that_is_not_recorded(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    write_fault(tmp / "q.jsonl")
    options = ("--key", "texts-00000001")
    return ("replay", tmp / "q.jsonl", folder / "plan.toml", *options), ("Did you mean 'texts-00000000'?",)


def page_of_no_row(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    write_fault(tmp / "q.jsonl", key="nowhere")
    options = ("--out", tmp / "page.html")
    return ("replay", tmp / "q.jsonl", folder / "plan.toml", *options), ("--out", "in 0 rows of this plan")


REFUSED: list[Refused] = [
    no_plan,
    unknown_key,
    unknown_dataset_key,
    unknown_recording,
    no_shards,
    step_behind_the_end,
    row_behind_the_end,
    ranks_that_do_not_divide,
    ranks_that_do_not_divide_balance,
    no_such_rank,
    too_many_threads,
    batch_too_large,
    row_too_short,
    damaged_index,
    damaged_manifest,
    page_without_a_folder,
    no_quarantine,
    quarantine_that_is_no_json,
    fault_behind_the_last,
    key_that_is_not_recorded,
    page_of_no_row,
]


@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: refused.__name__)
def test_one_clear_line(folder: Path, tmp_path: Path, refused: Refused) -> None:
    arguments, words = refused(folder, tmp_path)
    line = line_of(mmpack(*arguments))
    for word in words:
        assert word in line


def test_a_refusal_of_the_installed_command(folder: Path, tmp_path: Path) -> None:
    done = run([MMPACK, "replay", str(folder / "plan.toml"), str(tmp_path / "none.toml")])
    assert "plan.toml, line 1: not a quarantine record" in line_of(done)


@pytest.mark.parametrize(
    "arguments",
    [
        ("show-row", "plan.toml", "--", "-1"),
        ("stream", "plan.toml", "--rows", "0"),
        ("stream", "plan.toml", "--first-step", "-1"),
        ("replay", "q.jsonl", "plan.toml", "--line", "0"),
    ],
)
def test_numbers_that_cannot_be(arguments: tuple[str, ...]) -> None:
    done = mmpack(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "greater than or equal to" in done.stderr
