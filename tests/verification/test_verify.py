"""What verification says of builds that were changed by someone who can compute digests too."""

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
from mmpack.samples.npz import decode_npz, encode_npz
from mmpack.shards import index, tar
from tests.ingest.build_inputs import MMPACK, command, make_inputs, run
from tests.shards import edit_shard_set
from tests.shards.edit_shard_set import Table

SLICE, TEXT, PICTURE, SPEECH = (
    "drive-000-00000012",
    "texts-00000003",
    "captions-00000003",
    "speech-00000002",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One drive whose IMU is taken in windows, its CAN interpolated, and stand-alone samples of each kind."""
    root = tmp_path_factory.mktemp("inputs")
    config = make_inputs(root, drives=1)
    policies = '[sync.streams.imu]\npolicy = "window"\n[sync.streams.can]\npolicy = "interpolate"\n'
    config.write_text(config.read_text() + policies)
    done = run(command(config, root / "out", "-j", "0"))
    assert done.returncode == 0, done.stderr
    return root / "out"


@pytest.fixture
def out(built: Path, tmp_path: Path) -> Path:
    """The finished build, to be changed."""
    return Path(shutil.copytree(built, tmp_path / "out"))


def mmpack_verify(out: Path) -> subprocess.CompletedProcess:
    return run([MMPACK, "verify", str(out)])


def test_a_good_build_and_one_sealed_again_have_no_faults(out: Path) -> None:
    assert verify(str(out)).problems == []
    for key in (SLICE, TEXT, PICTURE, SPEECH):
        edit_shard_set.edit_description(out, key, lambda _: None)
    assert verify(str(out)).problems == []
    assert {row["policy"] for row in _streams(out, SLICE).values()} >= {
        "nearest",
        "hold",
        "interpolate",
        "window",
    }


def _streams(out: Path, key: str) -> Table:
    found: Table = {}
    edit_shard_set.edit_description(out, key, lambda description: found.update(description["streams"]))
    return found


def _put(*path: str | int, value: Any) -> Callable[[Any], None]:
    def edit(table: Any) -> None:
        for step in path[:-1]:
            table = table[step]
        table[path[-1]] = value(table[path[-1]]) if callable(value) else value

    return edit


def _drop(*path: str) -> Callable[[Any], None]:
    def edit(table: Any) -> None:
        for step in path[:-1]:
            table = table[step]
        del table[path[-1]]

    return edit


def _more(value: int) -> int:
    return value + 1


def _instead(value: Any) -> Callable[[Table], None]:
    return lambda members: members.update(json=value)


HOSTILE_DESCRIPTIONS = {
    "no time": _drop("t_ns"),
    "no streams": _drop("streams"),
    "no policy": _drop("streams", "cam_front", "policy"),
    "no texts' policy": _put("streams", "subtitles", value={"texts": []}),
    "a stream is a string": _put("streams", "cam_front", value="x"),
    "streams are a list": _put("streams", value=[]),
    "a stamp is text": _put("streams", "cam_front", "t_ns", value="now"),
    "a stamp is a fraction": _put("streams", "cam_front", "t_ns", value=0.5),
    "a stamp beyond all integers": _put("t_ns", value=10**5000),
    "columns are numbers": _put("streams", "can", "columns", value=[1, 2]),
    "a member is a list": _put("streams", "can", "member", value=[]),
    "an unknown stream": _put("streams", "cam_top", value={}),
    "an unknown key": _put("comment", value="x"),
    "another version": _put("version", value=2),
    "absent is a list": _put("absent", value=["lidar"]),
    "a negative size": _put("streams", "cam_front", "height", value=-1),
}


@pytest.mark.parametrize("name", HOSTILE_DESCRIPTIONS)
def test_hostile_descriptions_are_faults_of_their_sample(out: Path, name: str) -> None:
    try:
        edit_shard_set.edit_description(out, SLICE, HOSTILE_DESCRIPTIONS[name])
    except ValueError:  # json does not write integers of so many digits by itself
        edit_shard_set.edit_members(
            out, SLICE, lambda m: m.update(json=m["json"].replace(b'"t_ns":', b'"t_ns":' + b"9" * 5000, 1))
        )
    faults = verify(str(out)).problems
    assert any(SLICE in fault for fault in faults), faults


RAW = [b"[]", b"", b"null", b"{", b"\xff", b"[" * 100_000, b'{"kind":"\\ud800"}', b'{"a":' * 100_000]


@pytest.mark.parametrize("key", [SLICE, TEXT])
@pytest.mark.parametrize("data", RAW, ids=lambda data: repr(data[:8]))
def test_descriptions_that_are_none(out: Path, key: str, data: bytes) -> None:
    edit_shard_set.edit_members(out, key, _instead(data))
    done = mmpack_verify(out)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert key in done.stdout


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def _places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in _places(item, (*path, key)))]


def _is_looked_at(out: Path) -> bool:
    """Whether verification ends as it should, with or without faults."""
    try:
        return isinstance(verify(str(out)).problems, list)
    except IntegrityError as error:
        return "manifest" in str(error)


FUZZ = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(data=st.data())
def test_no_value_in_a_description_breaks_verification(built: Path, out: Path, data: st.DataObject) -> None:
    [row] = [row for row in edit_shard_set.read_index(built) if row["key"] == SLICE]
    good: Table = {}
    edit_shard_set.edit_description(out, SLICE, good.update)
    place = data.draw(st.sampled_from(_places(good)[1:]))
    try:
        edit_shard_set.edit_description(out, SLICE, _put(*place, value=data.draw(ANY_JSON)))
        assert _is_looked_at(out)
    finally:
        for name in (row["shard"], "index.parquet", "manifest.json"):
            shutil.copy(built / name, out / name)


@FUZZ
@given(data=st.data())
def test_no_value_in_a_manifest_breaks_verification(built: Path, out: Path, data: st.DataObject) -> None:
    good = (built / "manifest.json").read_bytes()
    places = [place for place in _places(json.loads(good)) if place and place[:1] != ("shards",)]
    place = data.draw(
        st.sampled_from([*places, ("shards", 0, "name"), ("shards", 0, "sha256"), ("shards", 0)])
    )
    (out / "manifest.json").write_bytes(good)
    edit_shard_set.edit_manifest(out, _put(*place, value=data.draw(ANY_JSON)))
    assert _is_looked_at(out)


HOSTILE_MANIFESTS = {
    "no layout": _drop("config", "layout"),
    "a layout of another kind": _put("config", "layout", value=5),
    "a layout with another key": _put("config", "layout", "visoin", value={}),
    "a shard elsewhere": _put("shards", 0, "name", value="../../etc/passwd"),
    "a shard's name with a zero": _put("shards", 0, "name", value="shards/a\0.tar"),
    "sizes beyond all integers": _put("shards", 0, "size_bytes", value=10**400),
    "no limit": _drop("recordings", 0, "streams", "can", "limit_ns"),
    "no recording": _put("recordings", value=[]),
    "the same recording twice": lambda manifest: manifest["recordings"].append(manifest["recordings"][0]),
    "the same shard twice": lambda manifest: manifest["shards"].append(manifest["shards"][0]),
    "another vocabulary": _put("vocabulary_size", value=_more),
    "another fingerprint": _put("layout_fingerprint", value="0" * 64),
    "another clock": _put("recordings", 0, "clock", value="media"),
}
FALSE_TOTALS = {
    "samples": _put("samples", value=_more),
    "tokens": _put("tokens", value=_more),
    "slices": _put("slices", value=_more),
    "quarantined": _put("quarantined", value=_more),
    "tokens_by_modality": _put("tokens_by_modality", "vision", value=_more),
    "a modality less": _drop("tokens_by_modality", "vision"),
    "tokens of a shard": _put("shards", 0, "tokens", value=_more),
    "samples of a shard": _put("shards", 0, "samples", value=_more),
    "no statistics": _put("numeric", value={}),
    "rows": _put("numeric", "can", "rows", value=_more),
    "mean": _put("numeric", "can", "mean", 0, value=lambda mean: mean * 1.001),
    "std is text": _put("numeric", "can", "std", 0, value="x"),
    "no files": _put("files", value={}),
    "no quarantine.parquet": _drop("files", "quarantine.parquet"),
    "no sync.json": _drop("files", "sync.json"),
    "a file too many": _put("files", "../secret", value="0"),
    "ticks": _put("recordings", 0, "ticks", value=_more),
    "passed": _put("recordings", 0, "passed", value=_more),
    "tolerance": _put("recordings", 0, "streams", "cam_front", "tolerance_ns", value=10**12),
    "limit": _put("recordings", 0, "streams", "can", "limit_ns", value=10**12),
    "window": _put("recordings", 0, "streams", "mic", "after_ns", value=10**12),
    "offset": _put("recordings", 0, "streams", "cam_front", "offset_ns", value=_more),
    "policy": _put("recordings", 0, "streams", "can", "policy", value="hold"),
    "required": _put("recordings", 0, "streams", "can", "required", value=False),
}


@pytest.mark.parametrize("name", [*HOSTILE_MANIFESTS, *FALSE_TOTALS])
def test_manifests_that_are_not_true(out: Path, name: str) -> None:
    edit_shard_set.edit_manifest(out, (HOSTILE_MANIFESTS | FALSE_TOTALS)[name])
    try:
        assert verify(str(out)).problems
    except IntegrityError as error:
        assert "manifest" in str(error)  # noqa: PT017 - refused before a fault could be listed


@pytest.mark.parametrize("name", [field.name for field in index.INDEX_SCHEMA])
def test_an_index_without_a_column(out: Path, name: str) -> None:
    table = index.decode_parquet((out / "index.parquet").read_bytes(), where="x")
    edit_shard_set.write_file(out, "index.parquet", index.encode_parquet(table.drop_columns([name])))
    assert f"no column '{name}'" in verify(str(out)).problems[0]


def test_an_index_of_other_types(out: Path) -> None:
    table = index.decode_parquet((out / "index.parquet").read_bytes(), where="x")
    for name, kind in (("t_ns", pa.string()), ("shard", pa.string()), ("tokens", pa.float64())):
        place = table.schema.get_field_index(name)
        changed = table.set_column(place, name, table[name].cast(kind))
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
def test_rows_of_the_index_that_are_not_true(out: Path, name: str, key: str) -> None:
    edit_shard_set.edit_row(out, key, _put(name, value=_more))
    assert verify(str(out)).problems


def test_tokens_that_only_add_up(out: Path) -> None:
    """One modality's token is moved to another, in the row and in the manifest: the sums are right."""
    edit_shard_set.edit_row(out, SLICE, _put("tokens_vision", value=_more))
    edit_shard_set.edit_row(out, SLICE, _put("tokens_audio", value=lambda count: count - 1))
    edit_shard_set.edit_manifest(out, _put("tokens_by_modality", "vision", value=_more))
    edit_shard_set.edit_manifest(out, _put("tokens_by_modality", "audio", value=lambda count: count - 1))
    [fault] = verify(str(out)).problems
    assert SLICE in fault
    assert "tokens_vision" in fault


@pytest.mark.parametrize(
    ("key", "name", "value"),
    [
        (PICTURE, "cameras", []),
        (PICTURE, "cameras", [{"name": "", "height": 1, "width": 1, "frames": 1}]),
        (SPEECH, "audio", [{"name": "", "samples": 1, "rate_hz": 16000}]),
        (TEXT, "kind", "song"),
        (TEXT, "kind", "slice"),
        (SLICE, "kind", "text"),
        (SLICE, "recording", "drive-001"),
        (SLICE, "shard", "shards/other.tar"),
        (SLICE, "key", TEXT),
    ],
)
def test_rows_of_another_sample(out: Path, key: str, name: str, value: Any) -> None:
    edit_shard_set.edit_row(out, key, _put(name, value=value))
    assert verify(str(out)).problems


def _stream(name: str, key: str, value: Any) -> Callable[[Table], None]:
    return _put("streams", name, key, value=value)


def _moved(name: str, shift_ns: int) -> Callable[[Table], None]:
    """A stream's stamp and residual moved together, so that they still add up."""

    def edit(description: Table) -> None:
        description["streams"][name]["t_ns"] += shift_ns
        description["streams"][name]["residual_ns"] += shift_ns

    return edit


FALSE_SLICES = {
    "clock": _put("clock", value="media"),
    "run": _put("run", value=_more),
    "residual": _put("residual_ns", value=_more),
    "hold for a camera": _stream("cam_front", "policy", "hold"),
    "overlap for a camera": _stream("cam_front", "policy", "overlap"),
    "tolerance": _stream("cam_front", "tolerance_ns", 10**12),
    "offset": _stream("cam_front", "offset_ns", _more),
    "a stamp alone": _stream("cam_front", "t_ns", _more),
    "a camera out of tolerance": _moved("cam_front", 2_000_000),
    "a camera of a larger residual": _moved("cam_front", 900_000),
    "a held value from the future": _moved("action", 10**8),
    "a held value that is too old": _moved("action", -(10**9)),
    "an interpolated value off the tick": _moved("can", 1),
    "an IMU window before its rows": _stream("imu", "t_ns", lambda t_ns: t_ns - 1),
    "sound of another moment": _moved("mic", 10**6),
    "sound at another rate": _stream("mic", "rate_hz", 8000),
    "sound of no rate": _stream("mic", "rate_hz", 0),
    "sound of other channels": _stream("mic", "channels", 2),
    "fewer rows": _stream("can", "rows", 0),
    "fewer columns": _stream("can", "columns", ["speed"]),
    "another array": _stream("can", "array", "imu"),
    "another member": _stream("cam_front", "member", "cam_back.jpg"),
    "another size": _stream("cam_front", "height", _more),
    "stamps of a tubelet": _stream("cam_front", "stamps_ns", [1]),
    "a camera less": _drop("streams", "cam_front"),
    "a required stream excused": _put("absent", value={"cam_front": "clouds"}),
    "an unknown stream excused": _put("absent", value={"cam_top": "clouds"}),
}


@pytest.mark.parametrize("name", FALSE_SLICES)
def test_slices_that_break_the_gate(out: Path, name: str) -> None:
    edit_shard_set.edit_description(out, SLICE, FALSE_SLICES[name])
    [fault] = [fault for fault in verify(str(out)).problems if SLICE in fault]
    assert "json member is damaged" not in fault


def _arrays(edit: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        arrays = decode_npz(members["numeric.npz"], where="x")
        edit(arrays)
        members["numeric.npz"] = encode_npz(arrays)

    return change


FALSE_ARRAYS = {
    "a stamp of the IMU beyond its window": _put("imu.t_ns", -1, value=lambda t_ns: t_ns + 10**9),
    "IMU stamps that go backward": _put("imu.t_ns", value=lambda t_ns: t_ns[::-1].copy()),
    "an interpolated row of another moment": _put("can.t_ns", 0, value=_more),
    "a held row of another moment": _put("action.t_ns", 0, value=_more),
    "a row in another type": _put("can", value=lambda rows: rows.astype(np.float32)),
    "stamps in another type": _put("can.t_ns", value=lambda rows: rows.astype(np.float64)),
    "an array too many": lambda arrays: arrays.update(more=np.zeros(3)),
    "an array less": _drop("can"),
    "another value": _put("can", 0, 0, value=10**6),
}


@pytest.mark.parametrize("name", FALSE_ARRAYS)
def test_numbers_that_are_not_those_described(out: Path, name: str) -> None:
    edit_shard_set.edit_members(out, SLICE, _arrays(FALSE_ARRAYS[name]))
    assert verify(str(out)).problems


def test_a_window_with_a_hole(out: Path) -> None:
    """Rows are taken out of the middle of a window, and everything is told so."""

    def fewer(arrays: dict[str, Any]) -> None:
        for name in ("imu", "imu.t_ns"):
            arrays[name] = np.delete(arrays[name], slice(3, 8), axis=0)

    edit_shard_set.edit_members(out, SLICE, _arrays(fewer))
    edit_shard_set.edit_description(out, SLICE, _stream("imu", "rows", lambda rows: rows - 5))

    def count(row: Table) -> None:
        next(entry for entry in row["numeric"] if entry["name"] == "imu")["rows"] -= 5

    edit_shard_set.edit_row(out, SLICE, count)
    assert any("'imu' has nothing for" in fault for fault in verify(str(out)).problems)


def test_a_text_of_another_time(out: Path) -> None:
    rows = [row for row in edit_shard_set.read_index(out) if row["kind"] == "slice" and row["text_bytes"]]
    key = rows[0]["key"]
    edit_shard_set.edit_description(out, key, _put("streams", "subtitles", "texts", 0, "t_ns", value=10**15))
    assert any("does not meet its window" in fault for fault in verify(str(out)).problems)


def test_text_that_is_not_utf_8(out: Path) -> None:
    edit_shard_set.edit_members(out, TEXT, lambda members: members.update(txt=b"\xff\xfe"))
    assert any("not UTF-8" in fault for fault in verify(str(out)).problems)


def test_shards_that_nobody_names(out: Path) -> None:
    shutil.copy(next((out / "shards").iterdir()), out / "shards" / "more-00000.tar")
    [fault] = verify(str(out)).problems
    assert "more-00000.tar" in fault


def test_sync_reports_of_another_build(out: Path) -> None:
    reports = json.loads((out / "sync.json").read_bytes())
    reports[0]["streams"]["cam_front"]["offset_ns"] += 1
    edit_shard_set.write_file(out, "sync.json", json.dumps(reports).encode())
    assert "sync.json" in verify(str(out)).problems[0]
    for wrong in (b"{}", b"[5]", b"[{}]", b'[{"streams": 5, "clock": 1}]'):
        edit_shard_set.write_file(out, "sync.json", wrong)
        assert "sync.json" in verify(str(out)).problems[0]


def test_the_quarantine_is_counted(out: Path) -> None:
    table = index.decode_parquet((out / "quarantine.parquet").read_bytes(), where="x")
    assert table.num_rows
    edit_shard_set.write_file(out, "quarantine.parquet", index.encode_parquet(table.slice(0, 0)))
    assert any("quarantine.parquet" in fault for fault in verify(str(out)).problems)
    edit_shard_set.write_file(out, "quarantine.parquet", index.encode_parquet(table.drop_columns(["reason"])))
    assert "no column 'reason'" in verify(str(out)).problems[0]


def test_an_index_in_another_order_is_the_same(out: Path) -> None:
    edit_shard_set.write_index(out, edit_shard_set.read_index(out)[::-1])
    assert verify(str(out)).problems == []


def test_the_report_outlives_the_build_records(out: Path) -> None:
    before = run([MMPACK, "report", str(out), "--json"])
    assert before.returncode == 0, before.stderr
    shutil.rmtree(out / "_build")
    after = run([MMPACK, "report", str(out), "--json"])
    assert json.loads(after.stdout) == json.loads(before.stdout)
    assert json.loads(after.stdout)["sync"]["ticks"] > 0


def test_names_that_climb_out_are_not_written() -> None:
    for name in ("../x.txt", "/etc/passwd", "a/../../x", "a\\..\\x", ""):
        with pytest.raises(Exception, match="would leave"):
            tar.make_header(name, 0)
    assert tar.parse_header(tar.make_header("a..b/c...txt", 0), 0, where="x")


@pytest.fixture(scope="module")
def tubelets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drive whose cameras are taken in windows and may be absent."""
    root = tmp_path_factory.mktemp("inputs")
    config = make_inputs(root, drives=1)
    text = '[sync]\nreference = "rate:5"\n[sync.streams."cam_*"]\npolicy = "window"\nrequired = false\n'
    config.write_text(config.read_text() + text)
    done = run(command(config, root / "out", "-j", "0"))
    assert done.returncode == 0, done.stderr
    return root / "out"


FALSE_TUBELETS = {
    "a frame of another moment": lambda camera: camera["stamps_ns"].__setitem__(
        -1, camera["stamps_ns"][-1] + 2000
    ),
    "frames beyond the window": lambda camera: camera["stamps_ns"].append(camera["t_ns"] + 10**9),
    "a frame less": lambda camera: camera["stamps_ns"].pop(),
    "no stamps": _drop("stamps_ns"),
    "another width": _put("width", value=_more),
    "all frames a second later": lambda camera: camera.update(
        t_ns=camera["t_ns"] + 10**9, stamps_ns=[stamp + 10**9 for stamp in camera["stamps_ns"]]
    ),
}


def test_good_tubelets_have_no_faults(tubelets: Path) -> None:
    assert verify(str(tubelets)).problems == []


@pytest.mark.parametrize("name", FALSE_TUBELETS)
def test_tubelets_that_are_not_those_described(tubelets: Path, tmp_path: Path, name: str) -> None:
    out = Path(shutil.copytree(tubelets, tmp_path / "out"))
    edit = FALSE_TUBELETS[name]
    edit_shard_set.edit_description(out, SLICE, lambda description: edit(description["streams"]["cam_front"]))
    [fault] = verify(str(out)).problems
    assert SLICE in fault


def test_tubelets_cut_short(tubelets: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(tubelets, tmp_path / "out"))
    for data in (b"", b"\0" * 100, b"\0\0\0\x18ftypisom"):
        edit_shard_set.edit_members(out, SLICE, _put("cam_front.mp4", value=data))
        assert SLICE in verify(str(out)).problems[0]


def test_an_optional_stream_may_be_absent_with_a_reason(tubelets: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(tubelets, tmp_path / "out"))
    edit_shard_set.edit_description(out, SLICE, _drop("streams", "cam_front"))
    edit_shard_set.edit_members(out, SLICE, _drop("cam_front.mp4"))
    assert "no reason is given" in verify(str(out)).problems[0]
    edit_shard_set.edit_description(
        out, SLICE, _put("absent", "cam_front", value="outside the stream's first and last item")
    )
    assert not any("no reason" in fault for fault in verify(str(out)).problems)
