"""The same rows on any number of ranks and workers, through kills, the end of an epoch and a change of phase."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpack.errors import ConfigError
from mmpack.stream import RowStream
from tests.conftest import ROOT
from tests.ingest.build_inputs import command, make_inputs, run
from tests.stream.rank_process import digest

_BATCH = 24
_PLAN = """
max_seq_len = 1024
global_batch = 24
window_steps = 2
seed = 4

[reader]
threads = 2
prefetch = 4

[[datasets]]
name = "drives"
shards = "out"
select = ["drive-*"]

[[datasets]]
name = "texts"
shards = "out"
select = ["texts"]
locality = 4

[[datasets]]
name = "pairs"
shards = "out"
select = ["captions", "speech"]
contrastive = true

[[phases]]
name = "cold"
tokens = 80_000
temperature = 1.2

[[phases]]
name = "hot"
tokens = 70_000
datasets = ["drives", "texts"]
temperature = 2.0
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elastic")
    assert run(command(make_inputs(folder), folder / "out", "-j", "0")).returncode == 0
    (folder / "plan.toml").write_text(_PLAN)
    return folder / "plan.toml"


@pytest.fixture(scope="module")
def whole(plan: Path) -> list[str]:
    """What each row is in an uninterrupted run on one rank."""
    with RowStream.open(plan) as stream:
        rows = [(row.number, digest(row)) for row in stream]
        names = [dataset.name for dataset in stream.plan.datasets]
        last = stream.plan.window((len(rows) - 1) // stream.plan.window_rows).start
    assert [number for number, _ in rows] == list(range(len(rows)))
    assert len(rows) >= 5 * _BATCH
    # It passes the end of an epoch, and the phases change within.
    epochs = dict(zip(names, last.documents, strict=True))
    assert epochs["texts"] > 40
    assert last.total_tokens > 80_000
    return [told for _, told in rows]


@settings(max_examples=12)
@given(st.data())
def test_any_course_of_ranks_gives_one_sequence(plan: Path, whole: list[str], data: st.DataObject) -> None:
    """In one process, without media: the numbers that ranks are handed, step by step, however often they change."""
    steps = len(whole) // _BATCH
    handed: list[int] = []
    state: dict | None = None
    step = 0
    while step < steps:
        ranks = data.draw(st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]))
        count = data.draw(st.integers(1, steps - step))
        states = []
        for rank in range(ranks):
            stream = RowStream.open(plan, rank=rank, ranks=ranks)
            if state is not None:
                stream.load_state_dict(state)
            for number in range(step, step + count):
                handed += stream.plan.step_rows(number, rank, ranks)
            stream.seek(step + count) if step + count < steps else None
            states.append(stream.state_dict() if step + count < steps else None)
        assert all(each == states[0] for each in states)
        state, step = states[0], step + count
    assert sorted(handed) == list(range(len(whole)))


@pytest.mark.timeout(240)
def test_killed_ranks_resume_on_other_numbers_of_ranks(plan: Path, whole: list[str], tmp_path: Path) -> None:
    """4 ranks, kill -9 at a random row; 3 ranks with 2 workers each, killed; 8 ranks to the end."""
    chance = random.Random(2024)
    found: dict[int, str] = {}
    state, start = "-", 0
    for life, (ranks, workers, steps) in enumerate([(4, 0, 2), (3, 2, 1), (8, 0, None)]):
        folder = tmp_path / f"life-{life}"
        folder.mkdir()
        share = _BATCH // ranks
        # Every rank dies at a row of its own, after the steps that are to be kept.
        deaths = [
            "-" if steps is None else str(steps * share + chance.randint(0, share)) for _ in range(ranks)
        ]
        _run_ranks(plan, folder, ranks, workers, state, deaths)
        states = _common_states(folder, ranks)
        end = max(states) if steps is not None else len(whole)
        told = _told(folder, ranks)
        for number, what in told:
            assert what == whole[number], f"row {number} differs on {ranks} ranks"
        kept = [number for number, _ in told if number < end]
        # Of what counts, nothing is lost and nothing comes twice.
        assert sorted(kept) == list(range(start, end))
        found |= {number: what for number, what in told if number < end}
        if steps is not None:
            assert end > start
            state, start = str(folder / f"state-{end}-0"), end
    assert [found[number] for number in range(len(whole))] == whole


def _run_ranks(plan: Path, folder: Path, ranks: int, workers: int, state: str, deaths: list[str]) -> None:
    arguments = [sys.executable, "-m", "tests.stream.rank_process", str(plan)]
    processes = [
        subprocess.Popen(
            [*arguments, str(rank), str(ranks), str(workers), str(folder), state, deaths[rank]],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    for process, death in zip(processes, deaths, strict=True):
        _, errors = process.communicate(timeout=200)
        assert process.returncode == (0 if death == "-" else -signal.SIGKILL), errors


def _common_states(folder: Path, ranks: int) -> dict[int, dict]:
    """By row: the states that every rank has saved, once they are seen to be equal and small."""
    saved: dict[int, list[str]] = {}
    for path in folder.glob("state-*-*"):
        saved.setdefault(int(path.name.split("-")[1]), []).append(path.read_text())
    common = {row: texts for row, texts in saved.items() if len(texts) == ranks}
    for texts in common.values():
        assert len(set(texts)) == 1
        assert len(texts[0]) < 1024
    return {row: json.loads(texts[0]) for row, texts in common.items()}


def _told(folder: Path, ranks: int) -> list[tuple[int, str]]:
    lines = [
        line.split() for rank in range(ranks) for line in (folder / f"rows-{rank}").read_text().splitlines()
    ]
    return [(int(number), what) for number, what in lines]


def test_within_a_step_a_run_goes_on_on_as_many_ranks_only(plan: Path, whole: list[str]) -> None:
    with RowStream.open(plan, rank=1, ranks=4) as stream:
        first = [next(stream).number for _ in range(8)]
        state = stream.state_dict()
        rest = [(row.number, digest(row)) for row in (next(stream) for _ in range(7))]
    assert state["row"] == 32
    with RowStream.open(plan, rank=1, ranks=4) as stream:
        stream.load_state_dict(state)
        assert [(row.number, digest(row)) for row in (next(stream) for _ in range(7))] == rest
    assert len({*first, *(number for number, _ in rest)}) == 15
    assert all(told == whole[number] for number, told in rest)
    with (
        RowStream.open(plan, rank=1, ranks=3) as stream,
        pytest.raises(ConfigError, match="within step 1, of 4 ranks"),
    ):
        stream.load_state_dict(state)
