"""Verification of shard sets that were changed on purpose, with correct digests."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmpack import verify
from mmpack.errors import IntegrityError
from mmpack.samples.description import DESCRIPTION_VERSION
from mmpack.samples.npz import decode_npz, encode_npz
from mmpack.shards import index, tar
from tests.examples import examples
from tests.ingest.build_inputs import MMPACK, build_command, make_inputs, run
from tests.shards import edit_shard_set
from tests.shards.edit_shard_set import Table

SLICE, TEXT, IMAGE, SPEECH = (
    "drive-000-00000012",
    "texts-00000003",
    "captions-00000003",
    "speech-00000002",
)


@pytest.fixture(scope="module")
def built_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard set of one drive, with windows of the IMU and interpolated CAN rows, and stand-alone samples of each kind."""
    root = tmp_path_factory.mktemp("inputs")
    config = make_inputs(root, drives=1)
    policies = '[sync.streams.imu]\npolicy = "window"\n[sync.streams.can]\npolicy = "interpolate"\n'
    config.write_text(config.read_text() + policies)
    result = run(build_command(config, root / "out", "-j", "0"))
    assert result.returncode == 0, result.stderr
    return root / "out"


@pytest.fixture
def out(built_shards: Path, tmp_path: Path) -> Path:
    """A copy of the shard set that a test changes."""
    return Path(shutil.copytree(built_shards, tmp_path / "out"))


def run_verify(out: Path) -> subprocess.CompletedProcess:
    return run([MMPACK, "verify", str(out)])


def test_an_unchanged_and_a_rewritten_shard_set_have_no_problems(out: Path) -> None:
    assert verify(str(out)).problems == []
    for key in (SLICE, TEXT, IMAGE, SPEECH):
        edit_shard_set.edit_description(out, key, lambda _: None)
    assert verify(str(out)).problems == []
    assert {row["policy"] for row in _streams(out, SLICE).values()} >= {
        "nearest",
        "hold",
        "interpolate",
        "window",
    }


def _streams(out: Path, key: str) -> Table:
    streams: Table = {}
    edit_shard_set.edit_description(out, key, lambda description: streams.update(description["streams"]))
    return streams


def _set(*path: str | int, value: Any) -> Callable[[Any], None]:
    def edit(table: Any) -> None:
        for key in path[:-1]:
            table = table[key]
        table[path[-1]] = value(table[path[-1]]) if callable(value) else value

    return edit


def _drop(*path: str | int) -> Callable[[Any], None]:
    def edit(table: Any) -> None:
        for key in path[:-1]:
            table = table[key]
        del table[path[-1]]

    return edit


def _increment(value: int) -> int:
    return value + 1


def _replace_json(value: Any) -> Callable[[Table], None]:
    return lambda members: members.update(json=value)


HOSTILE_DESCRIPTIONS = {
    "no t_ns": _drop("t_ns"),
    "no streams": _drop("streams"),
    "no policy": _drop("streams", "cam_front", "policy"),
    "no policy of texts": _set("streams", "subtitles", value={"texts": []}),
    "a stream is a string": _set("streams", "cam_front", value="x"),
    "streams are a list": _set("streams", value=[]),
    "a timestamp is text": _set("streams", "cam_front", "t_ns", value="now"),
    "a timestamp is a fraction": _set("streams", "cam_front", "t_ns", value=0.5),
    "a timestamp is too large": _set("t_ns", value=10**5000),
    "columns are numbers": _set("streams", "can", "columns", value=[1, 2]),
    "a member is a list": _set("streams", "can", "member", value=[]),
    "an unknown stream": _set("streams", "cam_top", value={}),
    "an unknown key": _set("comment", value="x"),
    "an older version": _set("version", value=DESCRIPTION_VERSION - 1),
    "a newer version": _set("version", value=DESCRIPTION_VERSION + 1),
    "absent is a list": _set("absent", value=["lidar"]),
    "a negative size": _set("streams", "cam_front", "height", value=-1),
}


@pytest.mark.parametrize("name", HOSTILE_DESCRIPTIONS)
def test_a_hostile_description_is_a_problem_of_its_sample(out: Path, name: str) -> None:
    try:
        edit_shard_set.edit_description(out, SLICE, HOSTILE_DESCRIPTIONS[name])
    except ValueError:  # json cannot write integers with this many digits
        edit_shard_set.edit_members(
            out, SLICE, lambda m: m.update(json=m["json"].replace(b'"t_ns":', b'"t_ns":' + b"9" * 5000, 1))
        )
    problems = verify(str(out)).problems
    assert any(SLICE in problem for problem in problems), problems


RAW = [b"[]", b"", b"null", b"{", b"\xff", b"[" * 100_000, b'{"kind":"\\ud800"}', b'{"a":' * 100_000]


@pytest.mark.parametrize("key", [SLICE, TEXT])
@pytest.mark.parametrize("data", RAW, ids=lambda data: repr(data[:8]))
def test_a_json_member_that_is_not_a_description_is_a_problem(out: Path, key: str, data: bytes) -> None:
    edit_shard_set.edit_members(out, key, _replace_json(data))
    result = run_verify(out)
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert key in result.stdout


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Returns the paths of all values inside a JSON value, the path of the value itself first."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(inner_path for key, item in inner for inner_path in _paths(item, (*path, key)))]


def _ends_normally(out: Path) -> bool:
    """Returns True if verification returns a report or raises IntegrityError for the manifest."""
    try:
        return isinstance(verify(str(out)).problems, list)
    except IntegrityError as error:
        return "manifest" in str(error)


FUZZ = settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(data=st.data())
def test_no_value_in_a_description_breaks_verification(
    built_shards: Path, out: Path, data: st.DataObject
) -> None:
    [row] = [row for row in edit_shard_set.read_index(built_shards) if row["key"] == SLICE]
    original: Table = {}
    edit_shard_set.edit_description(out, SLICE, original.update)
    path = data.draw(st.sampled_from(_paths(original)[1:]))
    try:
        edit_shard_set.edit_description(out, SLICE, _set(*path, value=data.draw(ANY_JSON)))
        assert _ends_normally(out)
    finally:
        for name in (row["shard"], "index.parquet", "manifest.json"):
            shutil.copy(built_shards / name, out / name)


@FUZZ
@given(data=st.data())
def test_no_value_in_a_manifest_breaks_verification(
    built_shards: Path, out: Path, data: st.DataObject
) -> None:
    original = (built_shards / "manifest.json").read_bytes()
    paths = [path for path in _paths(json.loads(original)) if path and path[:1] != ("shards",)]
    path = data.draw(st.sampled_from([*paths, ("shards", 0, "name"), ("shards", 0, "sha256"), ("shards", 0)]))
    (out / "manifest.json").write_bytes(original)
    edit_shard_set.edit_manifest(out, _set(*path, value=data.draw(ANY_JSON)))
    assert _ends_normally(out)


HOSTILE_MANIFESTS = {
    "no layout": _drop("config", "layout"),
    "the layout is a number": _set("config", "layout", value=5),
    "a layout with an unknown key": _set("config", "layout", "visoin", value={}),
    "a shard outside of the folder": _set("shards", 0, "name", value="../../etc/passwd"),
    "a shard name with a zero byte": _set("shards", 0, "name", value="shards/a\0.tar"),
    "a size is too large": _set("shards", 0, "size_bytes", value=10**400),
    "no limit": _drop("recordings", 0, "streams", "can", "limit_ns"),
    "no recording": _set("recordings", value=[]),
    "the same recording twice": lambda manifest: manifest["recordings"].append(manifest["recordings"][0]),
    "the same shard twice": lambda manifest: manifest["shards"].append(manifest["shards"][0]),
    "another vocabulary size": _set("vocabulary_size", value=_increment),
    "another fingerprint": _set("layout_fingerprint", value="0" * 64),
    "another clock": _set("recordings", 0, "clock", value="media"),
}
FALSE_TOTALS = {
    "samples": _set("samples", value=_increment),
    "tokens": _set("tokens", value=_increment),
    "slices": _set("slices", value=_increment),
    "quarantined": _set("quarantined", value=_increment),
    "tokens_by_modality": _set("tokens_by_modality", "vision", value=_increment),
    "a missing modality": _drop("tokens_by_modality", "vision"),
    "tokens of a shard": _set("shards", 0, "tokens", value=_increment),
    "samples of a shard": _set("shards", 0, "samples", value=_increment),
    "no statistics": _set("numeric", value={}),
    "rows": _set("numeric", "can", "rows", value=_increment),
    "mean": _set("numeric", "can", "mean", 0, value=lambda mean: mean * 1.001),
    "std is text": _set("numeric", "can", "std", 0, value="x"),
    "no files": _set("files", value={}),
    "no quarantine.parquet": _drop("files", "quarantine.parquet"),
    "no sync.json": _drop("files", "sync.json"),
    "an unknown file": _set("files", "../secret", value="0"),
    "ticks": _set("recordings", 0, "ticks", value=_increment),
    "passed": _set("recordings", 0, "passed", value=_increment),
    "tolerance": _set("recordings", 0, "streams", "cam_front", "tolerance_ns", value=10**12),
    "limit": _set("recordings", 0, "streams", "can", "limit_ns", value=10**12),
    "window": _set("recordings", 0, "streams", "mic", "after_ns", value=10**12),
    "offset": _set("recordings", 0, "streams", "cam_front", "offset_ns", value=_increment),
    "policy": _set("recordings", 0, "streams", "can", "policy", value="hold"),
    "required": _set("recordings", 0, "streams", "can", "required", value=False),
}


@pytest.mark.parametrize("name", [*HOSTILE_MANIFESTS, *FALSE_TOTALS])
def test_a_false_value_in_the_manifest_is_a_problem(out: Path, name: str) -> None:
    edit_shard_set.edit_manifest(out, (HOSTILE_MANIFESTS | FALSE_TOTALS)[name])
    try:
        assert verify(str(out)).problems
    except IntegrityError as error:
        assert "manifest" in str(error)  # noqa: PT017 - raised before a problem could be reported


@pytest.mark.parametrize("name", [field.name for field in index.INDEX_SCHEMA])
def test_an_index_without_a_column_is_a_problem(out: Path, name: str) -> None:
    table = index.decode_parquet((out / "index.parquet").read_bytes(), where="x")
    edit_shard_set.write_file(out, "index.parquet", index.encode_parquet(table.drop_columns([name])))
    assert f"no column '{name}'" in verify(str(out)).problems[0]


def test_the_json_output_lists_the_problems(out: Path) -> None:
    (out / "shards" / "unknown.tar").write_bytes(b"")
    done = run([MMPACK, "verify", str(out), "--json"])
    report = json.loads(done.stdout)
    assert list(report) == ["samples", "members", "size_bytes", "problems", "notes", "ok"]
    assert report["problems"] == verify(str(out)).problems
    assert (len(report["problems"]), report["ok"], done.returncode) == (1, False, 1)


def test_a_column_of_another_type_is_a_problem(out: Path) -> None:
    table = index.decode_parquet((out / "index.parquet").read_bytes(), where="x")
    for name, type_ in (("t_ns", pa.string()), ("shard", pa.string()), ("tokens", pa.float64())):
        column = table.schema.get_field_index(name)
        changed = table.set_column(column, name, table[name].cast(type_))
        edit_shard_set.write_file(out, "index.parquet", index.encode_parquet(changed))
        assert f"column '{name}' is" in verify(str(out)).problems[0]
    nulls = table.set_column(
        table.schema.get_field_index("cameras"), "cameras", pa.nulls(table.num_rows, table["cameras"].type)
    )
    edit_shard_set.write_file(out, "index.parquet", index.encode_parquet(nulls))
    assert "rows without a value" in verify(str(out)).problems[0]


FALSE_ROWS = [
    *(("run", key) for key in (SLICE, TEXT)),
    *((name, key) for name in ("t_ns", "residual_ns", "text_bytes", "ordinal") for key in (SLICE, TEXT)),
    *((f"tokens_{name}", SLICE) for name in index.MODALITY_COLUMNS),
    ("offset_bytes", SLICE),
    ("crc32", SLICE),
]


@pytest.mark.parametrize(("name", "key"), FALSE_ROWS)
def test_a_false_value_in_the_index_is_a_problem(out: Path, name: str, key: str) -> None:
    edit_shard_set.edit_row(out, key, _set(name, value=_increment))
    assert verify(str(out)).problems


def test_wrong_token_counts_with_a_correct_total_are_a_problem(out: Path) -> None:
    """Moves one token to another modality, in the index and in the manifest, so that all totals stay correct."""
    edit_shard_set.edit_row(out, SLICE, _set("tokens_vision", value=_increment))
    edit_shard_set.edit_row(out, SLICE, _set("tokens_audio", value=lambda count: count - 1))
    edit_shard_set.edit_manifest(out, _set("tokens_by_modality", "vision", value=_increment))
    edit_shard_set.edit_manifest(out, _set("tokens_by_modality", "audio", value=lambda count: count - 1))
    [problem] = verify(str(out)).problems
    assert SLICE in problem
    assert "tokens_vision" in problem


@pytest.mark.parametrize(
    ("key", "name", "value"),
    [
        (IMAGE, "cameras", []),
        (IMAGE, "cameras", [{"name": "", "height": 1, "width": 1, "frames": 1}]),
        (SPEECH, "audio", [{"name": "", "samples": 1, "rate_hz": 16000}]),
        (TEXT, "kind", "song"),
        (TEXT, "kind", "slice"),
        (SLICE, "kind", "text"),
        (SLICE, "recording", "drive-001"),
        (SLICE, "shard", "shards/other.tar"),
        (SLICE, "key", TEXT),
    ],
)
def test_an_index_row_of_another_sample_is_a_problem(out: Path, key: str, name: str, value: Any) -> None:
    edit_shard_set.edit_row(out, key, _set(name, value=value))
    assert verify(str(out)).problems


def _set_stream(name: str, key: str, value: Any) -> Callable[[Table], None]:
    return _set("streams", name, key, value=value)


def _shift_stream(name: str, shift_ns: int) -> Callable[[Table], None]:
    """Returns an edit that shifts the timestamp and the residual of a stream together, so that they stay consistent."""

    def edit(description: Table) -> None:
        description["streams"][name]["t_ns"] += shift_ns
        description["streams"][name]["residual_ns"] += shift_ns

    return edit


FALSE_SLICES = {
    "clock": _set("clock", value="media"),
    "run": _set("run", value=_increment),
    "residual": _set("residual_ns", value=_increment),
    "hold for a camera": _set_stream("cam_front", "policy", "hold"),
    "overlap for a camera": _set_stream("cam_front", "policy", "overlap"),
    "tolerance": _set_stream("cam_front", "tolerance_ns", 10**12),
    "offset": _set_stream("cam_front", "offset_ns", _increment),
    "a timestamp without its residual": _set_stream("cam_front", "t_ns", _increment),
    "a camera out of tolerance": _shift_stream("cam_front", 2_000_000),
    "a camera with a larger residual than the slice": _shift_stream("cam_front", 900_000),
    "a held value from the future": _shift_stream("action", 10**8),
    "a held value that is too old": _shift_stream("action", -(10**9)),
    "an interpolated value off the tick": _shift_stream("can", 1),
    "an IMU window before its rows": _set_stream("imu", "t_ns", lambda t_ns: t_ns - 1),
    "audio from another time": _shift_stream("mic", 10**6),
    "audio at another rate": _set_stream("mic", "rate_hz", 8000),
    "audio at rate 0": _set_stream("mic", "rate_hz", 0),
    "audio with other channels": _set_stream("mic", "channels", 2),
    "fewer rows": _set_stream("can", "rows", 0),
    "fewer columns": _set_stream("can", "columns", ["speed"]),
    "another array": _set_stream("can", "array", "imu"),
    "another member": _set_stream("cam_front", "member", "cam_back.jpg"),
    "another size": _set_stream("cam_front", "height", _increment),
    "timestamps of a tubelet": _set_stream("cam_front", "timestamps_ns", [1]),
    "a missing camera": _drop("streams", "cam_front"),
    "a required stream named as absent": _set("absent", value={"cam_front": "clouds"}),
    "an unknown stream named as absent": _set("absent", value={"cam_top": "clouds"}),
}


@pytest.mark.parametrize("name", FALSE_SLICES)
def test_a_slice_that_breaks_its_match_rules_is_a_problem(out: Path, name: str) -> None:
    edit_shard_set.edit_description(out, SLICE, FALSE_SLICES[name])
    [problem] = [problem for problem in verify(str(out)).problems if SLICE in problem]
    assert "json member is damaged" not in problem


def _edit_arrays(edit: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        arrays = decode_npz(members["numeric.npz"], where="x")
        edit(arrays)
        members["numeric.npz"] = encode_npz(arrays)

    return change


FALSE_ARRAYS = {
    "an IMU timestamp outside its window": _set("imu.t_ns", -1, value=lambda t_ns: t_ns + 10**9),
    "IMU timestamps that go backward": _set("imu.t_ns", value=lambda t_ns: t_ns[::-1].copy()),
    "an interpolated row from another time": _set("can.t_ns", 0, value=_increment),
    "a held row from another time": _set("action.t_ns", 0, value=_increment),
    "rows of another type": _set("can", value=lambda rows: rows.astype(np.float32)),
    "timestamps of another type": _set("can.t_ns", value=lambda rows: rows.astype(np.float64)),
    "an unknown array": lambda arrays: arrays.update(more=np.zeros(3)),
    "a missing array": _drop("can"),
    "another value": _set("can", 0, 0, value=10**6),
}


@pytest.mark.parametrize("name", FALSE_ARRAYS)
def test_arrays_that_differ_from_the_description_are_a_problem(out: Path, name: str) -> None:
    edit_shard_set.edit_members(out, SLICE, _edit_arrays(FALSE_ARRAYS[name]))
    assert verify(str(out)).problems


def test_a_window_with_a_gap_is_a_problem(out: Path) -> None:
    """Deletes rows in the middle of a window, and changes the description and the index accordingly."""

    def delete_rows(arrays: dict[str, Any]) -> None:
        for name in ("imu", "imu.t_ns"):
            arrays[name] = np.delete(arrays[name], slice(3, 8), axis=0)

    edit_shard_set.edit_members(out, SLICE, _edit_arrays(delete_rows))
    edit_shard_set.edit_description(out, SLICE, _set_stream("imu", "rows", lambda rows: rows - 5))

    def reduce_row_count(row: Table) -> None:
        next(entry for entry in row["numeric"] if entry["name"] == "imu")["rows"] -= 5

    edit_shard_set.edit_row(out, SLICE, reduce_row_count)
    assert any("'imu' has a gap of" in problem for problem in verify(str(out)).problems)


def test_a_text_outside_its_window_is_a_problem(out: Path) -> None:
    rows = [row for row in edit_shard_set.read_index(out) if row["kind"] == "slice" and row["text_bytes"]]
    key = rows[0]["key"]
    edit_shard_set.edit_description(out, key, _set("streams", "subtitles", "texts", 0, "t_ns", value=10**15))
    assert any("does not overlap its window" in problem for problem in verify(str(out)).problems)


def test_a_text_that_is_not_utf_8_is_a_problem(out: Path) -> None:
    edit_shard_set.edit_members(out, TEXT, lambda members: members.update(txt=b"\xff\xfe"))
    assert any("not UTF-8" in problem for problem in verify(str(out)).problems)


def test_a_shard_that_the_manifest_does_not_name_is_a_problem(out: Path) -> None:
    shutil.copy(next((out / "shards").iterdir()), out / "shards" / "more-00000.tar")
    [problem] = verify(str(out)).problems
    assert "more-00000.tar" in problem


def test_other_sync_reports_are_a_problem(out: Path) -> None:
    reports = json.loads((out / "sync.json").read_bytes())
    reports[0]["streams"]["cam_front"]["offset_ns"] += 1
    edit_shard_set.write_file(out, "sync.json", json.dumps(reports).encode())
    assert "sync.json" in verify(str(out)).problems[0]
    for wrong in (b"{}", b"[5]", b"[{}]", b'[{"streams": 5, "clock": 1}]'):
        edit_shard_set.write_file(out, "sync.json", wrong)
        assert "sync.json" in verify(str(out)).problems[0]


def test_a_changed_quarantine_is_a_problem(out: Path) -> None:
    table = index.decode_parquet((out / "quarantine.parquet").read_bytes(), where="x")
    assert table.num_rows
    edit_shard_set.write_file(out, "quarantine.parquet", index.encode_parquet(table.slice(0, 0)))
    assert any("quarantine.parquet" in problem for problem in verify(str(out)).problems)
    edit_shard_set.write_file(out, "quarantine.parquet", index.encode_parquet(table.drop_columns(["reason"])))
    assert "no column 'reason'" in verify(str(out)).problems[0]


def test_the_order_of_the_index_does_not_matter(out: Path) -> None:
    edit_shard_set.write_index(out, edit_shard_set.read_index(out)[::-1])
    assert verify(str(out)).problems == []


def test_the_report_does_not_need_the_build_records(out: Path) -> None:
    before = run([MMPACK, "report", str(out), "--json"])
    assert before.returncode == 0, before.stderr
    shutil.rmtree(out / "_build")
    after = run([MMPACK, "report", str(out), "--json"])
    assert json.loads(after.stdout) == json.loads(before.stdout)
    assert json.loads(after.stdout)["sync"]["ticks"] > 0


def test_a_member_name_that_leads_out_of_the_folder_is_an_error() -> None:
    for name in ("../x.txt", "/etc/passwd", "a/../../x", "a\\..\\x", ""):
        with pytest.raises(Exception, match="would leave"):
            tar.make_header(name, 0)
    assert tar.parse_header(tar.make_header("a..b/c...txt", 0), 0, where="x")


@pytest.fixture(scope="module")
def tubelet_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard set of one drive with optional cameras that are cut into tubelets."""
    root = tmp_path_factory.mktemp("inputs")
    config = make_inputs(root, drives=1)
    text = '[sync]\nreference = "rate:5"\n[sync.streams."cam_*"]\npolicy = "window"\nrequired = false\n'
    config.write_text(config.read_text() + text)
    result = run(build_command(config, root / "out", "-j", "0"))
    assert result.returncode == 0, result.stderr
    return root / "out"


FALSE_TUBELETS = {
    "a frame from another time": lambda camera: camera["timestamps_ns"].__setitem__(
        -1, camera["timestamps_ns"][-1] + 2000
    ),
    "a frame outside the window": lambda camera: camera["timestamps_ns"].append(camera["t_ns"] + 10**9),
    "a missing frame": lambda camera: camera["timestamps_ns"].pop(),
    "no timestamps": _drop("timestamps_ns"),
    "another width": _set("width", value=_increment),
    "all frames a second later": lambda camera: camera.update(
        t_ns=camera["t_ns"] + 10**9, timestamps_ns=[t_ns + 10**9 for t_ns in camera["timestamps_ns"]]
    ),
}


def test_unchanged_tubelets_have_no_problems(tubelet_shards: Path) -> None:
    assert verify(str(tubelet_shards)).problems == []


@pytest.mark.parametrize("name", FALSE_TUBELETS)
def test_a_tubelet_that_differs_from_its_description_is_a_problem(
    tubelet_shards: Path, tmp_path: Path, name: str
) -> None:
    out = Path(shutil.copytree(tubelet_shards, tmp_path / "out"))
    edit = FALSE_TUBELETS[name]
    edit_shard_set.edit_description(out, SLICE, lambda description: edit(description["streams"]["cam_front"]))
    [problem] = verify(str(out)).problems
    assert SLICE in problem


def test_a_truncated_tubelet_is_a_problem(tubelet_shards: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(tubelet_shards, tmp_path / "out"))
    for data in (b"", b"\0" * 100, b"\0\0\0\x18ftypisom"):
        edit_shard_set.edit_members(out, SLICE, _set("cam_front.mp4", value=data))
        assert SLICE in verify(str(out)).problems[0]


def test_an_absent_optional_stream_needs_a_reason(tubelet_shards: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(tubelet_shards, tmp_path / "out"))
    edit_shard_set.edit_description(out, SLICE, _drop("streams", "cam_front"))
    edit_shard_set.edit_members(out, SLICE, _drop("cam_front.mp4"))
    assert "no reason is given" in verify(str(out)).problems[0]
    edit_shard_set.edit_description(
        out, SLICE, _set("absent", "cam_front", value="outside the stream's first and last item")
    )
    assert not any("no reason" in problem for problem in verify(str(out)).problems)
