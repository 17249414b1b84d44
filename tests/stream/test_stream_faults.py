"""Row streams over damaged shards: unreadable samples are masked and recorded, and all other samples are unchanged."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mmpack import ShardSet
from mmpack.errors import ConfigError, IntegrityError, QuarantineError
from mmpack.quarantine import read_quarantine
from mmpack.shards.tar import END_OF_ARCHIVE
from mmpack.stream import RowStream
from tests.ingest.build_inputs import MMPACK, list_descendants, run
from tests.shards import edit_shard_set
from tests.stream.damaged_runs import (
    IntactRun,
    Reasons,
    assert_equal,
    assert_masked,
    flip_bit,
    read_rows,
    read_shard_index,
)

pytestmark = pytest.mark.timeout(120)


def truncate(out: Path, row: Mapping[str, Any], size_bytes: int) -> None:
    os.truncate(out / row["shard"], size_bytes)


def cut_within_a_slice(out: Path) -> Reasons:
    _, second = read_shard_index(out, "drive-000-00003")
    truncate(out, second, second["offset_bytes"] + second["size_bytes"] // 2)
    return {second["key"]: "truncated"}


def cut_between_slices(out: Path) -> Reasons:
    _, second = read_shard_index(out, "drive-000-00009")
    truncate(out, second, second["offset_bytes"])
    return {second["key"]: "truncated"}


def cut_at_the_end(out: Path) -> Reasons:
    """Removes the end-of-archive marker only, and no sample."""
    last = read_shard_index(out, "drive-000-00005")[-1]
    size_bytes = (out / last["shard"]).stat().st_size
    assert last["offset_bytes"] + last["size_bytes"] == size_bytes - len(END_OF_ARCHIVE)
    truncate(out, last, size_bytes - len(END_OF_ARCHIVE))
    return {}


def truncate_to_nothing(out: Path) -> Reasons:
    rows = read_shard_index(out, "drive-000-00022")
    truncate(out, rows[0], 0)
    return {row["key"]: "truncated" for row in rows}


def flip_bit_of_an_image(out: Path) -> Reasons:
    first, _ = read_shard_index(out, "drive-000-00007")
    flip_bit(out, first, first["size_bytes"] // 3)
    return {first["key"]: "differ.*crc32"}


def flip_bit_of_a_text(out: Path) -> Reasons:
    row = read_shard_index(out, "texts-00001")[4]
    flip_bit(out, row, row["size_bytes"] - 513)
    return {row["key"]: "differ.*crc32"}


def flip_bit_of_a_tar_header(out: Path) -> Reasons:
    row = read_shard_index(out, "speech-00000")[1]
    flip_bit(out, row, 3)
    return {row["key"]: "differ.*crc32"}


def delete_a_shard(out: Path) -> Reasons:
    rows = read_shard_index(out, "captions-00001")
    (out / rows[0]["shard"]).unlink()
    return {row["key"]: r"captions-00001\.tar.*[Nn]o such file" for row in rows}


def shorten_an_image(out: Path) -> Reasons:
    """Replaces an image by one that cannot be decoded from its middle on; checksums fit the new bytes."""
    key = read_shard_index(out, "drive-000-00012")[1]["key"]

    def spoil(members: dict[str, bytes]) -> None:
        name = sorted(name for name in members if name.endswith("jpg"))[3]
        members[name] = members[name][: len(members[name]) // 2] + b"\xff\xd9"

    edit_shard_set.edit_members(out, key, spoil)
    return {key: "cannot be decoded as JPEG"}


def shorten_an_audio(out: Path) -> Reasons:
    """Replaces audio by shorter audio, which has fewer tokens than the index says; the pair is masked as a whole."""
    key = read_shard_index(out, "speech-00001")[0]["key"]

    def spoil(members: dict[str, bytes]) -> None:
        (name,) = (name for name in members if name not in ("json", "txt"))
        members[name] = members[name][:60]

    edit_shard_set.edit_members(out, key, spoil)
    return {key: r"has \d+ tokens, but the index says \d+"}


Damage = Callable[[Path], Reasons]
DAMAGES: list[Damage] = [
    cut_within_a_slice,
    cut_between_slices,
    cut_at_the_end,
    truncate_to_nothing,
    flip_bit_of_an_image,
    flip_bit_of_a_text,
    flip_bit_of_a_tar_header,
    delete_a_shard,
    shorten_an_image,
    shorten_an_audio,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_unreadable_samples_are_masked_and_recorded(
    intact_run: IntactRun, tmp_path: Path, damage: Damage
) -> None:
    folder = intact_run.copy(tmp_path)
    reasons = damage(folder / "out")
    assert_masked(folder, read_rows(folder), intact_run, reasons)


@pytest.fixture(scope="module")
def damaged_run(intact_run: IntactRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reasons]:
    """A copy of the intact run with all damages, and the reasons to expect."""
    folder = intact_run.copy(tmp_path_factory.mktemp("damaged"))
    reasons: dict[str, str] = {}
    # The damages that rewrite a shard and the index come first, because they read the files that they rewrite.
    for damage in sorted(DAMAGES, key=lambda damage: damage not in (shorten_an_image, shorten_an_audio)):
        reasons |= damage(folder / "out")
    return folder, reasons


def test_all_damages_at_once_in_worker_processes(
    intact_run: IntactRun, damaged_run: tuple[Path, Reasons], tmp_path: Path
) -> None:
    folder, reasons = damaged_run
    rows = read_rows(folder, workers=2, quarantine=str(tmp_path / "quarantine.jsonl"))
    assert_masked(tmp_path, rows, intact_run, reasons)


@pytest.mark.parametrize(("allowed", "workers"), [(0, 0), (3, 0), (5, 2)])
def test_more_than_max_corrupt_samples_stop_the_run(
    intact_run: IntactRun, damaged_run: tuple[Path, Reasons], tmp_path: Path, allowed: int, workers: int
) -> None:
    folder, reasons = damaged_run
    record = tmp_path / "quarantine.jsonl"
    own = set(list_descendants(os.getpid()))
    unreadable_rows = [
        planned.number
        for planned in intact_run.planned
        for document in planned.documents
        for sample in document.samples
        if sample.key in reasons
    ]
    settings = {"max_corrupt": allowed, "quarantine": str(record), "workers": workers, "prefetch": 2}
    with RowStream.open(folder / "plan.toml", reader=settings) as stream:
        with pytest.raises(QuarantineError, match=f"{allowed + 1} samples cannot be read") as caught:
            list(stream)
        assert set(list_descendants(os.getpid())) <= own  # the workers have ended
        state = stream.state_dict()
    assert caught.value.where == str(record)
    assert "verify" in caught.value.hint
    assert "max_corrupt" in caught.value.hint
    assert [line.row for line in read_quarantine(record)] == unreadable_rows[: allowed + 1]
    # The row that stopped the run was not handed out. A run that allows more unreadable samples resumes with it.
    assert state["row"] == unreadable_rows[allowed]
    with RowStream.open(folder / "plan.toml", reader={"quarantine": str(record)}) as stream:
        stream.load_state_dict(state)
        assert next(stream).number == unreadable_rows[allowed]


def test_the_row_of_an_error_is_not_skipped(damaged_run: tuple[Path, Reasons], tmp_path: Path) -> None:
    """Iterating again after the error raises the same error, and does not continue with the next row."""
    folder, _ = damaged_run
    settings = {"max_corrupt": 0, "quarantine": str(tmp_path / "quarantine.jsonl")}
    with RowStream.open(folder / "plan.toml", reader=settings) as stream:
        states = []
        for _ in range(2):
            with pytest.raises(QuarantineError):
                list(stream)
            states.append(stream.state_dict())
    assert states[0] == states[1]
    first, second = read_quarantine(tmp_path / "quarantine.jsonl")
    assert (first.row, first.key) == (second.row, second.key)


def test_the_command_reports_too_many_unreadable_samples_in_one_line(
    damaged_run: tuple[Path, Reasons], tmp_path: Path
) -> None:
    folder, _ = damaged_run
    text = (folder / "plan.toml").read_text().replace("[reader]\n", "[reader]\nmax_corrupt = 2\n")
    text = text.replace('shards = "out"', f'shards = "{folder / "out"}"')
    (tmp_path / "plan.toml").write_text(text)
    completed = run([MMPACK, "stream", str(tmp_path / "plan.toml"), "--rows", "1000"])
    (line,) = completed.stderr.splitlines()
    assert completed.returncode == 1
    assert completed.stdout == ""
    assert line.startswith(f"error: {tmp_path / 'quarantine.jsonl'}: 3 samples cannot be read, the last one")
    assert "reader.max_corrupt" in line
    assert len(read_quarantine(tmp_path / "quarantine.jsonl")) == 3


def test_a_wrong_digest_of_the_index_is_an_error(intact_run: IntactRun, tmp_path: Path) -> None:
    folder = intact_run.copy(tmp_path)
    edit_shard_set.edit_manifest(
        folder / "out", lambda manifest: manifest["files"].update({"index.parquet": "0" * 64})
    )
    with pytest.raises(IntegrityError, match="sha256 of the index differs from the manifest") as caught:
        read_rows(folder)
    assert caught.value.where == f"{folder / 'plan.toml'} [datasets.drive.shards]"
    assert f"{folder / 'out'}/index.parquet" in caught.value.message
    assert "mmpack verify" in caught.value.hint


def test_a_truncated_index_is_an_error_without_cached_tables(
    intact_run: IntactRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = intact_run.copy(tmp_path)
    os.truncate(folder / "out" / "index.parquet", 4000)
    # The cached tables of the index are still valid, because the manifest has the same digest.
    assert_equal(read_rows(folder), intact_run.rows)
    monkeypatch.setenv("MMPACK_CACHE", str(tmp_path / "cache"))
    with pytest.raises(IntegrityError, match="sha256 of the index differs from the manifest"):
        read_rows(folder)


def state_after(folder: Path, rows: int) -> dict[str, Any]:
    """Returns the state after some rows, as JSON stores it."""
    with RowStream.open(folder / "plan.toml") as stream:
        for _ in range(rows):
            next(stream)
        return json.loads(json.dumps(stream.state_dict()))


@pytest.mark.parametrize(
    ("old", "new", "differs"),
    [
        ("seed = 4", "seed = 5", ["seed was 4, is 5"]),
        ("max_seq_len = 512", "max_seq_len = 480", ["max_seq_len was 512, is 480"]),
        (
            'name = "pairs"',
            'name = "couples"',
            ["dataset pairs was .*, is absent", "dataset couples was absent"],
        ),
        ("[[datasets]]", '[[phases]]\nname = "a"\ntemperature = 3.0\n[[datasets]]', ["mixture was "]),
        ('select = ["texts"]', 'select = ["texts", "speech"]', ["dataset texts was .*, is "]),
    ],
)
def test_a_state_of_another_plan_is_an_error(
    intact_run: IntactRun, tmp_path: Path, old: str, new: str, differs: list[str]
) -> None:
    state = state_after(intact_run.folder, 2)
    text = (intact_run.folder / "plan.toml").read_text().replace('"out"', f'"{intact_run.folder / "out"}"')
    assert old in text
    (tmp_path / "plan.toml").write_text(text.replace(old, new, 1))
    with RowStream.open(tmp_path / "plan.toml") as stream:
        with pytest.raises(ConfigError, match="belongs to another plan") as caught:
            stream.load_state_dict(state)
        for pattern in differs:
            assert re.search(pattern, str(caught.value)), str(caught.value)
        assert stream.state_dict()["row"] == 0  # the state was not loaded


def test_a_state_of_another_index_or_layout_is_an_error(intact_run: IntactRun, tmp_path: Path) -> None:
    state = state_after(intact_run.folder, 2)
    folder = intact_run.copy(tmp_path)
    rows = edit_shard_set.read_index(folder / "out")
    edit_shard_set.edit_row(folder / "out", rows[-1]["key"], lambda row: row.update(t_ns=row["t_ns"] + 1))
    with RowStream.open(folder / "plan.toml") as stream, pytest.raises(ConfigError) as caught:
        stream.load_state_dict(state)
    assert re.search(
        "dataset drive was .{8}, is .{8}; dataset pairs was .*; dataset texts was ", str(caught.value)
    )
    assert "layout" not in str(caught.value)

    def change_layout(manifest: dict[str, Any]) -> None:
        from mmpack.layout import Layout, LayoutConfig
        from mmpack.settings import parse_settings

        manifest["config"]["layout"].setdefault("time", {})["step"] = "50ms"
        config = parse_settings(manifest["config"]["layout"], LayoutConfig, where="")
        manifest["layout_fingerprint"] = Layout(config).fingerprint

    edit_shard_set.edit_manifest(folder / "out", change_layout)
    with (
        RowStream.open(folder / "plan.toml") as stream,
        pytest.raises(ConfigError, match=r"layout was .*, is "),
    ):
        stream.load_state_dict(state)


def test_damaged_real_images_are_masked(camera_shards: ShardSet, tmp_path: Path) -> None:
    """Reads slices of six images of 1600 x 900 pixels: one image lost the end of its scan, another slice has a wrong bit."""
    out = Path(shutil.copytree(camera_shards.store.url, tmp_path / "out"))
    (tmp_path / "plan.toml").write_text(
        'max_seq_len = 8192\nglobal_batch = 1\n[[datasets]]\nname = "six"\nshards = "out"\nmax_epochs = 1\n'
    )
    with RowStream.open(tmp_path / "plan.toml") as stream:
        rows, plan = list(stream), stream.plan
    intact = IntactRun(tmp_path, plan, [plan.row(row.number) for row in rows], rows)
    keys = [
        sample.key
        for planned in intact.planned
        for document in planned.documents
        for sample in document.samples
    ]
    shortened, flipped = keys[1], keys[-1]

    def spoil(members: dict[str, bytes]) -> None:
        members["cam_front.jpg"] = members["cam_front.jpg"][:-4000] + b"\xff\xd9"

    edit_shard_set.edit_members(out, shortened, spoil)
    row = next(row for row in edit_shard_set.read_index(out) if row["key"] == flipped)
    flip_bit(out, row, row["size_bytes"] // 2)
    reasons = {shortened: "cannot be decoded as JPEG", flipped: "differ.*crc32"}
    assert_masked(tmp_path, read_rows(tmp_path), intact, reasons)
