"""The mix of real recordings: one build of every kind, that verifies, and a plan of it that can be read."""

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


def rows(mix: Path, recordings: str = "*") -> list[dict[str, Any]]:
    table = ShardSet(str(mix / "shards")).index.to_pylist()
    return [row for row in table if fnmatch.fnmatchcase(row["recording"], recordings)]


def test_it_verifies_and_holds_every_kind_and_modality(mix: Path) -> None:
    assert verify(str(mix / "shards")).problems == []
    manifest = ShardSet(str(mix / "shards")).manifest
    assert Counter(row["kind"] for row in rows(mix)) == {
        "slice": 9 + 37 + 46 + 13 + 10 + 600,
        "image_text": 54,
        "speech": 6,
        "text": TEXTS,
    }
    assert manifest.quarantined == 0
    assert all(manifest.tokens_by_modality[name] > 0 for name in manifest.tokens_by_modality)


def test_each_keyframe_has_six_cameras_within_a_millisecond(mix: Path) -> None:
    keyframes = rows(mix, "n0*")
    assert len(keyframes) == 9
    assert all(len({camera["name"] for camera in row["cameras"]}) == 6 for row in keyframes)
    assert max(row["residual_ns"] for row in keyframes) <= 10**6
    # 12 x 21 patches of 32 x 32 pixels are the most under 256 at 16:9; each camera has a token, each slice a time.
    assert {row["tokens"] for row in keyframes} == {6 * (1 + 12 * 21) + 1}


def test_each_robot_slice_has_its_state_and_the_actions_up_to_the_next(mix: Path) -> None:
    episodes = rows(mix, "episode_*")
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


def test_films_have_a_second_of_sound_and_their_subtitles(mix: Path) -> None:
    films = rows(mix, "nasa_*") + rows(mix, "gopro_*")
    assert {row["tokens_audio"] for row in films} == {50}
    assert all(len(row["cameras"]) == 1 for row in films)
    assert sum(row["text_bytes"] > 0 for row in films) == 4


def test_the_plan_reads_and_its_patterns_share_out_every_sample_once(mix: Path) -> None:
    plan = load_settings(mix / "plan.toml", PlanConfig)
    found = [
        [
            one.name
            for one in plan.datasets
            if any(fnmatch.fnmatchcase(row["recording"], p) for p in one.select)
        ]
        for row in rows(mix)
    ]
    assert all(len(names) == 1 for names in found)
    assert {name for (name,) in found} == {one.name for one in plan.datasets}
    assert [phase.num_tokens for phase in plan.phases] == [10**6, 8 * 10**6, 10**6]
    located = plan.resolve_paths(mix)
    assert {Path(one.shards) for one in located.datasets} == {mix / "shards"}


def test_another_folder_gets_the_same_bytes(mix: Path, real_data: Path, tmp_path: Path) -> None:
    make_real_mix(tmp_path, real_data, texts=TEXTS)
    files = sorted(path.relative_to(mix) for path in (mix / "shards").rglob("*") if path.is_file())
    built = [path for path in files if "_build" not in path.parts]
    assert len(built) > 10
    assert all((mix / path).read_bytes() == (tmp_path / path).read_bytes() for path in built)


def test_texts_are_of_every_length_and_none_twice() -> None:
    texts = [text for _, text in standard_library_texts(2000)]
    assert len(set(texts)) == len(texts) == 2000
    lengths = sorted(map(len, texts))
    assert lengths[0] >= 80
    assert lengths[-1] <= 12_000
    assert lengths[1000] < 1000 < 5000 < lengths[-10]
