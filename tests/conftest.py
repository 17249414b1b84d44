"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]
VARIABLE = "MMPACK_REAL_DATA"

settings.register_profile("mmpack", deadline=None)
settings.load_profile("mmpack")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings. Skips the test where there is none."""
    folder = Path(os.environ.get(VARIABLE) or ROOT / ".." / "shared" / "data").resolve()
    if not folder.is_dir():
        pytest.skip(f"no real recordings at {folder}: set {VARIABLE} to their folder")
    return folder
