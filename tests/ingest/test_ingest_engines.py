"""Engines: where the tasks of a build run, and what they report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmpack import BuildConfig, EngineConfig, build_shards
from mmpack.errors import ConfigError
from mmpack.ingest import SourceConfig, TaskProgress
from mmpack.ingest.engines import ENGINES, engine, select_engine
from tests.ingest.build_inputs import compute_digests


class RecordingReporter:
    """A reporter that keeps all messages."""

    def __init__(self) -> None:
        self.progress: list[TaskProgress] = []
        self.warnings: list[str] = []

    def on_progress(self, progress: TaskProgress) -> None:
        self.progress.append(progress)

    def on_warning(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def config(tmp_path: Path) -> BuildConfig:
    """Returns the settings of a build of two sources of three texts each."""
    for name in ("first", "second"):
        rows = [json.dumps({"text": f"{name} {row}"}) for row in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    sources = [
        SourceConfig(name=name, kind="text", path=str(tmp_path / f"{name}.jsonl"))
        for name in ("first", "second")
    ]
    return BuildConfig(samples=tuple(sources))


@pytest.mark.parametrize(("name", "workers"), [("in_process", None), ("workers", 2)])
def test_every_engine_reports_progress_and_gives_the_same_shards(
    config: BuildConfig, tmp_path: Path, name: str, workers: int | None
) -> None:
    reporter = RecordingReporter()
    outcome = build_shards(
        config, str(tmp_path / "out"), engine=EngineConfig(name, workers), reporter=reporter
    )
    assert outcome.failures == []
    assert {(message.task, message.done) for message in reporter.progress} == {
        (task, done) for task in ("first", "second") for done in range(4)
    }
    assert reporter.warnings == []
    build_shards(config, str(tmp_path / "expected"))
    assert compute_digests(tmp_path / "out") == compute_digests(tmp_path / "expected")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (EngineConfig(workers=0), "in_process"),
        (EngineConfig(workers=1), "workers"),
        (EngineConfig(), "workers"),
        (EngineConfig("in_process"), "in_process"),
    ],
)
def test_auto_chooses_the_engine_by_the_number_of_workers(config: EngineConfig, expected: str) -> None:
    assert select_engine(config) is ENGINES[expected]


def test_an_unknown_engine_is_an_error_that_names_the_nearest_one(
    config: BuildConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"'in_proces' is not an engine.*Did you mean 'in_process'"):
        build_shards(config, str(tmp_path / "out"), engine=EngineConfig("in_proces"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "workers", "message"),
    [("in_process", 2, "has no workers"), ("workers", 0, "at least one worker")],
)
def test_an_engine_refuses_a_number_of_workers_that_contradicts_it(
    config: BuildConfig, tmp_path: Path, name: str, workers: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_shards(config, str(tmp_path / "out"), engine=EngineConfig(name, workers))


@pytest.mark.parametrize(("rank", "ranks"), [(3, 3), (-1, 2), (0, 0)])
def test_a_rank_outside_the_ranks_is_an_error(rank: int, ranks: int) -> None:
    with pytest.raises(ConfigError, match="rank"):
        EngineConfig(rank=rank, ranks=ranks)


def test_negative_workers_are_an_error() -> None:
    with pytest.raises(ConfigError, match="-1 is not a number of workers"):
        EngineConfig(workers=-1)


@pytest.mark.parametrize(
    ("error", "message"),
    [(MemoryError(), "out of memory"), (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero")],
)
def test_an_unexpected_exception_in_this_process_fails_only_its_task(
    config: BuildConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    run_task = engine.run_task

    def fail_first(plan, task, *args, **options):
        if task.name == "first":
            raise error
        run_task(plan, task, *args, **options)

    monkeypatch.setattr(engine, "run_task", fail_first)
    outcome = build_shards(config, str(tmp_path / "out"))
    assert [failure.task for failure in outcome.failures] == ["first"]
    assert message in str(outcome.failures[0].error)
    assert "\n" not in str(outcome.failures[0].error)
    assert (tmp_path / "out/_build/tasks/second/done.json").exists()
