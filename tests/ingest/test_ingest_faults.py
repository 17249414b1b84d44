"""Builds under faults: full disks, unwritable targets, changed settings, bad input, damaged shards."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmpack import ShardSet, verify
from mmpack.errors import IntegrityError
from mmpack.shards import tar
from tests.ingest.build_inputs import MMPACK, build_command, compute_digests, make_inputs, run
from tests.small_disk import mount_small_disk
from tools.make_recording import CameraSettings, make_recording


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"), drives=1)


@pytest.fixture(scope="module")
def built_shards(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "out"
    assert run(build_command(config, out, "-j", "0")).returncode == 0
    return out


@pytest.fixture
def shards_copy(built_shards: Path, tmp_path: Path) -> Path:
    """Returns a copy of the finished build, which a test may damage."""
    return Path(shutil.copytree(built_shards, tmp_path / "copy"))


def expect_error(done: subprocess.CompletedProcess, *words: str) -> str:
    """Checks that a command failed with one error line that contains `words` and no traceback; returns the line."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    for word in words:
        assert word in lines[0], lines[0]
    return lines[0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yields the folder of a file system of 300 kB, which a build fills."""
    with mount_small_disk("300k", tmp_path) as disk:
        yield disk


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_full_disk(config: Path, built_shards: Path, small_disk: Path, workers: str) -> None:
    out = small_disk / "out"
    done = run(build_command(config, out, "-j", workers))
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "resumes" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (out / "manifest.json").exists()
    for path in out.glob("shards/*.tar"):
        assert path.read_bytes() == (built_shards / "shards" / path.name).read_bytes()
    # After the disk has grown, the same command resumes the build and gives the same result.
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert run(build_command(config, out, "-j", workers)).returncode == 0
    assert compute_digests(out) == compute_digests(built_shards)


def test_a_file_size_limit(config: Path, tmp_path: Path) -> None:
    """Covers a full disk where the test may not mount one."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    done = subprocess.run(
        build_command(config, tmp_path / "out", "-j", "0"),
        capture_output=True,
        text=True,
        preexec_fn=limit,
        check=False,
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("shards/*.tar"))


def test_an_unwritable_target(config: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    expect_error(
        run(build_command(config, tmp_path / "file" / "out", "-j", "0")), "writing failed", "Not a directory"
    )
    expect_error(run(build_command(config, "/proc/mmpack", "-j", "0")), "writing failed")


def test_changed_settings_raise_with_the_differences(config: Path, shards_copy: Path) -> None:
    changed = config.with_name("changed.toml")
    changed.write_text(config.read_text().replace('size = "40kB"', 'size = "40kB"\njpeg_quality = 50'))
    expect_error(
        run(build_command(changed, shards_copy)), "shards.jpeg_quality is 50 and was 90", "--overwrite"
    )
    assert run(build_command(changed, shards_copy, "--overwrite")).returncode == 0
    assert verify(str(shards_copy)).problems == []


def test_changed_input_raises(config: Path, shards_copy: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(config.parent, tmp_path / "inputs"))
    with (moved / "texts.jsonl").open("a") as file:
        file.write('{"text": "one more"}\n')
    done = run(build_command(moved / "build.toml", shards_copy, "-j", "0"))
    expect_error(done, "'texts' built from other files", "--overwrite")


def test_corrected_input_is_rebuilt(config: Path, built_shards: Path, tmp_path: Path) -> None:
    """One input fails and the others are built. After its correction, the same command finishes the build."""
    inputs = Path(shutil.copytree(config.parent, tmp_path / "inputs"))
    valid = (inputs / "texts.jsonl").read_bytes()
    (inputs / "texts.jsonl").write_bytes(valid[: valid.rindex(b"{")] + b'{"text": 5}\n')
    out = tmp_path / "out"
    expect_error(run(build_command(inputs / "build.toml", out)), "texts.jsonl", "holds int, not text")
    assert not (out / "manifest.json").exists()
    (inputs / "texts.jsonl").write_bytes(valid)
    assert run(build_command(inputs / "build.toml", out)).returncode == 0
    assert compute_digests(out) == compute_digests(built_shards)


def test_too_much_quarantine(config: Path, tmp_path: Path) -> None:
    done = run(build_command(config, tmp_path / "out", "-j", "0", "--max-quarantine", "0"))
    expect_error(done, "drive-000", "slices", "a higher --max-quarantine and --overwrite")
    assert not (tmp_path / "out" / "manifest.json").exists()
    # The command that the hint names finishes the build.
    command = build_command(config, tmp_path / "out", "-j", "0", "--max-quarantine", "0.2", "--overwrite")
    assert run(command).returncode == 0
    assert (tmp_path / "out" / "manifest.json").exists()


def test_unknown_keys(config: Path, tmp_path: Path) -> None:
    for line, nearest in (
        ("max_quarantin = 0.2", "max_quarantine"),
        ("[shard]", "shards"),
        ("[sync]\nreferenc = 'x'", "reference"),
    ):
        bad = tmp_path / "bad.toml"
        bad.write_text(f'recordings = ["x"]\n{line}\n')
        expect_error(
            run(build_command(bad, tmp_path / "out")), "unknown key", f"Did you mean '{nearest}'?", "bad.toml"
        )


def test_wrong_types(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text('recordings = ["x"]\nmax_quarantine = "much"\n')
    expect_error(run(build_command(bad, tmp_path / "out")), "max_quarantine", "float")
    bad.write_text('recordings = ["x"]\n[shards]\nsize = "big"\n')
    expect_error(run(build_command(bad, tmp_path / "out")), "512MB")
    bad.write_text("recordings = [\n")
    expect_error(run(build_command(bad, tmp_path / "out")), "not valid TOML")
    bad.write_text("recordings = []\n")
    expect_error(run(build_command(bad, tmp_path / "out")), "nothing to build")


def test_two_inputs_with_the_same_name(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        make_recording(tmp_path / folder, CameraSettings(seconds=3, size=(48, 64)), faults=False, name="same")
    done = run(
        [MMPACK, "build-shards", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "out")]
    )
    expect_error(done, "two inputs are called 'same'")


def test_json_output_is_one_object(config: Path, built_shards: Path) -> None:
    for arguments in (
        build_command(config, built_shards, "--json"),
        [MMPACK, "verify", str(built_shards), "--json"],
        [MMPACK, "report", str(built_shards), "--json"],
    ):
        done = run(arguments)
        assert done.returncode == 0, done.stderr
        assert isinstance(json.loads(done.stdout), dict)
    (built_shards / "report.png").unlink()


def _flip_bits(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x55
    path.write_bytes(data)


def test_verify_finds_a_flipped_byte_anywhere(shards_copy: Path) -> None:
    shard = sorted(shards_copy.glob("shards/drive*.tar"))[0]
    size = shard.stat().st_size
    for offset in (0, 600, size // 3, size // 2, size - 1100, size - 1):
        before = shard.read_bytes()
        _flip_bits(shard, offset)
        assert verify(str(shards_copy)).problems, offset
        shard.write_bytes(before)
    assert not verify(str(shards_copy)).problems


def test_verify_finds_truncated_missing_and_longer_shards(shards_copy: Path) -> None:
    shard = sorted(shards_copy.glob("shards/*.tar"))[0]
    before = shard.read_bytes()
    shard.write_bytes(before[:-700])
    expect_error(run([MMPACK, "verify", str(shards_copy)]), "truncated or replaced")
    shard.write_bytes(before + bytes(512))
    assert verify(str(shards_copy)).problems
    shard.unlink()
    assert "No such file" in verify(str(shards_copy)).problems[0]


def test_verify_finds_a_damaged_index_or_manifest(shards_copy: Path) -> None:
    _flip_bits(shards_copy / "index.parquet", 100)
    assert "index.parquet" in verify(str(shards_copy)).problems[0]
    (shards_copy / "manifest.json").write_text("{")
    expect_error(run([MMPACK, "verify", str(shards_copy)]), "manifest is damaged")
    (shards_copy / "manifest.json").unlink()
    expect_error(
        run([MMPACK, "verify", str(shards_copy)]), "the build is not finished: there is no manifest.json"
    )


def test_a_member_name_outside_the_folder_raises(shards_copy: Path, tmp_path: Path) -> None:
    """A member named ../ raises with its name, both when a sample is read and when a header is verified."""
    shard = sorted(shards_copy.glob("shards/texts*.tar"))[0]
    data = bytearray(shard.read_bytes())
    header = tarfile.TarInfo("../../etc/passwd")  # mmpack's own header writer would raise for this name.
    header.size = int(data[124:135], 8)
    data[:512] = header.tobuf(tarfile.USTAR_FORMAT)[:512]
    entries = ShardSet(str(shards_copy)).index.to_pylist()
    first = next(entry for entry in entries if entry["shard"].endswith(shard.name))
    with pytest.raises(IntegrityError, match=r"'\.\./\.\./etc/passwd' would leave"):
        list(tar.iter_members(bytes(data[: first["size_bytes"]]), where=str(shard)))
    shard.write_bytes(data)
    expect_error(run([MMPACK, "verify", str(shards_copy)]), "problems")


def test_tar_extracts_all_members(built_shards: Path, tmp_path: Path) -> None:
    for shard in built_shards.glob("shards/*.tar"):
        subprocess.run(["tar", "-xf", str(shard), "-C", str(tmp_path)], check=True)
    assert len(list(tmp_path.iterdir())) == verify(str(built_shards)).members


def test_object_store(config: Path, built_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build into a local S3-compatible server gives the same bytes as one into a folder, and can be verified there."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        settings = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=settings["AWS_ENDPOINT_URL"], region_name="us-east-1")
        client.create_bucket(Bucket="shards")
        done = run(build_command(config, "s3://shards/some/where", "-j", "2"))
        assert done.returncode == 0, done.stderr
        verification = verify("s3://shards/some/where")
        assert verification.problems == []
        objects = client.list_objects_v2(Bucket="shards")["Contents"]
        remote = {entry["Key"].removeprefix("some/where/"): entry["Key"] for entry in objects}
        assert sorted(remote) == sorted(compute_digests(built_shards))
        for name, key in remote.items():
            assert (
                client.get_object(Bucket="shards", Key=key)["Body"].read()
                == (built_shards / name).read_bytes()
            ), name
        sample = ShardSet("s3://shards/some/where").sample("drive-000-00000003")
        assert sample == ShardSet(str(built_shards)).sample("drive-000-00000003")
        expect_error(
            run([MMPACK, "verify", "s3://shards/elsewhere"]), "s3://shards/elsewhere: there is no such folder"
        )
    finally:
        server.stop()


def test_a_url_with_an_unknown_scheme(config: Path) -> None:
    expect_error(run(build_command(config, "ftp://somewhere/out")), "not a path or object store URL")


def test_import_without_torch() -> None:
    """mmpack and its command line do not import torch or numba, which take seconds to load."""
    code = "import sys, mmpack, mmpack.cli; sys.exit('torch' in sys.modules or 'numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_overwrite_removes_builds_and_nothing_else(config: Path, shards_copy: Path, tmp_path: Path) -> None:
    _write(shards_copy / "shards", "mine.txt", "precious")
    (shards_copy / "precious.parquet").write_bytes(b"mine")
    assert run(build_command(config, shards_copy, "--overwrite", "-j", "0")).returncode == 0
    assert (shards_copy / "shards" / "mine.txt").read_text() == "precious"
    assert (shards_copy / "precious.parquet").read_bytes() == b"mine"
    folder = tmp_path / "other"
    folder.mkdir()
    _write(folder, "thesis.tex", "years of work")
    expect_error(
        run(build_command(config, folder, "--overwrite")), "contains other files ('thesis.tex') and no build"
    )
    assert list(folder.iterdir()) == [folder / "thesis.tex"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('path = "mic.wav"', 'path = "mic.wav"\nlatency = "3ms"'),
        ('path = "imu.csv"', 'path = "imu.csv"\ncolumns = ["ax", "ay"]'),
        ('kind = "imu"', 'kind = "numeric"'),
    ],
)
def test_an_edited_recording_toml_raises(
    config: Path, shards_copy: Path, tmp_path: Path, old: str, new: str
) -> None:
    """A finished build is not accepted for an edited recording.toml."""
    inputs = Path(shutil.copytree(config.parent, tmp_path / "inputs"))
    description = inputs / "drive-0" / "recording.toml"
    assert old in description.read_text()
    description.write_text(description.read_text().replace(old, new))
    done = run(build_command(inputs / "build.toml", shards_copy, "-j", "0"))
    assert "--overwrite" in expect_error(done)


def test_an_edit_that_keeps_the_size_raises(config: Path, shards_copy: Path, tmp_path: Path) -> None:
    inputs = Path(shutil.copytree(config.parent, tmp_path / "inputs"))
    table = inputs / "drive-0" / "can.csv"
    text = table.read_text()
    digit = next(offset for offset in range(len(text) - 1, 0, -1) if text[offset].isdigit())
    table.write_text(text[:digit] + str((int(text[digit]) + 1) % 10) + text[digit + 1 :])
    assert table.stat().st_size == len(text)
    expect_error(
        run(build_command(inputs / "build.toml", shards_copy, "-j", "0")),
        "'drive-000' built from other files",
    )


def test_fewer_inputs_raise(config: Path, shards_copy: Path) -> None:
    fewer = config.with_name("fewer.toml")
    text = config.read_text()
    fewer.write_text(text[: text.rindex("[[samples]]")])
    line = expect_error(run(build_command(fewer, shards_copy, "-j", "0")))
    assert "'speech', which is not among the inputs" in line or "samples" in line


def test_an_empty_target_name(config: Path) -> None:
    expect_error(run(build_command(config, "")), "no target")


def test_source_names_are_sanitised(tmp_path: Path) -> None:
    _write(tmp_path, "t.jsonl", '{"text": "one"}\n\n{"text": "two"}\n')
    config = _write(
        tmp_path, "b.toml", '[[samples]]\nname = "../my.texts"\nkind = "text"\npath = "t.jsonl"\n'
    )
    assert run(build_command(config, tmp_path / "out", "-j", "0")).returncode == 0
    assert verify(str(tmp_path / "out")).problems == []
    assert ShardSet(str(tmp_path / "out")).index["key"].to_pylist() == [
        "my_texts-00000000",
        "my_texts-00000001",
    ]


@pytest.mark.parametrize("line", ['{"text": "\\ud800"}', '{"text": ' + "[" * 100_000, "[1]", '{"txt": "x"}'])
def test_lines_that_are_not_samples(tmp_path: Path, line: str) -> None:
    _write(tmp_path, "t.jsonl", line + "\n")
    config = _write(tmp_path, "b.toml", '[[samples]]\nname = "t"\nkind = "text"\npath = "t.jsonl"\n')
    expect_error(run(build_command(config, tmp_path / "out", "-j", "0")), "t.jsonl")


def test_a_damaged_parquet_source(tmp_path: Path) -> None:
    _write(tmp_path, "t.parquet", "PAR1 and nothing else PAR1")
    config = _write(tmp_path, "b.toml", '[[samples]]\nname = "t"\nkind = "text"\npath = "t.parquet"\n')
    expect_error(run(build_command(config, tmp_path / "out", "-j", "0")), "t.parquet", "Parquet")


def test_columns_that_differ_between_recordings(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_recording(tmp_path / name, CameraSettings(seconds=3, size=(48, 64)), faults=False, name=name)
    description = tmp_path / "b" / "recording.toml"
    text = description.read_text()
    description.write_text(text.replace('path = "imu.csv"', 'path = "imu.csv"\ncolumns = ["ay", "ax"]'))
    out = str(tmp_path / "out")
    done = run([MMPACK, "build-shards", str(tmp_path / "a"), str(tmp_path / "b"), "--out", out])
    expect_error(done, "'imu' has columns ay, ax, but in 'a'")
    wide = _write(tmp_path, "w.toml", 'recordings = ["a"]\n[[layout.numeric]]\nname = "imu"\nwidth = 7\n')
    expect_error(run(build_command(wide, out)), "width of 7", "Set width = 6")
    listed = _write(tmp_path, "l.toml", 'recordings = ["a"]\n[layout]\ncameras = ["cam_front"]\n')
    expect_error(run(build_command(listed, out)), "is not listed", "layout.cameras")


def test_two_builds_at_once(config: Path, built_shards: Path, tmp_path: Path) -> None:
    """The second build waits for a task or reports that it is locked; the result is complete."""
    out = tmp_path / "out"
    processes = [
        subprocess.Popen(build_command(config, out, "-j", "1"), stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=100)[1] for process in processes]
    assert all(process.returncode in (0, 1) for process in processes), errors
    assert "Traceback" not in "".join(errors)
    assert run(build_command(config, out, "-j", "0")).returncode == 0
    assert compute_digests(out) == compute_digests(built_shards)


def test_build_shards_as_a_library_function(config: Path, tmp_path: Path) -> None:
    import mmpack
    import mmpack.ingest
    from mmpack.settings import load_settings

    settings = load_settings(config, mmpack.BuildConfig).resolve_paths(config.parent)
    outcome = mmpack.build_shards(settings, str(tmp_path / "out"))
    assert outcome.failures == []
    assert outcome.manifest is not None
