"""Bad input at the command line gives one clear line with the location, a non-zero exit code and no traceback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sysconfig
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.make_recording import CameraSettings, make_recording

MMPACK = str(Path(sysconfig.get_path("scripts")) / "mmpack")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "drive"
    make_recording(folder, CameraSettings(seconds=3, size=(48, 64)), faults=False)
    return folder


@pytest.fixture
def drive(good: Path, tmp_path: Path) -> Path:
    """A copy of a good recording, to be damaged by a test."""
    return Path(shutil.copytree(good, tmp_path / "drive"))


def mmpack(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [MMPACK, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


def error_line(done: subprocess.CompletedProcess[str]) -> str:
    """Returns the only line on stderr of a command that failed with exit code 1."""
    assert done.returncode == 1, (done.returncode, done.stdout[-500:], done.stderr)
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


def edit_lines(path: Path, change: Callable[[int, str], str]) -> None:
    """Changes every line except the header."""
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *(change(index, row) for index, row in enumerate(rows))]) + "\n")


def missing_camera(drive: Path) -> tuple[str, ...]:
    (drive / "cam_front.mp4").unlink()
    return "cam_front", "no such file"


def truncated_mp4(drive: Path) -> tuple[str, ...]:
    data = (drive / "cam_back.mp4").read_bytes()
    (drive / "cam_back.mp4").write_bytes(data[: len(data) // 2])
    return "cam_back", "truncated"


def zero_byte_wav(drive: Path) -> tuple[str, ...]:
    (drive / "mic.wav").write_bytes(b"")
    return "mic", "empty (0 bytes)"


def no_time_column(drive: Path) -> tuple[str, ...]:
    edit(drive / "imu.csv", lambda text: text.replace("t_ns", "time_ns", 1))
    return "imu", "t_ns", "time_ns"


def boot_clock_as_utc(drive: Path) -> tuple[str, ...]:
    """Declares the boot clock of the drive as utc, so that its timestamps are dates in January 1970."""
    edit(drive / "recording.toml", lambda text: text.replace('domain = "boot"', 'domain = "utc"'))
    return "1970-01-0", "utc"


def nanoseconds_as_microseconds(drive: Path) -> tuple[str, ...]:
    edit(
        drive / "recording.toml",
        lambda text: text.replace(
            'path = "imu.csv"\ntime = { column = "t_ns", unit = "ns" }',
            'path = "imu.csv"\ntime = { column = "t_ns", unit = "us" }',
        ),
    )
    return ("imu",)


def float_nanoseconds(drive: Path) -> tuple[str, ...]:
    edit_lines(drive / "imu.csv", lambda _, row: "1.67306901850347e+18" + row[row.index(",") :])
    return "imu", "float"


def out_of_order(drive: Path) -> tuple[str, ...]:
    head, *rows = (drive / "imu.csv").read_text().splitlines()
    swapped = [row for pair in zip(rows[1::2], rows[0::2], strict=False) for row in pair]
    (drive / "imu.csv").write_text("\n".join([head, *swapped]) + "\n")
    return "imu", "out of order"


def unknown_key(drive: Path) -> tuple[str, ...]:
    edit(drive / "recording.toml", lambda text: text.replace("kind =", "knid =", 1))
    return "unknown key", "Did you mean 'kind'?", "recording.toml"


def unknown_kind(drive: Path) -> tuple[str, ...]:
    edit(drive / "recording.toml", lambda text: text.replace('kind = "imu"', 'kind = "gyroscope"', 1))
    return "recording.toml", "gyroscope"


def unknown_clock(drive: Path) -> tuple[str, ...]:
    edit(drive / "recording.toml", lambda text: text.replace('clock = "rig"', 'clock = "rigg"', 1))
    return "clock 'rigg' has no [clocks] table", "[clocks.rigg]"


def fewer_timestamps_than_frames(drive: Path) -> tuple[str, ...]:
    edit(drive / "cam_front.csv", lambda text: "\n".join(text.splitlines()[:-3]) + "\n")
    return "cam_front", "frames but", "timestamps"


DAMAGES = [
    missing_camera,
    truncated_mp4,
    zero_byte_wav,
    no_time_column,
    boot_clock_as_utc,
    nanoseconds_as_microseconds,
    float_nanoseconds,
    out_of_order,
    unknown_key,
    unknown_kind,
    unknown_clock,
    fewer_timestamps_than_frames,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_recording_gives_one_clear_line(
    drive: Path, tmp_path: Path, damage: Callable[[Path], tuple[str, ...]]
) -> None:
    words = damage(drive)
    for done in (mmpack("sync", drive), mmpack("build-shards", drive, "--out", tmp_path / "out", "-j", "0")):
        line = error_line(done)
        for word in words:
            assert word in line
        assert done.stdout == ""
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_float_nanoseconds_of_a_real_table_are_an_error(real_data: Path) -> None:
    line = error_line(mmpack("sync", real_data / "adversarial" / "float_ns_sample_data.json"))
    assert "float" in line
    assert "integers" in line


@pytest.mark.parametrize("command", ["verify", "report", "pack"])
def test_a_missing_and_an_unfinished_shard_set_are_different_errors(command: str, tmp_path: Path) -> None:
    missing, unfinished = tmp_path / "missing", tmp_path / "unfinished"
    unfinished.mkdir()
    assert (
        error_line(mmpack(command, missing)) == f"error: {missing}: there is no such folder. Check the path."
    )
    assert error_line(mmpack(command, unfinished)) == (
        f"error: {unfinished}: the build is not finished: there is no manifest.json. "
        "Run `mmpack build-shards` again to resume the build."
    )


def test_a_build_config_without_inputs_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "build.toml").write_text("max_quarantine = 0.5\n")
    line = error_line(mmpack("build-shards", tmp_path / "build.toml", "--out", tmp_path / "out"))
    assert line.startswith(f"error: {tmp_path / 'build.toml'}: there is nothing to build")


def test_missing_input_is_an_error(tmp_path: Path) -> None:
    assert "no such file or folder" in error_line(mmpack("sync", tmp_path / "nowhere"))
    assert "the format of this input is unknown" in error_line(mmpack("sync", tmp_path))
    assert "no such file" in error_line(
        mmpack("build-shards", tmp_path / "x.toml", "--out", tmp_path / "out")
    )


def test_an_invalid_reference_or_tolerance_is_an_error(good: Path) -> None:
    assert "no stream 'cam_top'" in error_line(mmpack("sync", good, "--reference", "cam_top"))
    assert "which has no ticks" in error_line(mmpack("sync", good, "--reference", "mic"))
    assert "is not a rate" in error_line(mmpack("sync", good, "--reference", "rate:fast"))
    assert "needs two" in error_line(mmpack("sync", good, "--reference", "consensus:lidar*"))
    assert "tolerance" in error_line(mmpack("sync", good, "--tolerance", "1"))


def test_max_quarantine_sets_the_exit_code(tmp_path: Path) -> None:
    make_recording(tmp_path / "drive", CameraSettings(seconds=6, size=(48, 64)))
    assert mmpack("sync", tmp_path / "drive").returncode == 0
    done = mmpack("sync", tmp_path / "drive", "--max-quarantine", "0", "--json")
    assert "are quarantined, allowed 0.0%" in error_line(done)
    assert json.loads(done.stdout)["quarantined"] > 0


@pytest.mark.parametrize("share", ["nan", "2", "-1", "inf"])
def test_max_quarantine_must_be_a_share(good: Path, share: str) -> None:
    line = error_line(mmpack("sync", good, f"--max-quarantine={share}"))
    assert "--max-quarantine: " in line
    assert "is not a share between 0 and 1" in line


def test_json_output_has_totals_and_integer_times(good: Path) -> None:
    done = mmpack("sync", good, "--json")
    assert done.returncode == 0
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert report["ticks"] == report["passed"] + report["quarantined"] == 30
    for name, stream in report["streams"].items():
        for key in ("residual_p50_ns", "residual_p99_ns", "residual_max_ns", "offset_ns", "raw_spread_ns"):
            assert type(stream[key]) is int, (name, key)


def test_a_tar_member_outside_the_folder_is_an_error_and_is_not_written(good: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert mmpack("build-shards", good, "--out", out, "-j", "0").returncode == 0
    [shard] = out.glob("shards/*.tar")
    with tarfile.open(shard) as archive:
        members = [(member, archive.extractfile(member)) for member in archive.getmembers()]
        with tarfile.open(tmp_path / "evil.tar", "w", format=tarfile.USTAR_FORMAT) as evil:
            for index, (member, content) in enumerate(members):
                if index == 0:
                    member.name = "../../escaped.jpg"
                evil.addfile(member, content)
    shard.write_bytes((tmp_path / "evil.tar").read_bytes())
    line = error_line(mmpack("verify", out))
    assert shard.name in line
    assert not (tmp_path.parent / "escaped.jpg").exists()


def test_help_lists_every_command() -> None:
    done = mmpack("--help")
    assert done.returncode == 0
    for command in ("sync", "build-shards", "verify", "report", "pack", "show-mask"):
        assert command in done.stdout
        assert mmpack(command, "--help").returncode == 0
    assert mmpack("build").returncode == 2
    assert mmpack("--version").stdout.strip()
