"""Tables as people write them: csv of every sort, npy, parquet."""

from __future__ import annotations

import datetime
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpack.clock import decimals_to_ns
from mmpack.errors import ConfigError, DataError
from mmpack.recording import Stream, TableSource, TextSource
from mmpack.recording.formats import open_recordings
from mmpack.recording.sources.table_files import read_table
from mmpack.recording.sources.tables import _DECIMALS_AT_ONCE, NumericTable, TimeColumn
from tests.recording.media_files import MS, S, imu_table, write_recording_toml

UTC_NS = 1_673_069_018_503_469_952


def opened(folder: Path, text: str, *, clock: str = "boot") -> Stream:
    (recording,) = open_recordings(write_recording_toml(folder, text, clock=clock))
    (stream,) = recording.streams.values()
    return stream


def csv_imu(
    folder: Path, content: str | bytes, time: str = 'column = "t", unit = "ns"', more: str = ""
) -> Stream:
    data = content if isinstance(content, bytes) else content.encode()
    (folder / "imu.csv").write_bytes(data)
    return opened(folder, imu_table(time, more=more))


def values_of(stream: Stream) -> list[list[float]]:
    assert isinstance(stream.source, TableSource)
    return stream.source.values().tolist()


@pytest.mark.parametrize(
    "content",
    [
        "t,ax,ay\n5,1.5,-2\n15,3,4e1\n",
        "\ufefft,ax,ay\n5,1.5,-2\n15,3,4e1\n",
        "t, ax, ay\n5, 1.5, -2\n15, 3, 4e1\n",
        " t ,ax,ay \n 5,1.5,-2\n 15,3,40\n",
        't,"ax",ay\r\n5,"1.5",-2\r\n"15",3,40\r\n',
        "t,ax,ay\n5,1.5,-2\n\n15,3,40",
        "ax,t,ay\n1.5,5,-2\n3,15,40\n",
    ],
    ids=[
        "plain",
        "bom",
        "spaces",
        "spaces around names",
        "quotes and crlf",
        "blank line",
        "time in the middle",
    ],
)
def test_a_csv_reads_as_it_is_meant(tmp_path: Path, content: str) -> None:
    stream = csv_imu(tmp_path, content)
    assert stream.timestamps.t_ns.tolist() == [5, 15]
    assert isinstance(stream.source, TableSource)
    assert sorted(stream.source.columns()) == ["ax", "ay"]
    assert values_of(stream) == [[1.5, -2.0], [3.0, 40.0]]


def test_a_tsv_reads_likewise(tmp_path: Path) -> None:
    (tmp_path / "imu.tsv").write_text("t\tax\n5\t1.5\n")
    stream = opened(tmp_path, imu_table(path="imu.tsv"))
    assert (stream.timestamps.t_ns.tolist(), values_of(stream)) == ([5], [[1.5]])


@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=20), st.sampled_from(["s", "ms", "us", "ns"]))
def test_decimal_text_is_exact_in_every_unit(
    tmp_path_factory: pytest.TempPathFactory, t_ns: list[int], unit: str
) -> None:
    folder = tmp_path_factory.mktemp("exact")
    places = {"s": 9, "ms": 6, "us": 3, "ns": 0}[unit]
    lines = [f"{t // 10**places}.{t % 10**places:0{places}d}" if places else str(t) for t in t_ns]
    stream = csv_imu(
        folder, "t,a\n" + "".join(f"{line},0\n" for line in lines), f'column = "t", unit = "{unit}"'
    )
    assert stream.timestamps.t_ns.tolist() == t_ns


def test_a_csv_of_a_header_alone_has_no_stamps(tmp_path: Path) -> None:
    assert len(csv_imu(tmp_path, "t,ax\n").timestamps) == 0


def test_what_a_sensor_did_not_say_is_nan_but_a_time_has_to_be_there(tmp_path: Path) -> None:
    stream = csv_imu(tmp_path, "t,ax,ay,az\n5,nan,,1\n15,2,,\n")
    assert np.isnan(values_of(stream)).tolist() == [[True, True, False], [False, True, True]]
    with pytest.raises(DataError, match="row 1") as caught:
        _ = csv_imu(tmp_path, "t,ax\n5,1\n,2\n").timestamps
    assert "imu.csv" in caught.value.where
    assert caught.value.hint


def test_columns_that_are_no_numbers_are_left_out_or_refused_by_name(tmp_path: Path) -> None:
    content = "t,ax,note\n5,1,a\n15,2,b\n"
    assert values_of(csv_imu(tmp_path, content)) == [[1.0], [2.0]]
    with pytest.raises(DataError, match="'note' is not numeric"):
        values_of(csv_imu(tmp_path, content, more='columns = ["ax", "note"]'))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("t,ax\n1.67306901850347e+18,0\n", "went through float64"),
        ("t,ax\n1673069018503469952.0,0\n", "went through float64"),
        ("t,ax\n12:30:01,0\n", "not a decimal number"),
        ("t,ax\n2023-01-07 13:23:38,0\n", "not a decimal number"),
        ("time,ax\n5,0\n", "no column 't'"),
        ("t,ax,ax\n5,0,1\n", "two columns are called 'ax'"),
        ("t,ax\n5,0,7\n", "cannot be read as a table"),
        (b"t,ax\n5,\xff\xfe\x00\n", "cannot be read as a table|not numeric|no numeric"),
    ],
)
def test_a_csv_that_cannot_be_right_is_refused_by_file_and_stream(
    tmp_path: Path, content: str | bytes, what: str
) -> None:
    stream = csv_imu(tmp_path, content)
    with pytest.raises(DataError, match=what) as caught:
        values_of(stream)
    assert "imu.csv" in caught.value.where
    assert "'imu'" in caught.value.where


def test_a_wrong_column_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        _ = csv_imu(tmp_path, "t_ns,ax\n5,0\n", 'column = "t_n", unit = "ns"').timestamps
    assert "'t_ns'" in caught.value.hint


def test_a_wrong_unit_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown time unit 'nS'") as caught:
        _ = csv_imu(tmp_path, "t,ax\n5,0\n", 'column = "t", unit = "nS"').timestamps
    assert caught.value.hint


@pytest.mark.parametrize("dtype", [np.int64, np.uint32, np.float64])
def test_npy_columns_go_by_number(tmp_path: Path, dtype: type) -> None:
    np.save(tmp_path / "imu.npy", np.array([[5, 1, 2], [15, 3, 4]], dtype))
    stream = opened(tmp_path, imu_table('column = 0, unit = "s"', "imu.npy"))
    assert stream.timestamps.t_ns.tolist() == [5 * S, 15 * S]
    assert values_of(stream) == [[1.0, 2.0], [3.0, 4.0]]


def test_an_npy_without_a_suffix_and_one_with_named_fields(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.array([0.5, 1.5]))
    (tmp_path / "t.npy").rename(tmp_path / "t")
    np.save(tmp_path / "v.npy", np.array([(1, 2.5), (3, 4.5)], [("a", "i4"), ("b", "f8")]))
    stream = opened(tmp_path, imu_table('path = "t", unit = "s"', "v.npy"))
    assert stream.timestamps.t_ns.tolist() == [S // 2, 3 * S // 2]
    assert isinstance(stream.source, TableSource)
    assert stream.source.columns() == ("a", "b")
    assert values_of(stream) == [[1.0, 2.5], [3.0, 4.5]]


def test_floats_declare_what_they_cannot_tell(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.array([1_673_069_018.5, 1_673_069_019.5]))
    assert TimeColumn(tmp_path / "t.npy", None, "s").read(stream="imu").resolution_ns == 239
    np.save(tmp_path / "ns.npy", np.array([UTC_NS, UTC_NS + 256], np.float64))
    with pytest.raises(DataError, match="steps of 256 ns") as caught:
        TimeColumn(tmp_path / "ns.npy", None, "ns").read(stream="imu")
    assert "ns.npy" in caught.value.where


@pytest.mark.parametrize(
    "array", [np.array([{"a": 1}], object), np.zeros((2, 2, 2)), np.array(["a", "b"]), np.array(5)]
)
def test_an_npy_that_is_no_table_is_refused_and_never_unpickled(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "imu.npy", array, allow_pickle=True)
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "imu.npy", stream="imu")
    assert "imu.npy" in caught.value.where


@pytest.mark.parametrize("suffix", ["csv", "npy", "parquet", "bin"])
def test_bytes_of_nothing_known_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"imu.{suffix}"
    path.write_bytes(
        b"\x93NUMPY\x01\x00garbage"
        if suffix == "npy"
        else b"PAR1 and no more"
        if suffix != "csv"
        else b"\x00" * 9
    )
    with pytest.raises(DataError) as caught:
        TimeColumn(path, "t", "ns").read(stream="imu")
    assert path.name in caught.value.where


def test_a_cut_npy_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.arange(1000))
    (tmp_path / "t.npy").write_bytes((tmp_path / "t.npy").read_bytes()[:4000])
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_table(tmp_path / "t.npy", stream="imu")


@pytest.mark.parametrize("arrow_unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_parquet_timestamps_carry_their_unit(tmp_path: Path, arrow_unit: str, zone: str | None) -> None:
    times = [datetime.datetime(2023, 1, 7, 13, 23, second, tzinfo=datetime.UTC) for second in (38, 39)]
    column = pa.array(times, pa.timestamp("us", "UTC")).cast(pa.timestamp(arrow_unit, zone))
    pq.write_table(pa.table({"t": column, "later": column, "ax": [1, 2]}), tmp_path / "imu.parquet")
    for unit in ("ns", "us"):  # whatever the description says
        stream = opened(tmp_path, imu_table(f'column = "t", unit = "{unit}"', "imu.parquet"), clock="utc")
        assert stream.timestamps.t_ns.tolist() == [int(time.timestamp()) * S for time in times]
        assert values_of(stream) == [[1.0], [2.0]]


def test_parquet_lists_are_columns_and_a_hole_in_the_time_is_refused(tmp_path: Path) -> None:
    lists = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"t": [0.5, 1.5], "state": lists}), tmp_path / "imu.parquet")
    stream = opened(tmp_path, imu_table('column = "t", unit = "s"', "imu.parquet"))
    assert isinstance(stream.source, TableSource)
    assert stream.source.columns() == ("state.0", "state.1")
    assert values_of(stream) == [[1.0, 2.0], [3.0, 4.0]]
    pq.write_table(pa.table({"t": [5, None], "ax": [1.0, 2.0]}), tmp_path / "imu.parquet")
    with pytest.raises(DataError, match="row 1"):
        _ = opened(tmp_path, imu_table(path="imu.parquet")).timestamps


def test_a_column_of_lists_may_be_asked_for_by_its_name(tmp_path: Path) -> None:
    """As LeRobot writes its states and actions: fixed sizes in most files, free lists in older ones."""
    fixed = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))
    free = pa.array([[5, 6, 7], [8, 9, None]], pa.list_(pa.int64()))
    table = pa.table({"t": [0.5, 1.5], "observation.state": fixed, "action": free, "index": [0, 1]})
    pq.write_table(table, tmp_path / "imu.parquet")
    more = 'columns = ["action", "observation.state", "index"]'
    stream = opened(tmp_path, imu_table('column = "t", unit = "s"', "imu.parquet", more=more))
    assert isinstance(stream.source, TableSource)
    elements = ["action.0", "action.1", "action.2", "observation.state.0", "observation.state.1"]
    assert stream.source.columns() == (*elements, "index")
    found = stream.source.values()
    assert found[0].tolist() == [5, 6, 7, 1, 2, 0]
    assert found[1, :2].tolist() == [8, 9]
    assert np.isnan(found[1, 2])
    assert found[1, 3:].tolist() == [3, 4, 1]


@pytest.mark.parametrize("lists", [[[1.0], [2.0], [3.0, 4.0]], [[1.0], [1.0], None]], ids=["ragged", "none"])
def test_lists_of_different_lengths_are_refused_if_they_are_wanted(tmp_path: Path, lists: list) -> None:
    table = pa.table({"t": [1, 2, 3], "ax": [0.0, 1.0, 2.0], "odd": pa.array(lists, pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "imu.parquet")
    with pytest.raises(DataError, match=r"'odd' holds lists of different lengths, as in row 2"):
        values_of(opened(tmp_path, imu_table(path="imu.parquet")))
    chosen = opened(tmp_path, imu_table(path="imu.parquet", more='columns = ["ax"]'))
    assert values_of(chosen) == [[0.0], [1.0], [2.0]]


def test_values_and_stamps_of_different_length_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.arange(3))
    np.save(tmp_path / "v.npy", np.arange(4))
    stream = opened(tmp_path, imu_table('path = "t.npy", unit = "s"', "v.npy"))
    with pytest.raises(DataError, match="4 rows but 3 stamps"):
        values_of(stream)


def test_gps_weeks_become_one_time(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.array([[2000.0, 0.5], [2000.0, 1.5]]))
    np.save(tmp_path / "v.npy", np.arange(2.0))
    stream = opened(
        tmp_path, imu_table('path = "t.npy", unit = "gps_week_s", columns = [0, 1]', "v.npy"), clock="gps"
    )
    assert stream.timestamps.t_ns.tolist() == [2000 * 604_800 * S + S // 2, 2000 * 604_800 * S + 3 * S // 2]


def test_a_table_survives_the_way_to_a_worker(tmp_path: Path) -> None:
    (tmp_path / "imu.csv").write_text("t,ax\n5,1\n")
    source = NumericTable(tmp_path / "imu.csv", TimeColumn(tmp_path / "imu.csv", "t", "ns"), "imu")
    assert source.values().tolist() == [[1.0]]
    small = pickle.dumps(source)
    assert len(small) < 1_000
    assert pickle.loads(small).values().tolist() == [[1.0]]


def test_latency_and_start_move_every_stamp(tmp_path: Path) -> None:
    stream = csv_imu(tmp_path, "t,ax\n5,1\n", more='start = "1s"\nlatency = "2ms"')
    assert stream.timestamps.t_ns.tolist() == [S - 2 * MS + 5]


TEXTS = 'kind = "text"\npath = "said.csv"\ntime = { column = "t", unit = "s" }\nend = "end"'


def test_a_timed_csv_of_texts_keeps_commas_quotes_and_line_ends(tmp_path: Path) -> None:
    rows = 't,end,text\n0.5,1.25,"Left, then ""right""."\n1.5,2,"Two\nlines"\n3,3.5,NA\n'
    (tmp_path / "said.csv").write_text(rows)
    stream = opened(tmp_path, f'[streams.said]\n{TEXTS}\nstart = "10s"')
    assert isinstance(stream.source, TextSource)
    assert stream.source.texts() == ['Left, then "right".', "Two\nlines", "NA"]
    assert stream.timestamps.t_ns.tolist() == [10_500 * MS, 11_500 * MS, 13_000 * MS]
    assert stream.timestamps.end_ns is not None
    assert stream.timestamps.end_ns.tolist() == [11_250 * MS, 12_000 * MS, 13_500 * MS]


def test_line_ends_in_texts_do_not_break_a_large_csv(tmp_path: Path) -> None:
    said = "one\n" * 30
    rows = "".join(f'{k},{k + 1},"{said}"\n' for k in range(20_000))  # more than the reader takes at once
    (tmp_path / "said.csv").write_text("t,end,text\n" + rows)
    stream = opened(tmp_path, f"[streams.said]\n{TEXTS}")
    assert stream.timestamps.t_ns.tolist() == [k * S for k in range(20_000)]
    assert isinstance(stream.source, TextSource)
    assert set(stream.source.texts()) == {said}


def test_texts_that_look_like_numbers_stay_texts(tmp_path: Path) -> None:
    (tmp_path / "said.csv").write_text("t,end,text\n0,1,007\n1,2,1e5\n")
    stream = opened(tmp_path, f"[streams.said]\n{TEXTS}")
    assert isinstance(stream.source, TextSource)
    assert stream.source.texts() == ["007", "1e5"]


def test_a_missing_text_column_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "said.csv").write_text("t,end,words\n0,1,a\n")
    with pytest.raises(DataError, match="no column 'text'") as caught:
        opened(tmp_path, f"[streams.said]\n{TEXTS}")
    assert "said" in caught.value.where


@pytest.mark.parametrize("columns", ["", 'columns = ["ax"]'])
def test_a_word_among_numbers_is_refused_and_not_its_column_left_out(tmp_path: Path, columns: str) -> None:
    rows = "".join(f"{k},{'N/K' if k == 7 else k / 2},hello\n" for k in range(20))
    stream = csv_imu(tmp_path, "t,ax,note\n" + rows, more=columns)
    assert isinstance(stream.source, TableSource)
    for ask in (stream.source.columns, stream.source.values):
        if ask == stream.source.columns and columns:
            continue  # those asked for are known without reading
        with pytest.raises(DataError, match=r"column 'ax'.*'N/K' in row 7") as caught:
            ask()
        assert "imu.csv" in caught.value.where


def test_columns_that_are_text_throughout_are_left_out(tmp_path: Path) -> None:
    rows = "".join(f"{k},{k / 2},{'' if k % 3 else 'pothole'},{'7' if k == 1 else 'x'}\n" for k in range(20))
    stream = csv_imu(tmp_path, "t,ax,note,code\n" + rows)
    assert isinstance(stream.source, TableSource)
    assert stream.source.columns() == ("ax",)
    assert stream.source.values().shape == (20, 1)


spelt = st.tuples(
    st.integers(-(10**18), 10**18),
    st.sampled_from(["{}", " {} ", "{}.0", "{}.5", "{}.25 ", "{:020d}"]),
)


@given(st.lists(spelt, min_size=1, max_size=12))
def test_integers_in_text_are_what_exact_decimals_are(rows: list[tuple[int, str]]) -> None:
    texts = [
        form.format(value) if abs(value) < 2**52 or "." not in form else str(value) for value, form in rows
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_text("ax,t\n" + "".join(f"0,{text}\n" for text in texts))
        stamps = TimeColumn(path, "t", "ns").read(stream="imu")
    t_ns, resolution_ns = decimals_to_ns(texts, "ns")
    assert stamps.t_ns.tolist() == t_ns.tolist()
    assert stamps.resolution_ns == resolution_ns


@pytest.mark.parametrize("text", ["0x1F", "1e3", "", "nan", "9223372036854775808", "+-1", "١"])
def test_what_arrow_may_take_for_an_integer_is_refused_in_its_row(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"ax,t\n0,1\n0,{text}\n")
    with pytest.raises(DataError, match="row 1"):
        TimeColumn(path, "t", "ns").read(stream="imu")


def test_decimals_of_many_blocks_are_one_column(tmp_path: Path) -> None:
    count = 2 * _DECIMALS_AT_ONCE + 10
    path = tmp_path / "t.csv"
    lines = [f"0,{k // 100}.{k % 100:02d}\n" for k in range(count)]
    path.write_text("ax,t\n" + "".join(lines))
    stamps = TimeColumn(path, "t", "s").read(stream="imu")
    assert np.array_equal(stamps.t_ns, np.arange(count, dtype=np.int64) * 10 * MS)
    assert stamps.resolution_ns == 10 * MS
    lines[-3] = "0,abc\n"
    path.write_text("ax,t\n" + "".join(lines))
    with pytest.raises(DataError, match=f"row {count - 3}"):
        TimeColumn(path, "t", "s").read(stream="imu")


def test_the_time_is_found_whatever_the_other_columns_hold(tmp_path: Path) -> None:
    stream = csv_imu(tmp_path, "b, t ,a\nx,5,1\ny,6,2\n", more='columns = ["a"]')
    assert stream.timestamps.t_ns.tolist() == [5, 6]
    assert values_of(stream) == [[1.0], [2.0]]
    stream = csv_imu(tmp_path, "b,t,a\nx,5,1\n", more='columns = ["aa"]')
    with pytest.raises(DataError, match="no column 'aa'") as caught:
        values_of(stream)
    assert "'a'" in caught.value.hint
