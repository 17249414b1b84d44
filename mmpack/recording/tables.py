"""Rows of numbers with a stamp each: csv, npy and parquet.

Times in text are read as text and converted as exact decimals; times in float arrays are converted with the resolution that
their type leaves; integers stay integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmpack.clock import UNIT_NS, decimals_to_ns, floats_to_ns, gps_week_s_to_ns, integers_to_ns
from mmpack.config import nearest
from mmpack.errors import ConfigError, DataError, MmpackError
from mmpack.recording.files import existing_file, file_facts
from mmpack.recording.model import Stamps

# Numeric streams are kept in memory while a recording is built: 1 GiB of csv is days of IMU.
MAX_TABLE_BYTES = 4 << 30
GPS_WEEK_UNIT = "gps_week_s"


@dataclass(frozen=True)
class TimeColumn:
    """Where a table keeps its stamps.

    Attributes:
        path: the file that holds them.
        column: column name (csv, parquet) or number (npy); None if the file is nothing but stamps.
        unit: s, ms, us, ns, or gps_week_s for a pair of columns (week, second of week).
        pair: the two columns where unit is gps_week_s.
    """

    path: Path
    column: str | int | None
    unit: str
    pair: tuple[str | int, str | int] | None = None

    def read(self, *, stream: str) -> Stamps:
        """All stamps. Raises DataError naming file and column."""
        where = f"stream '{stream}', {self.path}"
        table = read_table(self.path, stream=stream, text=self._names())
        try:
            if self.unit == GPS_WEEK_UNIT:
                if self.pair is None:
                    raise ConfigError("unit gps_week_s needs time.columns = [week, seconds]")
                week = np.asarray(_numbers(table.column(self.pair[0])), np.float64)
                seconds = np.asarray(_numbers(table.column(self.pair[1])), np.float64)
                t_ns = gps_week_s_to_ns(week.astype(np.int64), seconds)
                resolution_ns = floats_to_ns(seconds, "s")[1]
            else:
                t_ns, resolution_ns = _to_ns(table.column(self.column), self.unit)
        except MmpackError as error:
            raise type(error)(error.what, where=f"{where}, {self._label()}", mend=error.mend) from None
        return Stamps(t_ns, resolution_ns=resolution_ns, origin=self._label())

    def _names(self) -> set[str]:
        return {str(name) for name in ([self.column] if self.pair is None else self.pair) if name is not None}

    def _label(self) -> str:
        return f"column {self.column if self.pair is None else self.pair} [{self.unit}]"


class Table:
    """One file as named or numbered columns."""

    def __init__(self, columns: dict[str, Any], *, where: str, length: int) -> None:
        self.columns = columns
        self.where = where
        self.length = length

    def column(self, name: str | int | None) -> Any:
        """The column as a numpy array, or a list of str for text. Raises DataError with the nearest name."""
        if name is None:
            if len(self.columns) != 1:
                raise DataError(
                    f"time.column is not set and the file has {len(self.columns)} columns",
                    where=self.where,
                    mend=f"Columns: {', '.join(self.columns)}.",
                )
            return next(iter(self.columns.values()))
        try:
            return self.columns[str(name)]
        except KeyError:
            raise DataError(f"no column '{name}'", where=self.where, mend=nearest(str(name), self.columns)) from None


def read_table(path: Path, *, stream: str, text: Iterable[str] = ()) -> Table:
    """The csv, parquet or npy file at `path`; columns named in `text` stay text where the format is text.

    A npy file without a suffix is recognised by its first bytes. Its columns are '0', '1', ...; pickled arrays are refused.

    Raises:
        DataError: missing, empty, too large, damaged, or of no known format.
    """
    existing_file(path, stream=stream)
    where = f"stream '{stream}', {path}"
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise DataError(f"larger than {MAX_TABLE_BYTES} bytes", where=where, mend="Split the recording.")
    with path.open("rb") as file:
        magic = file.read(6)
    try:
        if magic == b"\x93NUMPY":
            return _from_array(np.load(path, allow_pickle=False, mmap_mode="r"), where=where)
        if magic[:4] == b"PAR1":
            return _from_arrow(pq.read_table(path), where=where)
        if path.suffix.lower() in (".csv", ".tsv", ".txt"):
            options = pa_csv.ConvertOptions(column_types={name: pa.string() for name in text})
            parsing = pa_csv.ParseOptions(delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            return _from_arrow(pa_csv.read_csv(path, parse_options=parsing, convert_options=options), where=where)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise DataError(f"cannot be read as a table ({_first_line(error)})", where=where) from None
    raise DataError("is neither csv, parquet nor npy", where=where, mend="Convert it, or correct the path.")


def _from_array(array: NDArray[Any], *, where: str) -> Table:
    if array.dtype.names:
        return Table({name: array[name] for name in array.dtype.names}, where=where, length=len(array))
    if array.ndim not in (1, 2) or array.dtype.kind not in "iuf":
        raise DataError(f"array of shape {array.shape} and type {array.dtype} is not a table of numbers", where=where)
    grid = array.reshape(len(array), -1)
    return Table({str(number): grid[:, number] for number in range(grid.shape[1])}, where=where, length=len(grid))


def _from_arrow(table: pa.Table, *, where: str) -> Table:
    columns: dict[str, Any] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.null_count:
            row = next(number for number, value in enumerate(column) if not value.is_valid)
            raise DataError(f"column '{name}' has no value in row {row}", where=where, mend="Fill or remove the row.")
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            column = column.cast(pa.timestamp("ns")).cast(pa.int64())
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            columns[name] = column.to_pylist()
        elif pa.types.is_fixed_size_list(column.type) or pa.types.is_list(column.type):
            grid = np.asarray(column.to_pylist())
            if grid.ndim != 2:
                raise DataError(f"column '{name}' holds lists of different lengths", where=where)
            columns.update({f"{name}.{number}": grid[:, number] for number in range(grid.shape[1])})
        else:
            columns[name] = column.to_numpy()
    return Table(columns, where=where, length=table.num_rows)


def _to_ns(column: Any, unit: str) -> tuple[NDArray[np.int64], int]:
    if unit not in UNIT_NS:
        raise ConfigError(f"unknown time unit '{unit}'", mend=nearest(unit, [*UNIT_NS, GPS_WEEK_UNIT]))
    if isinstance(column, list):
        return decimals_to_ns(column, unit)
    array = np.asarray(column)
    if array.dtype.kind == "f":
        if unit == "ns" and len(array) and np.abs(array).max() >= 2.0**53:
            lost = int(np.spacing(np.abs(array).max()))
            raise DataError(
                f"nanoseconds stored as {array.dtype}: steps of {lost} ns, the true stamps are lost",
                mend="Write the stamps as integers at the source.",
            )
        return floats_to_ns(array, unit)
    return integers_to_ns(array, unit), UNIT_NS[unit]


def _numbers(column: Any) -> Any:
    return [float(value) for value in column] if isinstance(column, list) else column


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@dataclass(frozen=True)
class NumericTable:
    """A numeric stream in one file, its stamps in the same or another.

    Attributes:
        path: file of the values.
        time: where the stamps are.
        stream: name for messages.
        wanted: value columns; empty for all but the time columns.
        start_ns: added to every stamp.
    """

    path: Path
    time: TimeColumn
    stream: str
    wanted: tuple[str, ...] = ()
    start_ns: int = 0

    @cached_property
    def _stamps(self) -> Stamps:
        return self.time.read(stream=self.stream).shifted(self.start_ns)

    @cached_property
    def _table(self) -> Table:
        return read_table(self.path, stream=self.stream)

    def stamps(self) -> Stamps:
        """Stamps of all rows. Raises DataError."""
        return self._stamps

    def columns(self) -> tuple[str, ...]:
        """Value columns: those asked for, or all numeric ones but the time columns."""
        if self.wanted:
            return self.wanted
        own_time = self.time._names() if self.time.path == self.path else set()
        return tuple(
            name
            for name, column in self._table.columns.items()
            if name not in own_time and not isinstance(column, list)
        )

    def values(self) -> NDArray[np.float64]:
        """All values, float64, shape (n, columns). Raises DataError for text columns or another number of rows."""
        where = f"stream '{self.stream}', {self.path}"
        names = self.columns()
        if not names:
            raise DataError("no numeric column besides the time", where=where)
        picked: list[Any] = []
        for name in names:
            column = self._table.column(name)
            if isinstance(column, list) or np.asarray(column).dtype.kind not in "iufb":
                raise DataError(f"column '{name}' is not numeric", where=where, mend="Leave it out of columns.")
            picked.append(np.asarray(column, np.float64))
        values = np.stack(picked, axis=1)
        if len(values) != len(self._stamps):
            raise DataError(f"{len(values)} rows but {len(self._stamps)} stamps", where=where)
        return values

    def files(self) -> Iterable[tuple[str, int]]:
        """Names and sizes of the value and time files."""
        for path in dict.fromkeys((self.path, self.time.path)):
            yield file_facts(path)

    def __getstate__(self) -> dict[str, Any]:
        # The parsed table is read again where it is needed rather than sent along.
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


@dataclass(frozen=True)
class StampColumn:
    """Stamps without content.

    Attributes:
        time: where the stamps are.
        stream: name for messages.
        start_ns: added to every stamp.
    """

    time: TimeColumn
    stream: str
    start_ns: int = 0

    def stamps(self) -> Stamps:
        """All stamps. Raises DataError."""
        return self.time.read(stream=self.stream).shifted(self.start_ns)

    def files(self) -> Iterable[tuple[str, int]]:
        """The file's name and size."""
        yield file_facts(self.time.path)


def text_column(path: Path, column: str, *, stream: str) -> Sequence[str]:
    """A column of a table as text. Raises DataError."""
    values = read_table(path, stream=stream, text=[column]).column(column)
    return [str(value) for value in values]
