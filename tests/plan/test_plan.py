"""The plan: a row follows from its number, however the row is requested."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmpack.errors import ConfigError, DataError
from mmpack.layout import LayoutConfig
from mmpack.mixture.draw import quota_lag
from mmpack.mixture.phase_config import PhaseConfig
from mmpack.mixture.weights import SCALE
from mmpack.plan import Plan, PlannedRow, open_plan, read_state
from mmpack.plan.draws import draw_window_documents
from mmpack.plan.plan_config import CostConfig, DatasetConfig, PlanConfig
from mmpack.serialisation import canonical_json
from tests.examples import examples
from tests.plan.small_plans import CAPACITY, NAMES, all_rows, make_small_index, plan_config
from tools.make_index import IndexSource, make_index


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_index(tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module")
def rows(index: Path) -> list[PlannedRow]:
    return all_rows(open_plan(plan_config(index), window_starts=False))


def test_rows_hold_complete_documents_within_their_capacity(rows: list[PlannedRow]) -> None:
    assert [row.number for row in rows] == list(range(len(rows)))
    used = [sum(document.tokens for document in row.documents) for row in rows]
    assert max(used) <= CAPACITY
    assert sum(used) / (len(rows) * CAPACITY) > 0.99
    for row in rows:
        for document in row.documents:
            numbers = [sample.number for sample in document.samples]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert document.tokens == sum(sample.tokens for sample in document.samples) + 4 * document.is_run


@pytest.mark.parametrize("balance", ["rank", "step", "off"])
def test_every_sample_is_planned_once_per_epoch(index: Path, balance: str) -> None:
    """All samples of a data set are planned equally often, except for those of the epoch in progress."""
    plan = open_plan(plan_config(index, balance=balance), window_starts=False)
    num_planned = dict.fromkeys(range(len(plan.catalogs[0])), 0)
    for row in all_rows(plan):
        for document in row.documents:
            for sample in document.samples:
                num_planned[sample.number] += 1
    recording = plan.catalogs[0].columns["recording"]
    for dataset in plan.datasets:
        code = plan.catalogs[0].recordings.index(dataset.name)
        counts = [num_planned[number] for number in np.flatnonzero(recording == code).tolist()]
        # Documents of the last window that do not fill a step are left out.
        assert max(counts) - min(counts) <= 2
        assert min(counts) >= 1


def test_a_row_does_not_depend_on_rows_planned_before_it(index: Path, rows: list[PlannedRow]) -> None:
    fresh = open_plan(plan_config(index), window_starts=False)
    for number in np.random.default_rng(1).permutation(len(rows))[:60].tolist():
        assert fresh.row(number) == rows[number]
    assert open_plan(plan_config(index), window_starts=False).row(len(rows) - 1) == rows[-1]


def test_recorded_window_starts_give_any_row_without_planning_the_windows_before_it(
    index: Path, rows: list[PlannedRow]
) -> None:
    plan = open_plan(plan_config(index))
    assert plan.row(len(rows) - 1) == rows[-1]
    reopened = open_plan(plan_config(index))
    planned: list[int] = []
    original = reopened._plan_window
    reopened._plan_window = lambda number, start: planned.append(number) or original(number, start)  # type: ignore[method-assign]
    assert reopened.row(len(rows) - 1) == rows[-1]
    assert planned == [(len(rows) - 1) // reopened.rows_per_window]
    assert reopened.row(5) == rows[5]


def test_an_incomplete_or_missing_file_of_window_starts_does_not_change_rows(index: Path) -> None:
    plan = open_plan(plan_config(index, seed=11))
    expected = plan.row(300)
    path = plan._window_starts._path
    assert path is not None
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 5])
    assert open_plan(plan_config(index, seed=11)).row(300) == expected
    path.write_bytes(b"")
    assert open_plan(plan_config(index, seed=11)).row(300) == expected
    path.unlink()
    path.mkdir()
    assert open_plan(plan_config(index, seed=11)).row(300) == expected


@pytest.mark.parametrize("damage", [lambda content: bytes(len(content)), lambda content: content[::-1]])
def test_damaged_window_starts_are_ignored_and_written_again(
    index: Path, damage: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash of the machine can leave a file of the right size with zeros only."""
    monkeypatch.setenv("MMPACK_CACHE", str(tmp_path))
    plan = open_plan(plan_config(index))
    expected = plan.row(400)
    path = plan._window_starts._path
    assert path is not None
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert open_plan(plan_config(index)).row(400) == expected
    assert path.read_bytes() == content


def test_window_starts_of_a_forged_state_are_not_recorded_on_disk(
    index: Path, rows: list[PlannedRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMPACK_CACHE", str(tmp_path))
    state = open_plan(plan_config(index), window_starts=False).state(96, 1)
    forged = msgspec.structs.replace(state, documents=tuple(n + 1 for n in state.documents))
    open_plan(plan_config(index)).load_state(forged)
    reopened = open_plan(plan_config(index))
    reopened.load_state(state)
    assert [reopened.row(number) for number in range(96, 192)] == rows[96:192]


@pytest.mark.parametrize(
    "forged",
    [
        {"tokens": (2**63 - 1,) * 4, "documents": (2**63 - 1,) * 4},
        {"tokens": (2**60,) * 4},
        {"documents": (2**63 - 1,) * 4},
    ],
)
def test_a_state_with_impossible_numbers_is_an_error(index: Path, forged: dict[str, tuple[int, ...]]) -> None:
    state = open_plan(plan_config(index), window_starts=False).state(96, 1)
    with pytest.raises(DataError, match="row and the cursors of the state contradict each other"):
        open_plan(plan_config(index), window_starts=False).load_state(
            msgspec.structs.replace(state, **forged)
        )


def test_unreachable_rows_are_an_error_without_planning(index: Path) -> None:
    endless = open_plan(plan_config(index, phases=(PhaseConfig(name="all"),)), window_starts=False)
    with pytest.raises(DataError, match="is 10416666666666 windows after the last known window"):
        endless.row(10**15)
    with pytest.raises(DataError, match="windows after the last known window"):
        open_plan(endless.config).row(10**30)
    with pytest.raises(DataError, match=r"the plan ends after \d+ rows"):
        open_plan(plan_config(index), window_starts=False).row(10**15)
    for method in (endless.window, endless.steps, lambda step: endless.step_rows(step, 0, 1)):
        with pytest.raises(DataError, match="Count windows from 0"):
            list(method(-1))  # type: ignore[arg-type]


def test_a_plan_without_a_step_is_an_error(index: Path) -> None:
    phases = (PhaseConfig(name="all", tokens=5000),)
    with pytest.raises(DataError, match="do not fill one step of 24 rows"):
        list(open_plan(plan_config(index, phases=phases), window_starts=False).steps())


def test_equivalent_settings_have_the_same_fingerprint(index: Path) -> None:
    def fingerprint(**settings: object) -> str:
        return open_plan(plan_config(index, **settings), window_starts=False).fingerprint

    assert fingerprint(tolerance="1ms") == fingerprint(tolerance="1000us") != fingerprint()
    assert fingerprint(cost=CostConfig(linear=24576.04)) != fingerprint()
    assert fingerprint(balance="off", cost=CostConfig(linear=1.0)) == fingerprint(balance="off")


def test_other_statistics_change_the_fingerprint(tmp_path: Path) -> None:
    make_small_index(tmp_path)
    original = open_plan(plan_config(tmp_path), window_starts=False)
    manifest = json.loads((tmp_path / "manifest.json").read_bytes())
    manifest["numeric"] = {"imu": {"count": 5, "mean": [0.5], "std": [1.0], "min": [0.0], "max": [1.0]}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert open_plan(plan_config(tmp_path), window_starts=False).fingerprint != original.fingerprint


@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 24), st.sampled_from([1, 2, 3, 4, 8, 24]), st.sampled_from(["rank", "step", "off"]))
def test_ranks_share_the_rows_of_a_step(index: Path, step: int, ranks: int, balance: str) -> None:
    plan = open_plan(plan_config(index, balance=balance), window_starts=False)
    assigned = [plan.step_rows(step, rank, ranks) for rank in range(ranks)]
    assert all(len(rows) == 24 // ranks and rows == sorted(rows) for rows in assigned)
    assert sorted(number for rows in assigned for number in rows) == list(range(24 * step, 24 * step + 24))


def test_a_state_is_small_and_resumes_with_the_same_rows(index: Path, rows: list[PlannedRow]) -> None:
    plan = open_plan(plan_config(index), window_starts=False)
    for row in (0, 24, 96, 240, len(rows) // 24 * 12):
        saved = msgspec.json.encode(plan.state(row, 4))
        assert len(saved) < 1024
        resumed = open_plan(plan_config(index), window_starts=False)
        resumed.load_state(read_state(msgspec.json.decode(saved)))
        assert [resumed.row(n) for n in range(row, min(row + 30, len(rows)))] == rows[row : row + 30]


def test_a_state_does_not_depend_on_the_rank(index: Path) -> None:
    states = []
    for rank in range(3):
        plan = open_plan(plan_config(index), window_starts=False)
        for step in range(7):
            plan.step_rows(step, rank, 3)
        states.append(plan.state(7 * 24, 3))
    assert states[0] == states[1] == states[2]


def test_a_state_of_another_plan_is_an_error_that_names_the_difference(
    index: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    state = open_plan(plan_config(index), window_starts=False).state(24, 1)
    for changed, difference in (
        (plan_config(index, seed=3), "seed was 0, is 3"),
        (plan_config(index, global_batch=12), "global_batch was 24, is 12"),
        (plan_config(index, phases=(PhaseConfig(name="all"),)), "mixture was"),
        (
            plan_config(index, names=NAMES[:3], phases=(PhaseConfig(name="a"),)),
            "dataset speech was .*, is absent",
        ),
        (plan_config(index, tolerance="1ms"), "tolerance was none, is 1000000 ns"),
        (plan_config(make_small_index(tmp_path_factory.mktemp("other"), scale=2)), "dataset drive was"),
    ):
        with pytest.raises(ConfigError, match=f"belongs to another plan.*{difference}"):
            open_plan(changed, window_starts=False).load_state(state)


@pytest.mark.parametrize("window_steps", [1, 2, 3, 4, 100])
def test_a_state_at_the_end_of_the_run(tmp_path: Path, window_steps: int) -> None:
    """The plan has a state after its last row, and no step after it, whether the last window is complete or not."""
    make_index(tmp_path, [IndexSource(name="texts", kind="text", tokens=np.full(24, 1024))])
    dataset = DatasetConfig(name="texts", shards=str(tmp_path), max_epochs=1)
    config = PlanConfig(max_seq_len=1024, global_batch=4, window_steps=window_steps, datasets=(dataset,))
    plan = open_plan(config, window_starts=False)
    assert list(plan.steps()) == list(range(6))
    states = [plan.state(row, 2) for row in range(0, 25, 4)]
    for state in states:
        resumed = open_plan(config, window_starts=False)
        resumed.load_state(read_state(msgspec.to_builtins(state)))
        assert resumed.state(state.row, 2) == state
        assert list(resumed.steps(state.row // 4)) == list(range(state.row // 4, 6))


@pytest.mark.parametrize(
    "damage",
    [
        {"window": 3},
        {"row": -1},
        {"tokens": (1,)},
        {"documents": ("a", 1, 2, 3)},
        {"version": 9},
        {"row": "many"},
        {"more": 1},
        {"fingerprint_parts": None},
    ],
)
def test_a_damaged_state_is_an_error(index: Path, damage: dict[str, object]) -> None:
    plan = open_plan(plan_config(index), window_starts=False)
    state = msgspec.to_builtins(plan.state(24, 1)) | damage
    with pytest.raises((DataError, ConfigError)):
        plan.load_state(read_state(state))


def test_a_state_of_another_version_names_both_versions(index: Path) -> None:
    state = msgspec.to_builtins(open_plan(plan_config(index), window_starts=False).state(24, 1))
    # The keys of version 1.
    old = {("parts" if key == "fingerprint_parts" else key): value for key, value in state.items()}
    with pytest.raises(
        DataError, match="the state has version 1, but this version of mmpack reads version 2"
    ):
        read_state(old | {"version": 1})


def test_a_state_with_other_cursors_is_an_error(index: Path) -> None:
    plan = open_plan(plan_config(index), window_starts=False)
    plan.row(200)
    state = plan.state(200, 1)
    wrong = msgspec.structs.replace(state, documents=tuple(n + 1 for n in state.documents))
    with pytest.raises(DataError, match="cursors"):
        plan.load_state(wrong)


def test_shares_stay_within_one_document_over_all_phases(index: Path) -> None:
    plan = open_plan(plan_config(index), window_starts=False)
    max_length = max(dataset.document_table.max_tokens for dataset in plan.datasets)
    num_checked = 0
    for number in range(100):
        window = plan.window(number)
        if window.end is None:
            break
        lags = quota_lag(plan.quota_curve, np.array(window.end.tokens))
        assert max(abs(lag) for lag in lags) <= max_length * SCALE
        num_checked += 1
    assert num_checked >= 5


def test_phases_change_at_their_token_counts(index: Path) -> None:
    phases = (
        PhaseConfig(name="one", tokens=100_000, datasets=("texts", "robot")),
        PhaseConfig(name="two", tokens=100_000, datasets=("speech", "drive")),
    )
    plan = open_plan(plan_config(index, phases=phases), window_starts=False)
    documents, tokens = [], []
    number = 0
    while True:
        start = plan.window(number).start
        draws = draw_window_documents(plan.datasets, plan.quota_curve, start, plan.rows_per_window * CAPACITY)
        end = plan.window(number).end
        num_draws = len(draws.dataset) if end is None else sum(end.documents) - sum(start.documents)
        documents += draws.dataset[:num_draws].tolist()
        tokens += draws.tokens[:num_draws].tolist()
        if end is None:
            break
        number += 1
    start_tokens = np.concatenate(([0], np.cumsum(tokens)))[:-1]
    in_first_phase = np.isin(documents, [NAMES.index("texts"), NAMES.index("robot")])
    # After the boundary, at most one document of each data set of the first phase is still due.
    max_length = max(dataset.document_table.max_tokens for dataset in plan.datasets)
    assert start_tokens[in_first_phase].max() < 100_000 + 2 * max_length
    assert start_tokens[~in_first_phase].min() > 100_000 - 2 * max_length
    assert abs(int(start_tokens[-1]) + tokens[-1] - 200_000) <= max_length


def test_repeat_caps_hold(index: Path) -> None:
    plan = open_plan(
        plan_config(index, phases=(PhaseConfig(name="all"),), max_epochs=dict.fromkeys(NAMES, 2.0)),
        window_starts=False,
    )
    num_planned = np.zeros(len(plan.catalogs[0]), int)
    for row in all_rows(plan):
        for document in row.documents:
            for sample in document.samples:
                num_planned[sample.number] += 1
    assert num_planned.max() == 2
    last = plan._last_window
    assert last is not None
    # Only the documents that `num_unplanned` counts are missing.
    missing = 2 * sum(dataset.num_documents for dataset in plan.datasets) - sum(
        len(row.documents) for row in all_rows(plan)
    )
    assert last.num_unplanned < 24 * 200
    assert missing <= last.num_unplanned
    with pytest.raises(DataError, match=r"the plan ends after \d+ rows"):
        plan.row(10**9)


def test_contrastive_documents_are_not_cut_and_include_the_pair_overhead(tmp_path: Path) -> None:
    tokens = np.full(90, 100)
    text = np.where(np.arange(90) % 5 == 0, 20, 0)
    folder = make_index(
        tmp_path,
        [
            IndexSource(
                name="drive",
                kind="slice",
                tokens=tokens,
                runs=np.arange(90) // 3,
                residual_ns=None,
                tokens_text=text,
            )
        ],
    )
    dataset = DatasetConfig(name="drive", shards=str(folder), contrastive=True)
    config = PlanConfig(max_seq_len=1024, global_batch=2, window_steps=2, datasets=(dataset,))
    plan = open_plan(config, window_starts=False)
    for number in range(8):
        for document in plan.row(number).documents:
            assert len(document.samples) == 3
            assert document.is_pair == any(sample.tokens_text for sample in document.samples)
            assert document.tokens == 304


def test_shard_sets_of_two_layouts_are_an_error(index: Path, tmp_path: Path) -> None:
    other = make_index(
        tmp_path,
        [IndexSource(name="more", kind="text", tokens=np.arange(5, 50))],
        layout=LayoutConfig(cameras=("cam_back",)),
    )
    config = plan_config(index)
    more = DatasetConfig(name="more", shards=str(other))
    with pytest.raises(ConfigError, match="another layout"):
        open_plan(msgspec.structs.replace(config, datasets=(*config.datasets, more)))


def test_two_shard_sets_of_one_layout_form_one_plan(index: Path, tmp_path: Path) -> None:
    other = make_index(tmp_path, [IndexSource(name="more", kind="text", tokens=np.arange(5, 250))])
    config = plan_config(index)
    more = DatasetConfig(name="more", shards=str(other))
    phase = PhaseConfig(name="all", shares={"drive": 0.5, "more": 0.5})
    config = msgspec.structs.replace(config, datasets=(*config.datasets, more), phases=(phase,))
    plan = open_plan(config, window_starts=False)
    shard_sets = {
        sample.shard_set
        for number in range(96)
        for doc in plan.row(number).documents
        for sample in doc.samples
    }
    assert shard_sets == {0, 1}


def test_rows_of_this_version(index: Path, rows: list[PlannedRow]) -> None:
    """Increase PLAN_VERSION (or DOCUMENTS_VERSION) if this digest changes, because old checkpoints then give other rows."""
    summary = [
        [[doc.dataset, doc.samples[0].number, len(doc.samples)] for doc in row.documents]
        for row in rows[:200]
    ]
    assert hashlib.sha256(canonical_json(summary)).hexdigest()[:16] == "74e58c065203f409"


def test_the_fingerprint_depends_on_the_seed(index: Path) -> None:
    plan, reseeded = open_plan(plan_config(index)), open_plan(plan_config(index, seed=1))
    assert isinstance(plan, Plan)
    assert plan.fingerprint == open_plan(plan_config(index)).fingerprint
    assert plan.fingerprint != reseeded.fingerprint
    assert plan.row(0) != reseeded.row(0)
