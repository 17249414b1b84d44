"""Builds with cameras of policy window: tubelets of a video."""

from __future__ import annotations

import io
import json
import tarfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from mmpack import ShardSet, verify
from mmpack.errors import DataError
from mmpack.ingest import BuildConfig, BuildOutcome, build_shards
from mmpack.settings import parse_settings
from tests.recording.media_files import MS, S, grey_level, write_recording_toml, write_video
from tools.make_recording import CameraSettings, make_recording


def run(folder: Path, out: Path, policy: dict[str, str]) -> BuildOutcome:
    """Builds shards with five tubelets per second."""
    table = {
        "recordings": [str(folder)],
        "max_quarantine": 0.5,
        "sync": {"reference": "rate:5", "streams": {"cam_*": {"policy": "window", **policy}}},
    }
    return build_shards(parse_settings(table, BuildConfig, where="build.toml"), str(out))


def build(folder: Path, out: Path, policy: dict[str, str]) -> dict[str, dict[str, bytes]]:
    """Builds and verifies shards with tubelets; returns the members of every sample by key."""
    assert run(folder, out, policy).failures == []
    verdict = verify(str(out))
    assert (verdict.problems, verdict.notes) == ([], [])
    samples: dict[str, dict[str, bytes]] = {}
    for url in ShardSet(str(out)).urls:
        with tarfile.open(url) as tar:
            for member in tar:
                key, _, name = Path(member.name).name.partition(".")
                samples.setdefault(key, {})[name] = tar.extractfile(member).read()  # type: ignore[union-attr]
    return samples


def decode_mp4(data: bytes) -> tuple[list[int], list[int]]:
    """Returns the times in ns since the first frame, and the mean grey levels, of all frames of an mp4."""
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(video=0))
    timestamps = [round(Fraction(frame.pts or 0) * frame.time_base * S) for frame in frames]
    return timestamps, [int(frame.to_ndarray(format="gray").mean()) for frame in frames]


@pytest.fixture
def camera(tmp_path: Path) -> tuple[Path, NDArray[np.int64]]:
    """A recording of one camera with 60 frames at 20 Hz, in a file whose own times are at 25 Hz, and its timestamps."""
    timestamps = (
        100 * S + np.arange(60, dtype=np.int64) * 50 * MS + np.random.default_rng(0).integers(0, MS, 60)
    )
    write_video(tmp_path / "front.mp4", [40 * index for index in range(60)], b_frames=2)
    (tmp_path / "front.csv").write_text("t\n" + "".join(f"{t}\n" for t in timestamps.tolist()))
    write_recording_toml(
        tmp_path,
        '[streams.cam_front]\nkind = "camera"\npath = "front.mp4"\n'
        'time = { path = "front.csv", column = "t", unit = "ns" }',
    )
    return tmp_path, timestamps


@pytest.mark.parametrize(("before_ms", "after_ms", "count"), [(0, 200, 15), (100, 200, 15), (150, 400, 13)])
def test_a_tubelet_has_the_frames_of_its_window(
    camera: tuple[Path, NDArray[np.int64]], tmp_path: Path, before_ms: int, after_ms: int, count: int
) -> None:
    folder, timestamps = camera
    policy = {"before": f"{before_ms}ms", "after": f"{after_ms}ms"}
    samples = build(folder, tmp_path / "out", policy)
    assert len(samples) == count  # all other windows extend past the first or last frame
    for members in samples.values():
        metadata: dict[str, Any] = json.loads(members["json"])
        view = metadata["streams"]["cam_front"]
        low, high = metadata["t_ns"] - before_ms * MS, metadata["t_ns"] + after_ms * MS
        inside = np.flatnonzero((timestamps >= low) & (timestamps < high))
        assert view["timestamps_ns"] == timestamps[inside].tolist()
        assert (view["item"], view["t_ns"]) == (inside[0], timestamps[inside[0]])
        times, greys = decode_mp4(members["cam_front.mp4"])
        assert np.abs(np.array(times) - (timestamps[inside] - timestamps[inside[0]])).max() <= MS // 100
        # The frames were coded twice with loss, and neighbouring frames differ by at least 37 grey levels.
        assert np.abs(np.array(greys) - [grey_level(int(index)) for index in inside]).max() < 12


def test_tubelets_of_two_builds_are_identical_bytes(tmp_path: Path) -> None:
    make_recording(tmp_path / "drive", CameraSettings(seconds=2, size=(48, 64)), faults=False)
    first = build(tmp_path / "drive", tmp_path / "a", {"before": "100ms"})
    assert first == build(tmp_path / "drive", tmp_path / "b", {"before": "100ms"})
    for members in first.values():
        assert sum(name.endswith(".mp4") for name in members) == 6
        assert not any(name.endswith(".jpg") for name in members)


def test_windows_that_overlap_by_too_many_frames_are_an_error(tmp_path: Path) -> None:
    write_video(tmp_path / "front.mp4", [5 * index for index in range(700)])
    write_recording_toml(tmp_path, '[streams.cam_front]\nkind = "camera"\npath = "front.mp4"\nstart = "100s"')
    (failure,) = run(tmp_path, tmp_path / "out", {"before": "800ms", "after": "800ms"}).failures
    assert isinstance(failure.error, DataError)
    assert "more than 256 frames" in failure.error.message
    assert "cam_front" in str(failure.error)
