"""Row streams on changing numbers of ranks and workers: the same rows through kills, epoch ends and phase changes."""

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
from tests.examples import examples
from tests.ingest.build_inputs import build_command, make_inputs, run
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
    assert run(build_command(make_inputs(folder), folder / "out", "-j", "0")).returncode == 0
    (folder / "plan.toml").write_text(_PLAN)
    return folder / "plan.toml"


@pytest.fixture(scope="module")
def row_digests(plan: Path) -> list[str]:
    """The digest of each row of an uninterrupted run on one rank."""
    with RowStream.open(plan) as stream:
        rows = [(row.number, digest(row)) for row in stream]
        names = [dataset.name for dataset in stream.plan.datasets]
        last = stream.plan.window((len(rows) - 1) // stream.plan.rows_per_window).start
    assert [number for number, _ in rows] == list(range(len(rows)))
    assert len(rows) >= 5 * _BATCH
    # The run passes the end of an epoch and a change of phase.
    epochs = dict(zip(names, last.documents, strict=True))
    assert epochs["texts"] > 40
    assert last.total_tokens > 80_000
    return [row_digest for _, row_digest in rows]


@settings(max_examples=examples(12))
@given(st.data())
def test_changing_numbers_of_ranks_cover_every_row_once(
    plan: Path, row_digests: list[str], data: st.DataObject
) -> None:
    """Checks the row numbers that the ranks get when their number changes after any steps; no media are read."""
    steps = len(row_digests) // _BATCH
    handed_out: list[int] = []
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
            for index in range(step, step + count):
                handed_out += stream.plan.step_rows(index, rank, ranks)
            stream.seek(step + count) if step + count < steps else None
            states.append(stream.state_dict() if step + count < steps else None)
        assert all(other == states[0] for other in states)
        state, step = states[0], step + count
    assert sorted(handed_out) == list(range(len(row_digests)))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_killed_ranks_resume_on_other_numbers_of_ranks(
    plan: Path, row_digests: list[str], tmp_path: Path
) -> None:
    """Runs 4 ranks that are killed at a random row, then 3 ranks with 2 workers each, killed, then 8 ranks to the end."""
    generator = random.Random(2024)
    digests: dict[int, str] = {}
    state, start = "-", 0
    for attempt, (ranks, workers, steps) in enumerate([(4, 0, 2), (3, 2, 1), (8, 0, None)]):
        folder = tmp_path / f"attempt-{attempt}"
        folder.mkdir()
        share = _BATCH // ranks
        # Every rank dies at a row of its own, in the step after the steps that must be complete.
        deaths = [
            "-" if steps is None else str(steps * share + generator.randint(0, share)) for _ in range(ranks)
        ]
        _run_ranks(plan, folder, ranks, workers, state, deaths)
        states = _common_states(folder, ranks)
        end = max(states) if steps is not None else len(row_digests)
        records = _read_digests(folder, ranks)
        for number, row_digest in records:
            assert row_digest == row_digests[number], f"row {number} differs on {ranks} ranks"
        counted = [number for number, _ in records if number < end]
        # No row before the common state is missing or read twice.
        assert sorted(counted) == list(range(start, end))
        digests |= {number: row_digest for number, row_digest in records if number < end}
        if steps is not None:
            assert end > start
            state, start = str(folder / f"state-{end}-0"), end
    assert [digests[number] for number in range(len(row_digests))] == row_digests


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
    """Returns the states that all ranks have saved, by row, after checking that they are equal and small."""
    saved: dict[int, list[str]] = {}
    for path in folder.glob("state-*-*"):
        saved.setdefault(int(path.name.split("-")[1]), []).append(path.read_text())
    common = {row: texts for row, texts in saved.items() if len(texts) == ranks}
    for texts in common.values():
        assert len(set(texts)) == 1
        assert len(texts[0]) < 1024
    return {row: json.loads(texts[0]) for row, texts in common.items()}


def _read_digests(folder: Path, ranks: int) -> list[tuple[int, str]]:
    """Reads the numbers and digests of the rows that the ranks recorded."""
    lines = [
        line.split() for rank in range(ranks) for line in (folder / f"rows-{rank}").read_text().splitlines()
    ]
    return [(int(number), row_digest) for number, row_digest in lines]


def test_a_state_within_a_step_needs_the_same_number_of_ranks(plan: Path, row_digests: list[str]) -> None:
    with RowStream.open(plan, rank=1, ranks=4) as stream:
        first = [next(stream).number for _ in range(8)]
        state = stream.state_dict()
        rest = [(row.number, digest(row)) for row in (next(stream) for _ in range(7))]
    assert state["row"] == 32
    with RowStream.open(plan, rank=1, ranks=4) as stream:
        stream.load_state_dict(state)
        assert [(row.number, digest(row)) for row in (next(stream) for _ in range(7))] == rest
    assert len({*first, *(number for number, _ in rest)}) == 15
    assert all(row_digest == row_digests[number] for number, row_digest in rest)
    with (
        RowStream.open(plan, rank=1, ranks=3) as stream,
        pytest.raises(ConfigError, match="within step 1 on 4 ranks"),
    ):
        stream.load_state_dict(state)
