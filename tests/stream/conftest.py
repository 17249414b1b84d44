"""Builds that several tests of the stream read, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpack import Shards
from tests.stream.faults_made import Sound, sound_run
from tests.stream.rows_made import build_cameras, build_mixed, build_tubelets


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """A drive of six cameras, sound, discrete and continuous streams and subtitles; texts, captions,
    speech.
    """
    return build_mixed(tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="session")
def tubelets(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """A drive whose cameras are tubelets."""
    return build_tubelets(tmp_path_factory.mktemp("tubelets"))


@pytest.fixture(scope="session")
def cameras(tmp_path_factory: pytest.TempPathFactory, real_data: Path) -> Shards:
    """Slices of six real 1600 x 900 pictures."""
    return build_cameras(tmp_path_factory.mktemp("cameras"), real_data)


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    """A run without faults, to be compared with."""
    return sound_run(tmp_path_factory.mktemp("sound"), tmp_path_factory.mktemp("inputs"))
