"""Settings and fixtures that all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.examples import examples

if TYPE_CHECKING:
    from mmpack import ShardSet
    from tests.stream.damaged_runs import IntactRun

ROOT = Path(__file__).parents[1]
REAL_DATA_VARIABLE = "MMPACK_REAL_DATA"

settings.register_profile("mmpack", deadline=None, max_examples=examples(100))
settings.load_profile("mmpack")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Sets the cache folder of all tests to a temporary folder, so that the user's cache folder stays unchanged."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMPACK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings. Skips the test if there is none."""
    folder = Path(os.environ.get(REAL_DATA_VARIABLE) or ROOT / ".." / "shared" / "data").resolve()
    if not folder.is_dir():
        pytest.skip(f"no real recordings at {folder}: set {REAL_DATA_VARIABLE} to their folder")
    return folder


@pytest.fixture(scope="session")
def mixed_shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """Shards of a drive (six cameras, audio, discrete and continuous streams, subtitles), of texts, captioned
    images and speech.
    """
    from tests.rows.handmade_rows import build_mixed

    return build_mixed(tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="session")
def tubelet_shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """Shards of a drive whose cameras give tubelets."""
    from tests.rows.handmade_rows import build_tubelets

    return build_tubelets(tmp_path_factory.mktemp("tubelets"))


@pytest.fixture(scope="session")
def camera_shards(tmp_path_factory: pytest.TempPathFactory, real_data: Path) -> ShardSet:
    """Shards of slices of six real 1600 x 900 images."""
    from tests.rows.handmade_rows import build_cameras

    return build_cameras(tmp_path_factory.mktemp("cameras"), real_data)


@pytest.fixture(scope="session")
def intact_run(tmp_path_factory: pytest.TempPathFactory) -> IntactRun:
    """A run without faults, as a reference."""
    from tests.stream.damaged_runs import make_intact_run

    return make_intact_run(tmp_path_factory.mktemp("intact"), tmp_path_factory.mktemp("inputs"))
