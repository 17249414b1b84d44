"""The cache folder of derived tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpack.errors import ConfigError
from mmpack.storage.array_tables import cache_folder


def raise_no_home() -> Path:
    # Path.home() raises this error for a container user that has a number but no name.
    raise RuntimeError("Could not determine home directory.")


def test_a_user_without_a_home_folder_gets_a_hint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MMPACK_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", raise_no_home)
    with pytest.raises(ConfigError, match=r"MMPACK_CACHE: this user has no home folder\. Set it"):
        cache_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "mmpack"
    monkeypatch.setenv("MMPACK_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
