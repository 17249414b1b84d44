"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from mmpack import Shards
    from tests.stream.damaged_runs import Sound

ROOT = Path(__file__).parents[1]
VARIABLE = "MMPACK_REAL_DATA"

settings.register_profile("mmpack", deadline=None)
settings.load_profile("mmpack")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither use nor leave anything in the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMPACK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings. Skips the test where there is none."""
    folder = Path(os.environ.get(VARIABLE) or ROOT / ".." / "shared" / "data").resolve()
    if not folder.is_dir():
        pytest.skip(f"no real recordings at {folder}: set {VARIABLE} to their folder")
    return folder


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """A drive of six cameras, sound, discrete and continuous streams and subtitles; texts, captions,
    speech.
    """
    from tests.rows.handmade_rows import build_mixed

    return build_mixed(tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="session")
def tubelets(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """A drive whose cameras are tubelets."""
    from tests.rows.handmade_rows import build_tubelets

    return build_tubelets(tmp_path_factory.mktemp("tubelets"))


@pytest.fixture(scope="session")
def cameras(tmp_path_factory: pytest.TempPathFactory, real_data: Path) -> Shards:
    """Slices of six real 1600 x 900 pictures."""
    from tests.rows.handmade_rows import build_cameras

    return build_cameras(tmp_path_factory.mktemp("cameras"), real_data)


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    """A run without faults, to be compared with."""
    from tests.stream.damaged_runs import sound_run

    return sound_run(tmp_path_factory.mktemp("sound"), tmp_path_factory.mktemp("inputs"))
