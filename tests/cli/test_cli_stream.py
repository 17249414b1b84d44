"""The commands stream, mixture, show-row and replay: their output agrees with the library, and bad input gives one line."""

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
from mmpack.show.mixture_table import forecast_report as forecast_report
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
    """A folder with a shard set in `out` and its plan in `plan.toml`."""
    inputs, folder = tmp_path_factory.mktemp("inputs"), tmp_path_factory.mktemp("stream")
    config = load_settings(make_inputs(inputs, drives=1), BuildConfig).resolve_paths(inputs)
    assert build_shards(config, str(folder / "out")).failures == []
    (folder / "plan.toml").write_text(PLAN)
    return folder


@pytest.fixture
def plan(folder: Path) -> Path:
    return folder / "plan.toml"


@pytest.fixture
def damaged(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder without a shard of captions, with a wrong bit in a text, and the quarantine of a training run."""
    copy = Path(shutil.copytree(folder, tmp_path / "damaged"))
    (copy / "out" / "shards" / "captions-00000.tar").rename(copy / "away.tar")
    shard = copy / "out" / "shards" / "texts-00000.tar"
    data = shard.read_bytes()
    shard.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with RowStream.open(copy / "plan.toml") as stream:
        assert sum(1 for _ in stream) > 8
    return copy


def mmpack(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a command in this process, by `main`, which saves the seconds of importing."""
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


def json_output(*arguments: object) -> Any:
    """Returns the JSON output of a command that succeeds."""
    done = mmpack(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)


def error_line(done: subprocess.CompletedProcess[str]) -> str:
    """Returns the only line on stderr of a command that failed with exit code 1."""
    assert done.returncode == 1, (done.returncode, done.stdout[-500:], done.stderr)
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def test_stream_reports_the_rows_it_read(plan: Path) -> None:
    report = json_output("stream", plan, "--rows", 5, "--first-step", 1, "--rank", 1, "--ranks", 2)
    with RowStream.open(plan, rank=1, ranks=2) as stream:
        stream.seek(1)
        rows = [next(stream) for _ in range(5)]
    assert {row.number // 4 for row in rows} == {1, 2, 3}
    assert report["rows"] == 5
    assert report["tokens"] == sum(row.tokens for row in rows)
    assert report["documents"] == sum(len(row.keys) for row in rows)
    assert report["fill"] == pytest.approx(report["tokens"] / (5 * 512))
    lengths = np.concatenate([np.diff(row.cu_seqlens) for row in rows])
    dataset = np.concatenate([row.datasets for row in rows])
    for index, name in enumerate(("drive", "rest")):
        share = lengths[dataset == index].sum() / lengths.sum()
        assert report["datasets"][name] == pytest.approx(share)
    modality_ids = np.concatenate([row.modality[row.document_ids >= 0] for row in rows])
    for modality in Modality:
        share = (modality_ids == modality).sum() / (5 * 512)
        assert report["modalities"][modality.name.lower()] == pytest.approx(share)
    assert report["unreadable"] == 0
    assert report["excluded_slices"] == {"drive": 0, "rest": 0}


def test_stream_without_threads(plan: Path) -> None:
    done = run([MMPACK, "stream", str(plan), "--rows", "2", "--threads", "0"])
    assert done.returncode == 0, done.stderr


def test_stream_text_output(plan: Path) -> None:
    done = run([MMPACK, "stream", str(plan), "--rows", "4"])
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("rows", "documents", "fill", "drive", "rest", "vision", "unreadable", "0 samples"):
        assert word in done.stdout
    assert "rate" not in done.stdout


def test_benchmark_of_the_last_step(plan: Path) -> None:
    steps = sum(1 for _ in open_plan(load_plan_config(plan)).steps())
    report = json_output("stream", plan, "--benchmark", "--first-step", steps - 1)
    assert report["rows"] == 4
    assert set(report["one_row_ms"]) == {"plan", "read", "decode"}
    assert all(ms > 0 for ms in report["one_row_ms"].values())
    for rate in ("rows_per_s", "tokens_per_s", "mb_per_s", "open_s", "first_row_s"):
        assert report[rate] > 0


def test_benchmark_text_output_with_workers(plan: Path) -> None:
    done = mmpack("stream", plan, "--benchmark", "--rows", 3, "--workers", 1, "--threads", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert "(1 workers, 1 threads)" in done.stdout
    assert "CPU time of one thread" in done.stdout


def test_balance_agrees_with_the_library(plan: Path) -> None:
    report = json_output("stream", plan, "--balance", "--ranks", 2)
    expected = compare_balance_modes(open_plan(load_plan_config(plan)), ranks=2, windows=4)
    assert report == {"ranks": 2, "configured": "rank", "modes": [asdict(mode) for mode in expected]}
    done = mmpack("stream", plan, "--balance", "--ranks", 2)
    assert (done.returncode, done.stderr) == (0, "")
    assert "rank (current)" in done.stdout
    for mode in expected:
        assert f"{mode.utilisation:.4f}" in done.stdout


def test_mixture_agrees_with_the_library(plan: Path) -> None:
    report = json_output("mixture", plan)
    opened_plan = open_plan(load_plan_config(plan))
    datasets = opened_plan.datasets
    forecast = forecast_mixture(opened_plan.schedule, [dataset.tokens for dataset in datasets], [2.0, 2.0])
    expected = forecast_report(forecast, [2.0, 2.0], [dataset.num_documents for dataset in datasets])
    assert report == json.loads(json.dumps(expected))
    assert report["datasets"]["rest"]["epoch_documents"] == 40 + 12 + 5
    assert report["datasets"]["drive"]["epochs"] == pytest.approx(2, rel=0.02)


def test_show_row_writes_the_page_of_the_library(plan: Path, tmp_path: Path) -> None:
    page = tmp_path / "row.html"
    done = mmpack("show-row", plan, 3, "--out", page)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"page: {page}\n"
    assert page.read_text("utf-8") == planned_row_html(open_plan(load_plan_config(plan)), 3)


def test_replay_reports_which_samples_are_readable_now(damaged: Path, tmp_path: Path) -> None:
    quarantine, plan = damaged / "quarantine.jsonl", damaged / "plan.toml"
    records = read_quarantine(quarantine)
    assert len({(record.row, record.key) for record in records}) >= 10
    done = mmpack("replay", quarantine, plan, "--json")
    count = len({(record.row, record.key) for record in records})
    assert f"{count} of {count} samples cannot be read, the first '" in error_line(done)
    results = json.loads(done.stdout)
    assert [(result["row"], result["key"], result["outcome"]) for result in results] == [
        (record.row, record.key, "same") for record in dict.fromkeys(records)
    ]
    # The captions are restored. The shard of the text is still damaged, but in another way.
    (damaged / "away.tar").rename(damaged / "out" / "shards" / "captions-00000.tar")
    (damaged / "out" / "shards" / "texts-00000.tar").write_bytes(b"")
    done = mmpack("replay", quarantine, plan)
    texts = {record.key for record in records if record.key.startswith("texts")}
    assert len(texts) == 1
    assert f"2 of {count} samples cannot be read, the first '{texts.pop()}': " in error_line(done)
    assert done.stdout.count("readable now") == count - 2
    assert done.stdout.count("unreadable, other reason") == 2


def test_replay_succeeds_if_all_samples_are_readable(folder: Path, damaged: Path, tmp_path: Path) -> None:
    quarantine, plan = damaged / "quarantine.jsonl", folder / "plan.toml"
    results = json_output("replay", quarantine, plan)
    assert {result["outcome"] for result in results} == {"readable"}
    records = read_quarantine(quarantine)
    assert replay_quarantine(open_plan(load_plan_config(plan)), [*records, *records]) == replay_quarantine(
        open_plan(load_plan_config(plan)), records
    )
    page = tmp_path / "page.html"
    done = mmpack("replay", quarantine, plan, "--line", 2, "--out", page)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"page: {page}\n")
    assert page.read_text("utf-8") == planned_row_html(open_plan(load_plan_config(plan)), records[1].row)
    results = json_output("replay", quarantine, plan, "--key", records[0].key)
    assert {result["key"] for result in results} == {records[0].key}
    (tmp_path / "none.jsonl").write_text("")
    assert json_output("replay", tmp_path / "none.jsonl", plan) == []


def test_records_of_a_relative_plan_path_are_valid_in_another_folder(
    damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record names the absolute path of the shard, although the plan was opened by a relative path."""
    (damaged / "quarantine.jsonl").unlink()
    monkeypatch.chdir(damaged)
    done = mmpack("stream", "plan.toml", "--rows", 100)
    assert (done.returncode, done.stderr) == (0, "")
    monkeypatch.chdir("/")
    records = read_quarantine(damaged / "quarantine.jsonl")
    missing = next(record for record in records if "captions" in record.key)
    assert missing.reason.startswith(f"{damaged / 'out' / 'shards' / 'captions-00000.tar'}: ")
    results = replay_quarantine(open_plan(load_plan_config(damaged / "plan.toml")), records)
    assert {result.outcome for result in results} == {"same"}


def test_replay_reports_damage_that_the_cache_hides(damaged: Path, folder: Path, tmp_path: Path) -> None:
    text = (folder / "plan.toml").read_text().replace("[reader]\n", f'[reader]\ncache = "{tmp_path}/cache"\n')
    for target in (folder, damaged):
        (target / "cached.toml").write_text(text.replace('"out"', f'"{damaged / "out"}"'))
    shard = damaged / "out" / "shards" / "captions-00000.tar"
    (damaged / "away.tar").rename(shard)
    with RowStream.open(damaged / "cached.toml") as stream:
        assert sum(1 for _ in stream) > 8
    shard.unlink()
    captions = [
        record for record in read_quarantine(damaged / "quarantine.jsonl") if "captions" in record.key
    ]
    results = replay_quarantine(open_plan(load_plan_config(damaged / "cached.toml")), captions[:2])
    assert {result.outcome for result in results} == {"same"}


@pytest.mark.parametrize(("old", "new"), [("seed = 4", "seed = 5"), ("max_epochs = 2", "max_epochs = 0.3")])
def test_replay_with_another_plan_is_an_error(damaged: Path, old: str, new: str) -> None:
    plan = damaged / "other.toml"
    plan.write_text(PLAN.replace(old, new))
    opened_plan = open_plan(load_plan_config(plan))
    records = read_quarantine(damaged / "quarantine.jsonl")
    is_planned = []
    for record in records:
        rows = [opened_plan.row(record.row)] if record.row < 4 * len(list(opened_plan.steps())) else []
        keys = {sample.key for row in rows for document in row.documents for sample in document.samples}
        is_planned.append(record.key in keys)
    line = next(number for number, planned in enumerate(is_planned, start=1) if not planned)
    done = mmpack("replay", damaged / "quarantine.jsonl", plan, "--line", line)
    assert "1 of 1 samples are not in their rows of this plan" in error_line(done)
    assert "Give the plan of the training run" in done.stderr
    assert "not in this row" in done.stdout


def write_record(path: Path, **changes: Any) -> None:
    record = {
        "row": 0,
        "key": "texts-00000000",
        "shard": "s",
        "offset_bytes": 0,
        "size_bytes": 1,
        "reason": "[bold]no markup",
        "rank": 0,
        "date": "2026-01-01T00:00:00+00:00",
    }
    path.write_text(json.dumps(record | changes) + "\n")


def test_replay_of_records_with_invalid_rows_or_keys_reports_absent_samples(
    plan: Path, tmp_path: Path
) -> None:
    quarantine = tmp_path / "quarantine.jsonl"
    for row in (-1, -(1 << 62), 1000, (1 << 63) - 1):
        write_record(quarantine, row=row)
        (result,) = replay_quarantine(open_plan(load_plan_config(plan)), read_quarantine(quarantine))
        assert isinstance(result.sample, QuarantineRecord)
        assert (result.outcome, bool(result.reason)) == ("absent", True)
    write_record(quarantine, key="[red]key[/]", row=2)
    done = mmpack("replay", quarantine, plan)
    assert "[red]key[/]" in done.stdout
    assert "row 2 of this plan does not contain this sample" in error_line(done)


BadCall = Callable[[Path, Path], tuple[tuple[object, ...], tuple[str, ...]]]


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


def step_after_the_end(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    return ("stream", folder / "plan.toml", "--first-step", 1000), ("the plan ends after", "rows")


def row_after_the_end(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    return ("show-row", folder / "plan.toml", 1000), ("the plan ends after", "rows")


def ranks_that_do_not_divide(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    return ("stream", folder / "plan.toml", "--ranks", 3), ("3 ranks cannot share 4 rows per step",)


def ranks_that_do_not_divide_balance(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    return ("stream", folder / "plan.toml", "--balance", "--ranks", 3), ("3 ranks cannot share 4 rows",)


def rank_out_of_range(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    return ("stream", folder / "plan.toml", "--rank", 2, "--ranks", 2), ("there is no rank 2 among 2 ranks",)


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


def page_in_a_missing_folder(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    page = tmp / "none" / "row.html"
    return ("show-row", folder / "plan.toml", "--out", page), (
        str(page),
        "writing failed (No such file or directory)",
    )


def no_quarantine(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    return ("replay", tmp / "none.jsonl", folder / "plan.toml"), ("none.jsonl", "No such file")


def quarantine_file_without_json(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    return ("replay", folder / "plan.toml", folder / "plan.toml"), (
        "plan.toml, line 1",
        "not a quarantine record",
    )


def record_after_the_last(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    write_record(tmp / "q.jsonl")
    return ("replay", tmp / "q.jsonl", folder / "plan.toml", "--line", 2), (
        "--line",
        "record 2 does not exist",
        "has 1 records",
    )


def unknown_sample_key(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    write_record(tmp / "q.jsonl")
    options = ("--key", "texts-00000001")
    return ("replay", tmp / "q.jsonl", folder / "plan.toml", *options), ("Did you mean 'texts-00000000'?",)


def page_without_a_row(folder: Path, tmp: Path) -> tuple[tuple[object, ...], tuple[str, ...]]:
    write_record(tmp / "q.jsonl", key="nowhere")
    options = ("--out", tmp / "page.html")
    return ("replay", tmp / "q.jsonl", folder / "plan.toml", *options), ("--out", "in 0 rows of this plan")


BAD_CALLS: list[BadCall] = [
    no_plan,
    unknown_key,
    unknown_dataset_key,
    unknown_recording,
    no_shards,
    step_after_the_end,
    row_after_the_end,
    ranks_that_do_not_divide,
    ranks_that_do_not_divide_balance,
    rank_out_of_range,
    too_many_threads,
    batch_too_large,
    row_too_short,
    damaged_index,
    damaged_manifest,
    page_in_a_missing_folder,
    no_quarantine,
    quarantine_file_without_json,
    record_after_the_last,
    unknown_sample_key,
    page_without_a_row,
]


@pytest.mark.parametrize("bad_call", BAD_CALLS, ids=lambda bad_call: bad_call.__name__)
def test_bad_input_gives_one_clear_line(folder: Path, tmp_path: Path, bad_call: BadCall) -> None:
    arguments, words = bad_call(folder, tmp_path)
    line = error_line(mmpack(*arguments))
    for word in words:
        assert word in line


def test_bad_input_to_the_installed_command_gives_one_clear_line(folder: Path, tmp_path: Path) -> None:
    done = run([MMPACK, "replay", str(folder / "plan.toml"), str(tmp_path / "none.toml")])
    assert "plan.toml, line 1: not a quarantine record" in error_line(done)


@pytest.mark.parametrize(
    "arguments",
    [
        ("show-row", "plan.toml", "--", "-1"),
        ("stream", "plan.toml", "--rows", "0"),
        ("stream", "plan.toml", "--first-step", "-1"),
        ("replay", "q.jsonl", "plan.toml", "--line", "0"),
    ],
)
def test_numbers_out_of_range_are_usage_errors(arguments: tuple[str, ...]) -> None:
    done = mmpack(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "greater than or equal to" in done.stderr
