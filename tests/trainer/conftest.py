"""A build that several tests of the trainer read, made once."""

from __future__ import annotations

import pytest

from mmpack import Shards
from tests.stream.rows_made import build_mixed


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """A drive of six cameras, sound, discrete and continuous streams, actions and subtitles; texts, captions, speech."""
    pytest.importorskip("torchtitan")
    return build_mixed(tmp_path_factory.mktemp("mixed"))
