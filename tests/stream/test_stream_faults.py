"""Damaged shards met by a whole run: what cannot be read is masked and recorded, all else is as it was to the bit."""

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
from tests.ingest.build_inputs import MMPACK, children, run
from tests.shards import edit_shard_set
from tests.stream.damaged_runs import (
    IntactRun,
    Losses,
    assert_equal,
    assert_masked,
    flip_bit,
    of_shard,
    read_rows,
)

pytestmark = pytest.mark.timeout(120)


def truncate(out: Path, row: Mapping[str, Any], size_bytes: int) -> None:
    os.truncate(out / row["shard"], size_bytes)


def cut_within_a_slice(out: Path) -> Losses:
    _, second = of_shard(out, "drive-000-00003")
    truncate(out, second, second["offset_bytes"] + second["size_bytes"] // 2)
    return {second["key"]: "truncated"}


def cut_between_slices(out: Path) -> Losses:
    _, second = of_shard(out, "drive-000-00009")
    truncate(out, second, second["offset_bytes"])
    return {second["key"]: "truncated"}


def cut_at_the_end(out: Path) -> Losses:
    """Only what ends the archive is gone: no sample is."""
    last = of_shard(out, "drive-000-00005")[-1]
    size_bytes = (out / last["shard"]).stat().st_size
    assert last["offset_bytes"] + last["size_bytes"] == size_bytes - len(END_OF_ARCHIVE)
    truncate(out, last, size_bytes - len(END_OF_ARCHIVE))
    return {}


def emptied(out: Path) -> Losses:
    rows = of_shard(out, "drive-000-00022")
    truncate(out, rows[0], 0)
    return {row["key"]: "truncated" for row in rows}


def flipped_bit_of_a_picture(out: Path) -> Losses:
    first, _ = of_shard(out, "drive-000-00007")
    flip_bit(out, first, first["size_bytes"] // 3)
    return {first["key"]: "differ.*crc32"}


def flipped_bit_of_a_text(out: Path) -> Losses:
    row = of_shard(out, "texts-00001")[4]
    flip_bit(out, row, row["size_bytes"] - 513)
    return {row["key"]: "differ.*crc32"}


def flipped_bit_of_a_tar_header(out: Path) -> Losses:
    row = of_shard(out, "speech-00000")[1]
    flip_bit(out, row, 3)
    return {row["key"]: "differ.*crc32"}


def deleted(out: Path) -> Losses:
    rows = of_shard(out, "captions-00001")
    (out / rows[0]["shard"]).unlink()
    return {row["key"]: r"captions-00001\.tar.*[Nn]o such file" for row in rows}


def undecodable_picture(out: Path) -> Losses:
    """Bytes are those that were written; they are no picture from the middle on."""
    key = of_shard(out, "drive-000-00012")[1]["key"]

    def spoil(members: dict[str, bytes]) -> None:
        name = sorted(name for name in members if name.endswith("jpg"))[3]
        members[name] = members[name][: len(members[name]) // 2] + b"\xff\xd9"

    edit_shard_set.edit_members(out, key, spoil)
    return {key: "cannot be decoded as JPEG"}


def shortened_sound(out: Path) -> Losses:
    """It does not fill its places; its pair is left out as a whole."""
    key = of_shard(out, "speech-00001")[0]["key"]

    def spoil(members: dict[str, bytes]) -> None:
        (name,) = (name for name in members if name not in ("json", "txt"))
        members[name] = members[name][:60]

    edit_shard_set.edit_members(out, key, spoil)
    return {key: r"has \d+ tokens, but the index says \d+"}


Damage = Callable[[Path], Losses]
DAMAGES: list[Damage] = [
    cut_within_a_slice,
    cut_between_slices,
    cut_at_the_end,
    emptied,
    flipped_bit_of_a_picture,
    flipped_bit_of_a_text,
    flipped_bit_of_a_tar_header,
    deleted,
    undecodable_picture,
    shortened_sound,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_is_lost_is_masked_and_recorded(intact_run: IntactRun, tmp_path: Path, damage: Damage) -> None:
    folder = intact_run.copy(tmp_path)
    losses = damage(folder / "out")
    assert_masked(folder, read_rows(folder), intact_run, losses)


@pytest.fixture(scope="module")
def wrecked(intact_run: IntactRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Losses]:
    """All damages at once."""
    folder = intact_run.copy(tmp_path_factory.mktemp("wrecked"))
    losses: dict[str, str] = {}
    # Those that write a shard and the index anew come first: they read what they write.
    for damage in sorted(DAMAGES, key=lambda damage: damage not in (undecodable_picture, shortened_sound)):
        losses |= damage(folder / "out")
    return folder, losses


def test_all_at_once_in_worker_processes(
    intact_run: IntactRun, wrecked: tuple[Path, Losses], tmp_path: Path
) -> None:
    folder, losses = wrecked
    found = read_rows(folder, workers=2, quarantine=str(tmp_path / "quarantine.jsonl"))
    assert_masked(tmp_path, found, intact_run, losses)


@pytest.mark.parametrize(("allowed", "workers"), [(0, 0), (3, 0), (5, 2)])
def test_too_much_stops_the_run(
    intact_run: IntactRun, wrecked: tuple[Path, Losses], tmp_path: Path, allowed: int, workers: int
) -> None:
    folder, losses = wrecked
    record = tmp_path / "quarantine.jsonl"
    own = set(children(os.getpid()))
    met = [
        planned.number
        for planned in intact_run.planned
        for document in planned.documents
        for sample in document.samples
        if sample.key in losses
    ]
    settings = {"max_corrupt": allowed, "quarantine": str(record), "workers": workers, "prefetch": 2}
    with RowStream.open(folder / "plan.toml", reader=settings) as stream:
        with pytest.raises(QuarantineError, match=f"{allowed + 1} samples cannot be read") as caught:
            list(stream)
        assert set(children(os.getpid())) <= own  # workers ended with it
        state = stream.state_dict()
    assert caught.value.where == str(record)
    assert "verify" in caught.value.hint
    assert "max_corrupt" in caught.value.hint
    assert [fault.row for fault in read_quarantine(record)] == met[: allowed + 1]
    # The row that stopped it was not handed out: who allows more goes on with it.
    assert state["row"] == met[allowed]
    with RowStream.open(folder / "plan.toml", reader={"quarantine": str(record)}) as stream:
        stream.load_state_dict(state)
        assert next(stream).number == met[allowed]


def test_the_row_of_an_error_is_not_skipped(wrecked: tuple[Path, Losses], tmp_path: Path) -> None:
    """Whoever catches it and goes on gets the same error again, and not the row behind it."""
    folder, _ = wrecked
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


def test_the_command_says_so_in_one_line(wrecked: tuple[Path, Losses], tmp_path: Path) -> None:
    folder, _ = wrecked
    text = (folder / "plan.toml").read_text().replace("[reader]\n", "[reader]\nmax_corrupt = 2\n")
    text = text.replace('shards = "out"', f'shards = "{folder / "out"}"')
    (tmp_path / "plan.toml").write_text(text)
    done = run([MMPACK, "stream", str(tmp_path / "plan.toml"), "--rows", "1000"])
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert done.stdout == ""
    assert line.startswith(f"error: {tmp_path / 'quarantine.jsonl'}: 3 samples cannot be read, the last one")
    assert "reader.max_corrupt" in line
    assert len(read_quarantine(tmp_path / "quarantine.jsonl")) == 3


def test_a_digest_that_is_not_the_indexs(intact_run: IntactRun, tmp_path: Path) -> None:
    folder = intact_run.copy(tmp_path)
    edit_shard_set.edit_manifest(
        folder / "out", lambda manifest: manifest["files"].update({"index.parquet": "0" * 64})
    )
    with pytest.raises(IntegrityError, match="sha256 is not the manifest's") as caught:
        read_rows(folder)
    assert caught.value.where == f"{folder / 'out'}/index.parquet"
    assert "mmpack verify" in caught.value.hint


def test_an_index_that_was_cut(
    intact_run: IntactRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = intact_run.copy(tmp_path)
    os.truncate(folder / "out" / "index.parquet", 4000)
    # What is known of it from before is still true.
    assert_equal(read_rows(folder), intact_run.rows)
    monkeypatch.setenv("MMPACK_CACHE", str(tmp_path / "cache"))
    with pytest.raises(IntegrityError, match="sha256 is not the manifest's"):
        read_rows(folder)


def state_after(folder: Path, rows: int) -> dict[str, Any]:
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
def test_another_plan_is_refused(
    intact_run: IntactRun, tmp_path: Path, old: str, new: str, differs: list[str]
) -> None:
    state = state_after(intact_run.folder, 2)
    text = (intact_run.folder / "plan.toml").read_text().replace('"out"', f'"{intact_run.folder / "out"}"')
    assert old in text
    (tmp_path / "plan.toml").write_text(text.replace(old, new, 1))
    with RowStream.open(tmp_path / "plan.toml") as stream:
        with pytest.raises(ConfigError, match="belongs to another plan") as caught:
            stream.load_state_dict(state)
        for each in differs:
            assert re.search(each, str(caught.value)), str(caught.value)
        assert stream.state_dict()["row"] == 0  # nothing was taken in


def test_another_index_and_another_layout_are_refused(intact_run: IntactRun, tmp_path: Path) -> None:
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

    def other_layout(manifest: dict[str, Any]) -> None:
        from mmpack.layout import Layout, LayoutConfig
        from mmpack.settings import parse_settings

        manifest["config"]["layout"].setdefault("time", {})["step"] = "50ms"
        config = parse_settings(manifest["config"]["layout"], LayoutConfig, where="")
        manifest["layout_fingerprint"] = Layout(config).fingerprint

    edit_shard_set.edit_manifest(folder / "out", other_layout)
    with (
        RowStream.open(folder / "plan.toml") as stream,
        pytest.raises(ConfigError, match=r"layout was .*, is "),
    ):
        stream.load_state_dict(state)


def test_real_pictures(camera_shards: ShardSet, tmp_path: Path) -> None:
    """Slices of six 1600 x 900 pictures, one of which lost the end of its scan; another slice lost a bit."""
    out = Path(shutil.copytree(camera_shards.store.url, tmp_path / "out"))
    (tmp_path / "plan.toml").write_text(
        'max_seq_len = 8192\nglobal_batch = 1\n[[datasets]]\nname = "six"\nshards = "out"\nmax_epochs = 1\n'
    )
    with RowStream.open(tmp_path / "plan.toml") as stream:
        rows, plan = list(stream), stream.plan
    whole = IntactRun(tmp_path, plan, [plan.row(row.number) for row in rows], rows)
    keys = [
        sample.key
        for planned in whole.planned
        for document in planned.documents
        for sample in document.samples
    ]
    picture, bit = keys[1], keys[-1]

    def spoil(members: dict[str, bytes]) -> None:
        members["cam_front.jpg"] = members["cam_front.jpg"][:-4000] + b"\xff\xd9"

    edit_shard_set.edit_members(out, picture, spoil)
    row = next(row for row in edit_shard_set.read_index(out) if row["key"] == bit)
    flip_bit(out, row, row["size_bytes"] // 2)
    losses = {picture: "cannot be decoded as JPEG", bit: "differ.*crc32"}
    assert_masked(tmp_path, read_rows(tmp_path), whole, losses)
