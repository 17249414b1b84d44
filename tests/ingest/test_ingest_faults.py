"""What a build does when the world is against it: full disks, unwritable targets, other settings, bad input, tampered shards."""

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
from tests.ingest.build_inputs import MMPACK, command, digests, make_inputs, run
from tests.small_disk import mount_small_disk
from tools.make_recording import make_recording


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"), drives=1)


@pytest.fixture(scope="module")
def built(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "out"
    assert run(command(config, out, "-j", "0")).returncode == 0
    return out


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """The finished build, to be damaged."""
    return Path(shutil.copytree(built, tmp_path / "copy"))


def refused(done: subprocess.CompletedProcess, *words: str) -> str:
    """The one line of a refusal: non-zero exit, no traceback, and these words in it."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    for word in words:
        assert word in lines[0], lines[0]
    return lines[0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB that is really full soon."""
    with mount_small_disk("300k", tmp_path) as disk:
        yield disk


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_full_disk(config: Path, built: Path, small_disk: Path, workers: str) -> None:
    out = small_disk / "out"
    done = run(command(config, out, "-j", workers))
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "resumes" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (out / "manifest.json").exists()
    for path in out.glob("shards/*.tar"):
        assert path.read_bytes() == (built / "shards" / path.name).read_bytes()
    # Space is freed, and the same command goes on to the same result.
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert run(command(config, out, "-j", workers)).returncode == 0
    assert digests(out) == digests(built)


def test_a_file_size_limit(config: Path, tmp_path: Path) -> None:
    """As a full disk, for those who may not mount one."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    done = subprocess.run(
        command(config, tmp_path / "out", "-j", "0"),
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
    refused(run(command(config, tmp_path / "file" / "out", "-j", "0")), "writing failed", "Not a directory")
    refused(run(command(config, "/proc/mmpack", "-j", "0")), "writing failed")


def test_other_settings_are_refused_with_the_difference(config: Path, copy: Path) -> None:
    changed = config.with_name("changed.toml")
    changed.write_text(config.read_text().replace('size = "40kB"', 'size = "40kB"\njpeg_quality = 50'))
    refused(run(command(changed, copy)), "shards.jpeg_quality is 50 and was 90", "--overwrite")
    assert run(command(changed, copy, "--overwrite")).returncode == 0
    assert verify(str(copy)).problems == []


def test_changed_input_is_refused(config: Path, copy: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(config.parent, tmp_path / "inputs"))
    with (moved / "texts.jsonl").open("a") as file:
        file.write('{"text": "one more"}\n')
    done = run(command(moved / "build.toml", copy, "-j", "0"))
    refused(done, "'texts' built from other files", "--overwrite")


def test_mended_input_is_built_anew(config: Path, built: Path, tmp_path: Path) -> None:
    """One input fails, the others are built; mended, the same command finishes."""
    inputs = Path(shutil.copytree(config.parent, tmp_path / "inputs"))
    good = (inputs / "texts.jsonl").read_bytes()
    (inputs / "texts.jsonl").write_bytes(good[: good.rindex(b"{")] + b'{"text": 5}\n')
    out = tmp_path / "out"
    refused(run(command(inputs / "build.toml", out)), "texts.jsonl", "holds int, not text")
    assert not (out / "manifest.json").exists()
    (inputs / "texts.jsonl").write_bytes(good)
    assert run(command(inputs / "build.toml", out)).returncode == 0
    assert digests(out) == digests(built)


def test_too_much_quarantine(config: Path, tmp_path: Path) -> None:
    done = run(command(config, tmp_path / "out", "-j", "0", "--max-quarantine", "0"))
    refused(done, "drive-000", "slices", "--max-quarantine")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_unknown_keys(config: Path, tmp_path: Path) -> None:
    for wrong, right in (
        ("max_quarantin = 0.2", "max_quarantine"),
        ("[shard]", "shards"),
        ("[sync]\nreferenc = 'x'", "reference"),
    ):
        bad = tmp_path / "bad.toml"
        bad.write_text(f'recordings = ["x"]\n{wrong}\n')
        refused(run(command(bad, tmp_path / "out")), "unknown key", f"Did you mean '{right}'?", "bad.toml")


def test_wrong_types(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text('recordings = ["x"]\nmax_quarantine = "much"\n')
    refused(run(command(bad, tmp_path / "out")), "max_quarantine", "float")
    bad.write_text('recordings = ["x"]\n[shards]\nsize = "big"\n')
    refused(run(command(bad, tmp_path / "out")), "512MB")
    bad.write_text("recordings = [\n")
    refused(run(command(bad, tmp_path / "out")), "not valid TOML")
    bad.write_text("recordings = []\n")
    refused(run(command(bad, tmp_path / "out")), "nothing to build")


def test_two_of_one_name(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        make_recording(tmp_path / folder, seconds=3, size=(48, 64), faults=False, name="same")
    done = run(
        [MMPACK, "build-shards", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "out")]
    )
    refused(done, "two inputs are called 'same'")


def test_json_is_one_object(config: Path, built: Path) -> None:
    for arguments in (
        command(config, built, "--json"),
        [MMPACK, "verify", str(built), "--json"],
        [MMPACK, "report", str(built), "--json"],
    ):
        done = run(arguments)
        assert done.returncode == 0, done.stderr
        assert isinstance(json.loads(done.stdout), dict)
    (built / "report.png").unlink()


def _flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x55
    path.write_bytes(data)


def test_verify_finds_a_flipped_byte_anywhere(copy: Path) -> None:
    shard = sorted(copy.glob("shards/drive*.tar"))[0]
    size = shard.stat().st_size
    for offset in (0, 600, size // 3, size // 2, size - 1100, size - 1):
        before = shard.read_bytes()
        _flip(shard, offset)
        assert verify(str(copy)).problems, offset
        shard.write_bytes(before)
    assert not verify(str(copy)).problems


def test_verify_finds_truncation_absence_and_additions(copy: Path) -> None:
    shard = sorted(copy.glob("shards/*.tar"))[0]
    before = shard.read_bytes()
    shard.write_bytes(before[:-700])
    refused(run([MMPACK, "verify", str(copy)]), "truncated or replaced")
    shard.write_bytes(before + bytes(512))
    assert verify(str(copy)).problems
    shard.unlink()
    assert "No such file" in verify(str(copy)).problems[0]


def test_verify_finds_a_touched_index_or_manifest(copy: Path) -> None:
    _flip(copy / "index.parquet", 100)
    assert "index.parquet" in verify(str(copy)).problems[0]
    (copy / "manifest.json").write_text("{")
    refused(run([MMPACK, "verify", str(copy)]), "manifest is damaged")
    (copy / "manifest.json").unlink()
    refused(run([MMPACK, "verify", str(copy)]), "no finished build")


def test_an_archive_that_climbs_out(copy: Path, tmp_path: Path) -> None:
    """A member named ../ is refused with its name, whether met in a sample or in a header."""
    shard = sorted(copy.glob("shards/texts*.tar"))[0]
    data = bytearray(shard.read_bytes())
    climbing = tarfile.TarInfo("../../etc/passwd")  # mmpack's own header would refuse the name
    climbing.size = int(data[124:135], 8)
    data[:512] = climbing.tobuf(tarfile.USTAR_FORMAT)[:512]
    row = ShardSet(str(copy)).index.to_pylist()
    first = next(entry for entry in row if entry["shard"].endswith(shard.name))
    with pytest.raises(IntegrityError, match=r"'\.\./\.\./etc/passwd' would leave"):
        list(tar.iter_members(bytes(data[: first["size_bytes"]]), where=str(shard)))
    shard.write_bytes(data)
    refused(run([MMPACK, "verify", str(copy)]), "faults")


def test_tar_is_what_tar_reads(built: Path, tmp_path: Path) -> None:
    for shard in built.glob("shards/*.tar"):
        subprocess.run(["tar", "-xf", str(shard), "-C", str(tmp_path)], check=True)
    assert len(list(tmp_path.iterdir())) == verify(str(built)).members


def test_object_store(config: Path, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same build into a local S3-compatible server: the same bytes, verified from there."""
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
        done = run(command(config, "s3://shards/some/where", "-j", "2"))
        assert done.returncode == 0, done.stderr
        verdict = verify("s3://shards/some/where")
        assert verdict.problems == []
        listed = client.list_objects_v2(Bucket="shards")["Contents"]
        remote = {entry["Key"].removeprefix("some/where/"): entry["Key"] for entry in listed}
        assert sorted(remote) == sorted(digests(built))
        for name, key in remote.items():
            assert (
                client.get_object(Bucket="shards", Key=key)["Body"].read() == (built / name).read_bytes()
            ), name
        sample = ShardSet("s3://shards/some/where").sample("drive-000-00000003")
        assert sample == ShardSet(str(built)).sample("drive-000-00000003")
        refused(run([MMPACK, "verify", "s3://shards/elsewhere"]), "no finished build")
    finally:
        server.stop()


def test_a_url_of_no_known_kind(config: Path) -> None:
    refused(run(command(config, "ftp://somewhere/out")), "not a path or object store URL")


def test_environment_free_of_torch() -> None:
    """mmpack and its command line start without torch, and quickly enough to be imported anywhere."""
    code = "import sys, mmpack, mmpack.cli; sys.exit('torch' in sys.modules or 'numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_overwrite_removes_builds_and_nothing_else(config: Path, copy: Path, tmp_path: Path) -> None:
    _write(copy / "shards", "mine.txt", "precious")
    (copy / "precious.parquet").write_bytes(b"mine")
    assert run(command(config, copy, "--overwrite", "-j", "0")).returncode == 0
    assert (copy / "shards" / "mine.txt").read_text() == "precious"
    assert (copy / "precious.parquet").read_bytes() == b"mine"
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    _write(stranger, "thesis.tex", "years of work")
    refused(run(command(config, stranger, "--overwrite")), "holds none but other files", "thesis.tex")
    assert list(stranger.iterdir()) == [stranger / "thesis.tex"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('path = "mic.wav"', 'path = "mic.wav"\nlatency = "3ms"'),
        ('path = "imu.csv"', 'path = "imu.csv"\ncolumns = ["ax", "ay"]'),
        ('kind = "imu"', 'kind = "numeric"'),
    ],
)
def test_an_edited_description_is_noticed(
    config: Path, copy: Path, tmp_path: Path, old: str, new: str
) -> None:
    """A finished build is not taken for one of another description."""
    inputs = Path(shutil.copytree(config.parent, tmp_path / "inputs"))
    description = inputs / "drive-0" / "recording.toml"
    assert old in description.read_text()
    description.write_text(description.read_text().replace(old, new))
    done = run(command(inputs / "build.toml", copy, "-j", "0"))
    assert "--overwrite" in refused(done)


def test_an_edit_that_keeps_the_size_is_noticed(config: Path, copy: Path, tmp_path: Path) -> None:
    inputs = Path(shutil.copytree(config.parent, tmp_path / "inputs"))
    table = inputs / "drive-0" / "can.csv"
    text = table.read_text()
    digit = next(place for place in range(len(text) - 1, 0, -1) if text[place].isdigit())
    table.write_text(text[:digit] + str((int(text[digit]) + 1) % 10) + text[digit + 1 :])
    assert table.stat().st_size == len(text)
    refused(run(command(inputs / "build.toml", copy, "-j", "0")), "'drive-000' built from other files")


def test_fewer_inputs_are_refused(config: Path, copy: Path) -> None:
    fewer = config.with_name("fewer.toml")
    text = config.read_text()
    fewer.write_text(text[: text.rindex("[[samples]]")])
    line = refused(run(command(fewer, copy, "-j", "0")))
    assert "'speech', which is not among the inputs" in line or "samples" in line


def test_an_empty_target(config: Path) -> None:
    refused(run(command(config, "")), "no target")


def test_names_of_sources_are_made_safe(tmp_path: Path) -> None:
    _write(tmp_path, "t.jsonl", '{"text": "one"}\n\n{"text": "two"}\n')
    config = _write(
        tmp_path, "b.toml", '[[samples]]\nname = "../my.texts"\nkind = "text"\npath = "t.jsonl"\n'
    )
    assert run(command(config, tmp_path / "out", "-j", "0")).returncode == 0
    assert verify(str(tmp_path / "out")).problems == []
    assert ShardSet(str(tmp_path / "out")).index["key"].to_pylist() == [
        "my_texts-00000000",
        "my_texts-00000001",
    ]


@pytest.mark.parametrize("line", ['{"text": "\\ud800"}', '{"text": ' + "[" * 100_000, "[1]", '{"txt": "x"}'])
def test_lines_that_are_no_samples(tmp_path: Path, line: str) -> None:
    _write(tmp_path, "t.jsonl", line + "\n")
    config = _write(tmp_path, "b.toml", '[[samples]]\nname = "t"\nkind = "text"\npath = "t.jsonl"\n')
    refused(run(command(config, tmp_path / "out", "-j", "0")), "t.jsonl")


def test_a_damaged_parquet_source(tmp_path: Path) -> None:
    _write(tmp_path, "t.parquet", "PAR1 and nothing else PAR1")
    config = _write(tmp_path, "b.toml", '[[samples]]\nname = "t"\nkind = "text"\npath = "t.parquet"\n')
    refused(run(command(config, tmp_path / "out", "-j", "0")), "t.parquet", "Parquet")


def test_columns_that_differ_between_recordings(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_recording(tmp_path / name, seconds=3, size=(48, 64), faults=False, name=name)
    description = tmp_path / "b" / "recording.toml"
    text = description.read_text()
    description.write_text(text.replace('path = "imu.csv"', 'path = "imu.csv"\ncolumns = ["ay", "ax"]'))
    out = str(tmp_path / "out")
    done = run([MMPACK, "build-shards", str(tmp_path / "a"), str(tmp_path / "b"), "--out", out])
    refused(done, "'imu' has columns ay, ax, and in 'a'")
    wide = _write(tmp_path, "w.toml", 'recordings = ["a"]\n[[layout.numeric]]\nname = "imu"\nwidth = 7\n')
    refused(run(command(wide, out)), "width of 7", "Set width = 6")
    listed = _write(tmp_path, "l.toml", 'recordings = ["a"]\n[layout]\ncameras = ["cam_front"]\n')
    refused(run(command(listed, out)), "is not listed", "layout.cameras")


def test_two_builds_at_once(config: Path, built: Path, tmp_path: Path) -> None:
    """Whichever comes second waits for a task or says that it is taken; the result is whole."""
    out = tmp_path / "out"
    started = [
        subprocess.Popen(command(config, out, "-j", "1"), stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate(timeout=100)[1] for process in started]
    assert all(process.returncode in (0, 1) for process in started), said
    assert "Traceback" not in "".join(said)
    assert run(command(config, out, "-j", "0")).returncode == 0
    assert digests(out) == digests(built)


def test_the_library_beside_the_package_of_its_name(config: Path, tmp_path: Path) -> None:
    import mmpack
    import mmpack.ingest
    from mmpack.settings import load_settings

    settings = load_settings(config, mmpack.BuildConfig).resolve_paths(config.parent)
    outcome = mmpack.build_shards(settings, str(tmp_path / "out"))
    assert outcome.failures == []
    assert outcome.manifest is not None
