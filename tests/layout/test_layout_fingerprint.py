"""The fingerprint of a layout, which settings change it, and light imports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.resources import as_file, files
from pathlib import Path

import pytest

from mmpack.errors import ConfigError
from mmpack.layout import Layout, LayoutConfig
from mmpack.settings import parse_settings

TOKENIZER_FILE = files("mmpack.layout").joinpath("data", "tokenizer.json")
CAN = {"name": "can", "width": 2, "mode": "discrete", "low": -1.0, "high": 1.0}
IMU = {"name": "imu", "width": 6}
BASE = {"cameras": ["cam_front", "cam_back"], "numeric": [IMU, CAN]}


def fingerprint(table: dict) -> str:
    return Layout(parse_settings(table, LayoutConfig, where="test.toml")).fingerprint


def test_the_fingerprint_is_a_sha256_and_equal_in_another_process() -> None:
    expected = fingerprint(BASE)
    assert re.fullmatch("[0-9a-f]{64}", expected)
    program = (
        "import json, sys; from mmpack.settings import parse_settings; from mmpack.layout import Layout, LayoutConfig;"
        "print(Layout(parse_settings(json.loads(sys.argv[1]), LayoutConfig, where='x')).fingerprint)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(BASE)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


@pytest.mark.parametrize(
    "change",
    [
        {"vision": {"patch_size": 14}},
        {"vision": {"merge": 1}},
        {"vision": {"min_tokens": 5}},
        {"vision": {"max_tokens": 255}},
        {"vision": {"size": [64, 64]}},
        {"audio": {"codec": "mimi"}},
        {"audio": {"sample_rate_hz": 24_000}},
        {"audio": {"hop": 160}},
        {"audio": {"codebooks": 2}},
        {"audio": {"codebook_size": 512}},
        {"time": {"step": "200ms"}},
        {"time": {"span": "30s"}},
        {"cameras": ["cam_back", "cam_front"]},
        {"cameras": ["cam_front"]},
        {"numeric": [CAN, IMU]},
        {"numeric": [{**IMU, "name": "imu2"}, CAN]},
        {"numeric": [{**IMU, "width": 3}, CAN]},
        {"numeric": [{**IMU, "role": "action"}, CAN]},
        {"numeric": [IMU, {**CAN, "mode": "continuous"}]},
        {"numeric": [IMU, {**CAN, "bins": 128}]},
        {"numeric": [IMU, {**CAN, "low": -2.0}]},
        {"numeric": [IMU, {**CAN, "high": [1.0, 2.0]}]},
    ],
    ids=str,
)
def test_every_setting_that_changes_tokens_changes_the_fingerprint(change: dict) -> None:
    assert fingerprint({**BASE, **change}) != fingerprint(BASE)


@pytest.mark.parametrize(
    "equivalent",
    [
        {"time": {"step": "0.1s", "span": "1min"}},
        {"vision": {"patch_size": 16}},
        {"text": {"tokenizer": "builtin"}},
        {"numeric": [{**IMU, "bins": 3, "low": 0.0}, CAN]},
        {"numeric": [IMU, {**CAN, "low": [-1.0, -1.0], "high": 1}]},
    ],
    ids=str,
)
def test_settings_with_the_same_tokens_have_the_same_fingerprint(equivalent: dict) -> None:
    assert fingerprint({**BASE, **equivalent}) == fingerprint(BASE)


def test_token_limits_do_not_count_with_a_fixed_size() -> None:
    sized = {**BASE, "vision": {"size": [64, 64]}}
    assert fingerprint({**BASE, "vision": {"size": [64, 64], "max_tokens": 9}}) == fingerprint(sized)


def test_the_fingerprint_depends_on_the_bytes_of_the_tokenizer_not_on_its_path(tmp_path: Path) -> None:
    with as_file(TOKENIZER_FILE) as builtin:
        copy = shutil.copy(builtin, tmp_path / "copy.json")
    assert fingerprint({**BASE, "text": {"tokenizer": str(copy)}}) == fingerprint(BASE)
    Path(copy).write_bytes(Path(copy).read_bytes() + b"\n")
    assert fingerprint({**BASE, "text": {"tokenizer": str(copy)}}) != fingerprint(BASE)


def test_an_unknown_key_is_an_error_that_suggests_the_closest_key() -> None:
    with pytest.raises(ConfigError, match="patch_size"):
        fingerprint({"vision": {"patchsize": 16}})


def test_importing_the_package_imports_no_large_library() -> None:
    program = "import sys, mmpack.layout; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "av", "tokenizers", "pyarrow", "soundfile"} & set(loaded.stdout.split())
