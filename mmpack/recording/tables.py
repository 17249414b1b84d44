"""Rows of numbers with a stamp each: csv, npy and parquet.

Times in text are read as text and converted as exact decimals; times in float arrays are converted with the
resolution that their type leaves; integers stay integers.
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
from mmpack.errors import ConfigError, DataError
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
        where = f"stream '{stream}', {self.path}, {self._label()}"
        table = read_table(self.path, stream=stream, text=self._names())
        if self.unit == GPS_WEEK_UNIT:
            if self.pair is None:
                raise ConfigError("unit gps_week_s needs time.columns = [week, seconds]", where=where)
            week, seconds = (np.asarray(_numbers(table.whole(name), where), np.float64) for name in self.pair)
            t_ns = gps_week_s_to_ns(week, seconds, where=where)
            resolution_ns = floats_to_ns(seconds, "s")[1]
        else:
            t_ns, resolution_ns = _to_ns(table.whole(self.column), self.unit, where=where)
        unit = self.unit if self.unit in UNIT_NS else "s"
        return Stamps(t_ns, resolution_ns=resolution_ns, origin=self._label(), unit=unit)

    def _names(self) -> set[str]:
        return {str(name) for name in ([self.column] if self.pair is None else self.pair) if name is not None}

    def _label(self) -> str:
        return f"column {self.column if self.pair is None else self.pair} [{self.unit}]"


class Table:
    """One file as named or numbered columns.

    A number that is absent reads as NaN, as a sensor writes it that has nothing to say. `holes` holds the
    first such row by column.
    """

    def __init__(self, columns: dict[str, Any], *, where: str, holes: dict[str, int] | None = None) -> None:
        self.columns = columns
        self.where = where
        self.holes = holes or {}

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
            raise DataError(
                f"no column '{name}'", where=self.where, mend=nearest(str(name), self.columns)
            ) from None

    def whole(self, name: str | int | None) -> Any:
        """As :meth:`column`, for what has to be there in every row. Raises DataError naming the first row
        without it.
        """
        values = self.column(name)
        hole = self.holes.get(next(iter(self.columns)) if name is None else str(name))
        if hole is not None:
            raise DataError(f"no value in row {hole}", where=self.where, mend="Fill or remove the row.")
        return values


def read_table(path: Path, *, stream: str, text: Iterable[str] = ()) -> Table:
    """The csv, parquet or npy file at `path`; columns named in `text` stay text where the format is text.

    A npy file without a suffix is recognised by its first bytes. Its columns are '0', '1', ...; pickled
    arrays are refused. Spaces around the column names of a csv do not count.

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
            return _from_arrow(_read_csv(path, set(text)), where=where)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise DataError(f"cannot be read as a table ({_first_line(error)})", where=where) from None
    raise DataError("is neither csv, parquet nor npy", where=where, mend="Convert it, or correct the path.")


def _read_csv(path: Path, text: set[str]) -> pa.Table:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    # Sentences are quoted because they hold commas and line ends.
    parsing = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    with pa_csv.open_csv(path, parse_options=parsing) as reader:
        header = reader.schema.names
    options = pa_csv.ConvertOptions(
        column_types={name: pa.string() for name in header if name.strip() in text}
    )
    table = pa_csv.read_csv(path, parse_options=parsing, convert_options=options)
    return table.rename_columns([name.strip() for name in table.column_names])


def _from_array(array: NDArray[Any], *, where: str) -> Table:
    if array.dtype.names:
        return Table({name: array[name] for name in array.dtype.names}, where=where)
    if array.ndim not in (1, 2) or array.dtype.kind not in "iuf":
        raise DataError(
            f"array of shape {array.shape} and type {array.dtype} is not a table of numbers", where=where
        )
    grid = array.reshape(len(array), -1)
    return Table({str(number): grid[:, number] for number in range(grid.shape[1])}, where=where)


def _from_arrow(table: pa.Table, *, where: str) -> Table:
    columns: dict[str, Any] = {}
    holes: dict[str, int] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in columns:
            raise DataError(f"two columns are called '{name}'", where=where, mend="Rename one of them.")
        if column.null_count:
            holes[name] = int(np.argmin(column.is_valid().to_numpy()))
        if pa.types.is_null(column.type):
            column = column.cast(pa.float64())
        elif pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            column = column.cast(pa.timestamp("ns"))
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            columns[name] = column.to_pylist()
        elif pa.types.is_fixed_size_list(column.type) or pa.types.is_list(column.type):
            grid = np.asarray(column.to_pylist())
            if grid.ndim != 2:
                raise DataError(f"column '{name}' holds lists of different lengths", where=where)
            columns.update({f"{name}.{number}": grid[:, number] for number in range(grid.shape[1])})
        else:
            columns[name] = column.to_numpy()
    return Table(columns, where=where, holes=holes)


def _to_ns(column: Any, unit: str, *, where: str) -> tuple[NDArray[np.int64], int]:
    if unit not in UNIT_NS:
        raise ConfigError(
            f"unknown time unit '{unit}'", where=where, mend=nearest(unit, [*UNIT_NS, GPS_WEEK_UNIT])
        )
    if isinstance(column, list):
        return decimals_to_ns(column, unit, where=where)
    array = np.asarray(column)
    if array.dtype.kind == "M":  # carries its own unit
        return array.astype(np.int64), 1
    if array.dtype.kind == "f":
        if unit == "ns" and len(array) and np.abs(array).max() >= 2.0**53:
            lost = int(np.spacing(np.abs(array).max()))
            raise DataError(
                f"nanoseconds stored as {array.dtype}: steps of {lost} ns, the true stamps are lost",
                where=where,
                mend="Write the stamps as integers at the source.",
            )
        return floats_to_ns(array, unit, where=where)
    if array.dtype.kind not in "iu":
        raise DataError(f"holds {array.dtype}, which is no time", where=where, mend="Choose another column.")
    return integers_to_ns(array, unit, where=where), UNIT_NS[unit]


def _numbers(column: Any, where: str) -> Any:
    try:
        return [float(value) for value in column] if isinstance(column, list) else column
    except ValueError as error:
        raise DataError(f"is no number ({error})", where=where, mend="Choose another column.") from None


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
            if name not in own_time and not isinstance(column, list) and np.asarray(column).dtype.kind != "M"
        )

    def values(self) -> NDArray[np.float64]:
        """All values, float64, shape (n, columns). Raises DataError for text columns or another number of
        rows.
        """
        where = f"stream '{self.stream}', {self.path}"
        names = self.columns()
        if not names:
            raise DataError("no numeric column besides the time", where=where)
        picked: list[Any] = []
        for name in names:
            column = self._table.column(name)
            if isinstance(column, list) or np.asarray(column).dtype.kind not in "iufb":
                raise DataError(
                    f"column '{name}' is not numeric", where=where, mend="Leave it out of columns."
                )
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
    values = read_table(path, stream=stream, text=[column]).whole(column)
    return [str(value) for value in values]
