"""Tests of the mix of real recordings: one valid build with every kind of sample, and a plan that can be loaded."""

from __future__ import annotations

import fnmatch
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mmpack import Layout, LayoutConfig, ShardSet, verify
from mmpack.plan.plan_config import PlanConfig
from mmpack.settings import load_settings, parse_settings
from tools.real_mix import make_real_mix
from tools.real_texts import standard_library_texts

pytestmark = pytest.mark.slow
TEXTS = 300


@pytest.fixture(scope="module")
def mix(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mix")
    outcome = make_real_mix(folder, real_data, texts=TEXTS)
    assert not outcome.failures
    return folder


def index_entries(mix: Path, recordings: str = "*") -> list[dict[str, Any]]:
    table = ShardSet(str(mix / "shards")).index.to_pylist()
    return [row for row in table if fnmatch.fnmatchcase(row["recording"], recordings)]


def test_shard_set_is_valid_and_has_every_kind_and_modality(mix: Path) -> None:
    assert verify(str(mix / "shards")).problems == []
    manifest = ShardSet(str(mix / "shards")).manifest
    assert Counter(row["kind"] for row in index_entries(mix)) == {
        "slice": 9 + 37 + 46 + 13 + 10 + 600,
        "image_text": 54,
        "speech": 6,
        "text": TEXTS,
    }
    assert manifest.quarantined == 0
    assert all(manifest.tokens_by_modality[name] > 0 for name in manifest.tokens_by_modality)


def test_every_keyframe_has_six_cameras_within_a_millisecond(mix: Path) -> None:
    keyframes = index_entries(mix, "n0*")
    assert len(keyframes) == 9
    assert all(len({camera["name"] for camera in row["cameras"]}) == 6 for row in keyframes)
    assert max(row["residual_ns"] for row in keyframes) <= 10**6
    # At 16:9, 12 x 21 patches of 32 x 32 pixels are the largest grid below 256. Each camera has one more token, and each
    # slice has a time token.
    assert {row["tokens"] for row in keyframes} == {6 * (1 + 12 * 21) + 1}


def test_every_robot_slice_has_a_state_and_the_actions_until_the_next_slice(mix: Path) -> None:
    episodes = index_entries(mix, "episode_*")
    assert {(row["tokens_numeric"], row["tokens_action"]) for row in episodes[:36]} == {(1, 6)}
    assert all(1 <= row["tokens_action"] <= 6 for row in episodes)
    assert all(row["residual_ns"] == 0 for row in episodes)
    assert [row["ordinal"] for row in episodes if row["text_bytes"]] == [0, 0]
    layout = Layout(
        parse_settings(ShardSet(str(mix / "shards")).manifest.config["layout"], LayoutConfig, where="")
    )
    streams = {stream.name: stream for stream in layout.config.numeric}
    assert (streams["action"].width, streams["action"].role) == (26, "action")
    assert (streams["state"].width, streams["state"].role) == (26, "observation")


def test_films_have_a_second_of_audio_and_their_subtitles(mix: Path) -> None:
    films = index_entries(mix, "nasa_*") + index_entries(mix, "gopro_*")
    assert {row["tokens_audio"] for row in films} == {50}
    assert all(len(row["cameras"]) == 1 for row in films)
    assert sum(row["text_bytes"] > 0 for row in films) == 4


def test_every_sample_belongs_to_exactly_one_data_set_of_the_plan(mix: Path) -> None:
    plan = load_settings(mix / "plan.toml", PlanConfig)
    matches = [
        [
            dataset.name
            for dataset in plan.datasets
            if any(fnmatch.fnmatchcase(row["recording"], pattern) for pattern in dataset.select)
        ]
        for row in index_entries(mix)
    ]
    assert all(len(names) == 1 for names in matches)
    assert {name for (name,) in matches} == {dataset.name for dataset in plan.datasets}
    assert [phase.num_tokens for phase in plan.phases] == [10**6, 8 * 10**6, 10**6]
    resolved = plan.resolve_paths(mix)
    assert {Path(dataset.shards) for dataset in resolved.datasets} == {mix / "shards"}


def test_build_in_another_folder_gives_the_same_bytes(mix: Path, real_data: Path, tmp_path: Path) -> None:
    make_real_mix(tmp_path, real_data, texts=TEXTS)
    files = sorted(path.relative_to(mix) for path in (mix / "shards").rglob("*") if path.is_file())
    results = [path for path in files if "_build" not in path.parts]
    assert len(results) > 10
    assert all((mix / path).read_bytes() == (tmp_path / path).read_bytes() for path in results)


def test_texts_have_all_lengths_and_no_duplicates() -> None:
    texts = [text for _, text in standard_library_texts(2000)]
    assert len(set(texts)) == len(texts) == 2000
    lengths = sorted(map(len, texts))
    assert lengths[0] >= 80
    assert lengths[-1] <= 12_000
    assert lengths[1000] < 1000 < 5000 < lengths[-10]
