"""Numeric streams and timed texts in csv, npy and parquet files of many variants."""

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
from mmpack.recording.sources.tables import DECIMAL_BLOCK_ROWS, NumericTable, TimeColumn
from tests.recording.media_files import MS, S, imu_table, write_recording_toml

UTC_NS = 1_673_069_018_503_469_952


def open_stream(folder: Path, text: str, *, clock: str = "boot") -> Stream:
    (recording,) = open_recordings(write_recording_toml(folder, text, clock=clock))
    (stream,) = recording.streams.values()
    return stream


def open_imu_csv(
    folder: Path, content: str | bytes, time: str = 'column = "t", unit = "ns"', more: str = ""
) -> Stream:
    data = content if isinstance(content, bytes) else content.encode()
    (folder / "imu.csv").write_bytes(data)
    return open_stream(folder, imu_table(time, more=more))


def read_values(stream: Stream) -> list[list[float]]:
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
def test_csv_variants_give_the_same_table(tmp_path: Path, content: str) -> None:
    stream = open_imu_csv(tmp_path, content)
    assert stream.timestamps.t_ns.tolist() == [5, 15]
    assert isinstance(stream.source, TableSource)
    assert sorted(stream.source.columns()) == ["ax", "ay"]
    assert read_values(stream) == [[1.5, -2.0], [3.0, 40.0]]


def test_a_tsv_is_read(tmp_path: Path) -> None:
    (tmp_path / "imu.tsv").write_text("t\tax\n5\t1.5\n")
    stream = open_stream(tmp_path, imu_table(path="imu.tsv"))
    assert (stream.timestamps.t_ns.tolist(), read_values(stream)) == ([5], [[1.5]])


@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=20), st.sampled_from(["s", "ms", "us", "ns"]))
def test_decimal_text_is_exact_in_every_unit(
    tmp_path_factory: pytest.TempPathFactory, t_ns: list[int], unit: str
) -> None:
    folder = tmp_path_factory.mktemp("exact")
    digits = {"s": 9, "ms": 6, "us": 3, "ns": 0}[unit]
    lines = [f"{t // 10**digits}.{t % 10**digits:0{digits}d}" if digits else str(t) for t in t_ns]
    stream = open_imu_csv(
        folder, "t,a\n" + "".join(f"{line},0\n" for line in lines), f'column = "t", unit = "{unit}"'
    )
    assert stream.timestamps.t_ns.tolist() == t_ns


def test_a_csv_with_only_a_header_has_no_timestamps(tmp_path: Path) -> None:
    assert len(open_imu_csv(tmp_path, "t,ax\n").timestamps) == 0


def test_a_missing_value_is_nan_but_a_missing_time_raises(tmp_path: Path) -> None:
    stream = open_imu_csv(tmp_path, "t,ax,ay,az\n5,nan,,1\n15,2,,\n")
    assert np.isnan(read_values(stream)).tolist() == [[True, True, False], [False, True, True]]
    with pytest.raises(DataError, match="row 1") as caught:
        _ = open_imu_csv(tmp_path, "t,ax\n5,1\n,2\n").timestamps
    assert "imu.csv" in caught.value.where
    assert caught.value.hint


def test_text_columns_are_omitted_and_raise_if_selected(tmp_path: Path) -> None:
    content = "t,ax,note\n5,1,a\n15,2,b\n"
    assert read_values(open_imu_csv(tmp_path, content)) == [[1.0], [2.0]]
    with pytest.raises(DataError, match="'note' is not numeric"):
        read_values(open_imu_csv(tmp_path, content, more='columns = ["ax", "note"]'))


@pytest.mark.parametrize(
    ("content", "message"),
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
def test_an_invalid_csv_raises_with_file_and_stream(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    stream = open_imu_csv(tmp_path, content)
    with pytest.raises(DataError, match=message) as caught:
        read_values(stream)
    assert "imu.csv" in caught.value.where
    assert "'imu'" in caught.value.where


def test_an_unknown_column_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        _ = open_imu_csv(tmp_path, "t_ns,ax\n5,0\n", 'column = "t_n", unit = "ns"').timestamps
    assert "'t_ns'" in caught.value.hint


def test_an_unknown_unit_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown time unit 'nS'") as caught:
        _ = open_imu_csv(tmp_path, "t,ax\n5,0\n", 'column = "t", unit = "nS"').timestamps
    assert caught.value.hint


@pytest.mark.parametrize("dtype", [np.int64, np.uint32, np.float64])
def test_npy_columns_are_named_by_index(tmp_path: Path, dtype: type) -> None:
    np.save(tmp_path / "imu.npy", np.array([[5, 1, 2], [15, 3, 4]], dtype))
    stream = open_stream(tmp_path, imu_table('column = 0, unit = "s"', "imu.npy"))
    assert stream.timestamps.t_ns.tolist() == [5 * S, 15 * S]
    assert read_values(stream) == [[1.0, 2.0], [3.0, 4.0]]


def test_an_npy_without_suffix_and_one_with_named_fields(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.array([0.5, 1.5]))
    (tmp_path / "t.npy").rename(tmp_path / "t")
    np.save(tmp_path / "v.npy", np.array([(1, 2.5), (3, 4.5)], [("a", "i4"), ("b", "f8")]))
    stream = open_stream(tmp_path, imu_table('path = "t", unit = "s"', "v.npy"))
    assert stream.timestamps.t_ns.tolist() == [S // 2, 3 * S // 2]
    assert isinstance(stream.source, TableSource)
    assert stream.source.columns() == ("a", "b")
    assert read_values(stream) == [[1.0, 2.5], [3.0, 4.5]]


@pytest.mark.parametrize(
    ("unit", "step_ns"),
    [
        ("ns", 1),
        ("us", 10**3),
        ("10us", 10**4),
        ("ms", 10**6),
        ("s", 10**9),
        ("m", 60 * 10**9),
        ("D", 86400 * 10**9),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_datetime_field_of_an_npy_is_read_in_its_own_unit(
    tmp_path: Path, unit: str, step_ns: int, order: str
) -> None:
    rows = np.array([(0, 1.0), (7, 2.0)], [("t", "i8"), ("ax", "f8")]).astype(
        [("t", f"{order}M8[{unit}]"), ("ax", "f8")]
    )
    np.save(tmp_path / "imu.npy", rows)
    stream = open_stream(tmp_path, imu_table('column = "t", unit = "ns"', "imu.npy"))
    assert stream.timestamps.t_ns.tolist() == [0, 7 * step_ns]
    assert stream.timestamps.resolution_ns == step_ns
    assert read_values(stream) == [[1.0], [2.0]]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (np.array([0, 1], "M8[ps]"), r"datetime64\[ps\], which cannot be converted"),
        (np.array([0, 1], "M8[M]"), r"datetime64\[M\], which cannot be converted"),
        (np.array(["2023-01-07", "NaT"], "M8[us]"), "no value in row 1"),
        (
            np.array(["2023-01-07", "2300-01-01"], "M8[s]"),
            "2300-01-01T00:00:00 in row 1 does not fit into int64",
        ),
    ],
)
def test_a_datetime_field_that_has_no_nanoseconds_raises(
    tmp_path: Path, times: np.ndarray, message: str
) -> None:
    rows = np.zeros(2, [("t", times.dtype), ("ax", "f8")])
    rows["t"] = times
    np.save(tmp_path / "imu.npy", rows)
    with pytest.raises(DataError, match=message) as caught:
        TimeColumn(tmp_path / "imu.npy", "t", "ns").read(stream="imu")
    assert "imu.npy" in caught.value.where


def test_float_times_report_their_resolution_or_raise(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.array([1_673_069_018.5, 1_673_069_019.5]))
    assert TimeColumn(tmp_path / "t.npy", None, "s").read(stream="imu").resolution_ns == 239
    np.save(tmp_path / "ns.npy", np.array([UTC_NS, UTC_NS + 256], np.float64))
    with pytest.raises(DataError, match="steps of 256 ns") as caught:
        TimeColumn(tmp_path / "ns.npy", None, "ns").read(stream="imu")
    assert "ns.npy" in caught.value.where


@pytest.mark.parametrize(
    "array", [np.array([{"a": 1}], object), np.zeros((2, 2, 2)), np.array(["a", "b"]), np.array(5)]
)
def test_an_npy_that_is_not_a_numeric_table_raises_without_unpickling(
    tmp_path: Path, array: np.ndarray
) -> None:
    np.save(tmp_path / "imu.npy", array, allow_pickle=True)
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "imu.npy", stream="imu")
    assert "imu.npy" in caught.value.where


@pytest.mark.parametrize("suffix", ["csv", "npy", "parquet", "bin"])
def test_a_file_of_unknown_content_raises(tmp_path: Path, suffix: str) -> None:
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


def test_a_truncated_npy_raises(tmp_path: Path) -> None:
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
    for unit in ("ns", "us"):  # The unit in recording.toml does not matter.
        stream = open_stream(
            tmp_path, imu_table(f'column = "t", unit = "{unit}"', "imu.parquet"), clock="utc"
        )
        assert stream.timestamps.t_ns.tolist() == [int(time.timestamp()) * S for time in times]
        assert read_values(stream) == [[1.0], [2.0]]


def test_parquet_lists_are_columns_and_a_missing_time_raises(tmp_path: Path) -> None:
    lists = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"t": [0.5, 1.5], "state": lists}), tmp_path / "imu.parquet")
    stream = open_stream(tmp_path, imu_table('column = "t", unit = "s"', "imu.parquet"))
    assert isinstance(stream.source, TableSource)
    assert stream.source.columns() == ("state.0", "state.1")
    assert read_values(stream) == [[1.0, 2.0], [3.0, 4.0]]
    pq.write_table(pa.table({"t": [5, None], "ax": [1.0, 2.0]}), tmp_path / "imu.parquet")
    with pytest.raises(DataError, match="row 1"):
        _ = open_stream(tmp_path, imu_table(path="imu.parquet")).timestamps


def test_a_list_column_can_be_selected_by_its_name(tmp_path: Path) -> None:
    """Covers both forms of LeRobot's states and actions: fixed-size lists, and variable-size lists in older files."""
    fixed = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))
    free = pa.array([[5, 6, 7], [8, 9, None]], pa.list_(pa.int64()))
    table = pa.table({"t": [0.5, 1.5], "observation.state": fixed, "action": free, "index": [0, 1]})
    pq.write_table(table, tmp_path / "imu.parquet")
    more = 'columns = ["action", "observation.state", "index"]'
    stream = open_stream(tmp_path, imu_table('column = "t", unit = "s"', "imu.parquet", more=more))
    assert isinstance(stream.source, TableSource)
    elements = ["action.0", "action.1", "action.2", "observation.state.0", "observation.state.1"]
    assert stream.source.columns() == (*elements, "index")
    values = stream.source.values()
    assert values[0].tolist() == [5, 6, 7, 1, 2, 0]
    assert values[1, :2].tolist() == [8, 9]
    assert np.isnan(values[1, 2])
    assert values[1, 3:].tolist() == [3, 4, 1]


@pytest.mark.parametrize("lists", [[[1.0], [2.0], [3.0, 4.0]], [[1.0], [1.0], None]], ids=["ragged", "none"])
def test_lists_of_different_lengths_raise_unless_other_columns_are_selected(
    tmp_path: Path, lists: list
) -> None:
    table = pa.table({"t": [1, 2, 3], "ax": [0.0, 1.0, 2.0], "odd": pa.array(lists, pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "imu.parquet")
    with pytest.raises(DataError, match=r"'odd' holds lists of different lengths, as in row 2"):
        read_values(open_stream(tmp_path, imu_table(path="imu.parquet")))
    stream = open_stream(tmp_path, imu_table(path="imu.parquet", more='columns = ["ax"]'))
    assert read_values(stream) == [[0.0], [1.0], [2.0]]


def test_different_numbers_of_values_and_timestamps_raise(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.arange(3))
    np.save(tmp_path / "v.npy", np.arange(4))
    stream = open_stream(tmp_path, imu_table('path = "t.npy", unit = "s"', "v.npy"))
    with pytest.raises(DataError, match="4 rows but 3 timestamps"):
        read_values(stream)


def test_gps_week_and_second_become_one_timestamp(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.array([[2000.0, 0.5], [2000.0, 1.5]]))
    np.save(tmp_path / "v.npy", np.arange(2.0))
    stream = open_stream(
        tmp_path, imu_table('path = "t.npy", unit = "gps_week_s", columns = [0, 1]', "v.npy"), clock="gps"
    )
    assert stream.timestamps.t_ns.tolist() == [2000 * 604_800 * S + S // 2, 2000 * 604_800 * S + 3 * S // 2]


def test_a_table_is_pickled_without_its_values(tmp_path: Path) -> None:
    (tmp_path / "imu.csv").write_text("t,ax\n5,1\n")
    source = NumericTable(tmp_path / "imu.csv", TimeColumn(tmp_path / "imu.csv", "t", "ns"), "imu")
    assert source.values().tolist() == [[1.0]]
    pickled = pickle.dumps(source)
    assert len(pickled) < 1_000
    assert pickle.loads(pickled).values().tolist() == [[1.0]]


def test_latency_and_start_shift_every_timestamp(tmp_path: Path) -> None:
    stream = open_imu_csv(tmp_path, "t,ax\n5,1\n", more='start = "1s"\nlatency = "2ms"')
    assert stream.timestamps.t_ns.tolist() == [S - 2 * MS + 5]


TEXTS = 'kind = "text"\npath = "speech.csv"\ntime = { column = "t", unit = "s" }\nend = "end"'


def test_a_timed_csv_of_texts_keeps_commas_quotes_and_line_ends(tmp_path: Path) -> None:
    rows = 't,end,text\n0.5,1.25,"Left, then ""right""."\n1.5,2,"Two\nlines"\n3,3.5,NA\n'
    (tmp_path / "speech.csv").write_text(rows)
    stream = open_stream(tmp_path, f'[streams.speech]\n{TEXTS}\nstart = "10s"')
    assert isinstance(stream.source, TextSource)
    assert stream.source.texts() == ['Left, then "right".', "Two\nlines", "NA"]
    assert stream.timestamps.t_ns.tolist() == [10_500 * MS, 11_500 * MS, 13_000 * MS]
    assert stream.timestamps.end_ns is not None
    assert stream.timestamps.end_ns.tolist() == [11_250 * MS, 12_000 * MS, 13_500 * MS]


def test_line_ends_in_texts_do_not_break_a_large_csv(tmp_path: Path) -> None:
    text = "one\n" * 30
    rows = "".join(
        f'{k},{k + 1},"{text}"\n' for k in range(20_000)
    )  # This is more than one block of the csv reader.
    (tmp_path / "speech.csv").write_text("t,end,text\n" + rows)
    stream = open_stream(tmp_path, f"[streams.speech]\n{TEXTS}")
    assert stream.timestamps.t_ns.tolist() == [k * S for k in range(20_000)]
    assert isinstance(stream.source, TextSource)
    assert set(stream.source.texts()) == {text}


def test_texts_that_look_like_numbers_remain_texts(tmp_path: Path) -> None:
    (tmp_path / "speech.csv").write_text("t,end,text\n0,1,007\n1,2,1e5\n")
    stream = open_stream(tmp_path, f"[streams.speech]\n{TEXTS}")
    assert isinstance(stream.source, TextSource)
    assert stream.source.texts() == ["007", "1e5"]


def test_a_missing_text_column_raises_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "speech.csv").write_text("t,end,words\n0,1,a\n")
    with pytest.raises(DataError, match="no column 'text'") as caught:
        open_stream(tmp_path, f"[streams.speech]\n{TEXTS}")
    assert "speech" in caught.value.where


@pytest.mark.parametrize("columns", ["", 'columns = ["ax"]'])
def test_a_text_cell_in_a_numeric_column_raises(tmp_path: Path, columns: str) -> None:
    rows = "".join(f"{k},{'N/K' if k == 7 else k / 2},hello\n" for k in range(20))
    stream = open_imu_csv(tmp_path, "t,ax,note\n" + rows, more=columns)
    assert isinstance(stream.source, TableSource)
    for read in (stream.source.columns, stream.source.values):
        if read == stream.source.columns and columns:
            continue
        with pytest.raises(DataError, match=r"column 'ax'.*'N/K' in row 7") as caught:
            read()
        assert "imu.csv" in caught.value.where


def test_columns_of_text_alone_are_omitted(tmp_path: Path) -> None:
    rows = "".join(f"{k},{k / 2},{'' if k % 3 else 'pothole'},{'7' if k == 1 else 'x'}\n" for k in range(20))
    stream = open_imu_csv(tmp_path, "t,ax,note,code\n" + rows)
    assert isinstance(stream.source, TableSource)
    assert stream.source.columns() == ("ax",)
    assert stream.source.values().shape == (20, 1)


spelled_integers = st.tuples(
    st.integers(-(10**18), 10**18),
    st.sampled_from(["{}", " {} ", "{}.0", "{}.5", "{}.25 ", "{:020d}"]),
)


@given(st.lists(spelled_integers, min_size=1, max_size=12))
def test_integers_in_text_equal_exact_decimals(rows: list[tuple[int, str]]) -> None:
    texts = [
        format_.format(value) if abs(value) < 2**52 or "." not in format_ else str(value)
        for value, format_ in rows
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_text("ax,t\n" + "".join(f"0,{text}\n" for text in texts))
        timestamps = TimeColumn(path, "t", "ns").read(stream="imu")
    t_ns, resolution_ns = decimals_to_ns(texts, "ns")
    assert timestamps.t_ns.tolist() == t_ns.tolist()
    assert timestamps.resolution_ns == resolution_ns


@pytest.mark.parametrize("text", ["0x1F", "1e3", "", "nan", "9223372036854775808", "+-1", "١"])
def test_text_that_is_not_a_plain_integer_raises_with_its_row(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"ax,t\n0,1\n0,{text}\n")
    with pytest.raises(DataError, match="row 1"):
        TimeColumn(path, "t", "ns").read(stream="imu")


def test_decimals_of_several_blocks_are_one_column(tmp_path: Path) -> None:
    count = 2 * DECIMAL_BLOCK_ROWS + 10
    path = tmp_path / "t.csv"
    lines = [f"0,{k // 100}.{k % 100:02d}\n" for k in range(count)]
    path.write_text("ax,t\n" + "".join(lines))
    timestamps = TimeColumn(path, "t", "s").read(stream="imu")
    assert np.array_equal(timestamps.t_ns, np.arange(count, dtype=np.int64) * 10 * MS)
    assert timestamps.resolution_ns == 10 * MS
    lines[-3] = "0,abc\n"
    path.write_text("ax,t\n" + "".join(lines))
    with pytest.raises(DataError, match=f"row {count - 3}"):
        TimeColumn(path, "t", "s").read(stream="imu")


def test_the_time_column_is_read_next_to_columns_of_any_content(tmp_path: Path) -> None:
    stream = open_imu_csv(tmp_path, "b, t ,a\nx,5,1\ny,6,2\n", more='columns = ["a"]')
    assert stream.timestamps.t_ns.tolist() == [5, 6]
    assert read_values(stream) == [[1.0], [2.0]]
    stream = open_imu_csv(tmp_path, "b,t,a\nx,5,1\n", more='columns = ["aa"]')
    with pytest.raises(DataError, match="no column 'aa'") as caught:
        read_values(stream)
    assert "'a'" in caught.value.hint
