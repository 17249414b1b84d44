"""Numeric sources: table rows with timestamps, in csv, npy and parquet files.

Times in text files are read as text and converted as exact decimals. Times in float arrays are converted with the
resolution of their type. Integer times stay integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmpack.clock import UNIT_NS, decimals_to_ns, floats_to_ns, gps_week_s_to_ns, integers_to_ns
from mmpack.clock.convert import GPS_WEEK_UNIT
from mmpack.errors import ConfigError, DataError
from mmpack.recording.files import file_identity
from mmpack.recording.model import Timestamps
from mmpack.recording.sources.table_files import ColumnTable, read_table
from mmpack.settings import suggest

#: Number of decimal texts that are converted at once; each takes about a hundred bytes of Python objects meanwhile.
DECIMAL_BLOCK_ROWS = 1 << 16

# Nanoseconds of the units of numpy's datetime64 that are a whole number of nanoseconds and have a fixed length.
_DATETIME_UNIT_NS = {
    "ns": 1,
    "us": UNIT_NS["us"],
    "ms": UNIT_NS["ms"],
    "s": UNIT_NS["s"],
    "m": UNIT_NS["min"],
    "h": UNIT_NS["h"],
    "D": 24 * UNIT_NS["h"],
}


@dataclass(frozen=True)
class TimeColumn:
    """The location of a stream's timestamps in a table file.

    Attributes:
        path: path of the file.
        column: column name (csv, parquet) or index (npy); None if the file has only one column.
        unit: s, ms, us, ns, or gps_week_s for a pair of columns (week, second of week).
        pair: the two columns of unit gps_week_s, else None.
    """

    path: Path
    column: str | int | None
    unit: str
    pair: tuple[str | int, str | int] | None = None

    def read(self, *, stream: str) -> Timestamps:
        """Reads all timestamps.

        Raises:
            ConfigError: the unit is unknown, or gps_week_s lacks its two columns.
            DataError: the column cannot be read or converted; the error names file and column.
        """
        where = f"stream '{stream}', {self.path}, {self._label()}"
        table = read_table(self.path, stream=stream, text=self.column_names(), only=self.column_names())
        if self.unit == GPS_WEEK_UNIT:
            if self.pair is None:
                raise ConfigError("the unit gps_week_s needs time.columns = [week, seconds]", where=where)
            week, seconds = (
                np.asarray(_convert_to_numbers(table.as_array(name), where), np.float64) for name in self.pair
            )
            t_ns = gps_week_s_to_ns(week, seconds, where=where)
            resolution_ns = floats_to_ns(seconds, "s")[1]
        else:
            t_ns, resolution_ns = _column_to_ns(table.as_array(self.column), self.unit, where=where)
        unit = self.unit if self.unit in UNIT_NS else "s"
        return Timestamps(t_ns, resolution_ns=resolution_ns, origin=self._label(), unit=unit)

    def identity(self) -> dict[str, Any]:
        """Returns the values that determine the timestamps, as in :meth:`mmpack.recording.FrameSource.identity`."""
        return {"path": self.path, "column": self.column, "unit": self.unit, "columns": self.pair}

    def column_names(self) -> set[str]:
        """Returns the names of the time columns; empty if the file has only one column."""
        return {str(name) for name in ([self.column] if self.pair is None else self.pair) if name is not None}

    def _label(self) -> str:
        return f"column {self.column if self.pair is None else self.pair} [{self.unit}]"


def _column_to_ns(column: Any, unit: str, *, where: str) -> tuple[NDArray[np.int64], int]:
    """Converts a time column to int64 ns and returns it with its resolution in ns."""
    if unit not in UNIT_NS:
        raise ConfigError(
            f"unknown time unit '{unit}'", where=where, hint=suggest(unit, [*UNIT_NS, GPS_WEEK_UNIT])
        )
    if isinstance(column, pa.ChunkedArray):
        return _text_to_ns(column, unit, where=where)
    array = np.asarray(column)
    # A datetime column has its own unit, so `unit` does not apply.
    if array.dtype.kind == "M":
        return _datetimes_to_ns(array, where=where)
    if array.dtype.kind == "f":
        if unit == "ns" and len(array) and np.abs(array).max() >= 2.0**53:
            step_ns = int(np.spacing(np.abs(array).max()))
            raise DataError(
                f"nanoseconds are stored as {array.dtype} with steps of {step_ns} ns, so the exact timestamps are lost",
                where=where,
                hint="Write the timestamps as integers at the source.",
            )
        return floats_to_ns(array, unit, where=where)
    if array.dtype.kind not in "iu":
        raise DataError(
            f"the column holds {array.dtype}, which is not a time", where=where, hint="Choose another column."
        )
    return integers_to_ns(array, unit, where=where), UNIT_NS[unit]


def _datetimes_to_ns(array: NDArray[np.datetime64], *, where: str) -> tuple[NDArray[np.int64], int]:
    """Converts datetime64 of any unit from days to ns to int64 ns, and returns them with their resolution in ns."""
    unit, count = np.datetime_data(array.dtype)
    if unit not in _DATETIME_UNIT_NS:
        raise DataError(
            f"the column holds {array.dtype}, which cannot be converted to nanoseconds",
            where=where,
            hint=f"Write one of the units {', '.join(_DATETIME_UNIT_NS)}.",
        )
    missing = np.flatnonzero(np.isnat(array))
    if missing.size:
        raise DataError(f"no value in row {missing[0]}", where=where, hint="Fill or remove the row.")
    step_ns = count * _DATETIME_UNIT_NS[unit]
    steps = array.astype(np.int64)
    too_large = np.flatnonzero(np.abs(steps) > np.iinfo(np.int64).max // step_ns)
    if too_large.size:
        row = int(too_large[0])
        raise DataError(f"{array[row]} in row {row} does not fit into int64 nanoseconds", where=where)
    return steps * step_ns, step_ns


def _text_to_ns(column: pa.ChunkedArray, unit: str, *, where: str) -> tuple[NDArray[np.int64], int]:
    """Converts timestamps in text exactly: integers in one pass, decimals in blocks."""
    trimmed = pc.call_function("utf8_trim_whitespace", [column])
    # Arrow's cast alone would accept '0x1F' as an integer.
    is_integer = pc.call_function("match_substring_regex", [trimmed], pc.MatchSubstringOptions("^-?[0-9]+$"))
    if is_integer.to_numpy().all():
        try:
            return integers_to_ns(trimmed.cast(pa.int64()).to_numpy(), unit, where=where), UNIT_NS[unit]
        except pa.ArrowInvalid:
            pass  # A value exceeds int64. The conversion of decimals below raises the error that names its row.
    blocks: list[NDArray[np.int64]] = []
    finest_ns = np.iinfo(np.int64).max
    for start in range(0, len(column), DECIMAL_BLOCK_ROWS):
        texts = column.slice(start, DECIMAL_BLOCK_ROWS).to_pylist()
        t_ns, resolution_ns = decimals_to_ns(texts, unit, where=where, first_row=start)
        blocks.append(t_ns)
        finest_ns = min(finest_ns, resolution_ns)
    return np.concatenate(blocks), finest_ns


def _convert_to_numbers(column: Any, where: str) -> Any:
    try:
        return (
            [float(value) for value in column.to_pylist()] if isinstance(column, pa.ChunkedArray) else column
        )
    except ValueError as error:
        raise DataError(
            f"a value is not a number ({error})", where=where, hint="Choose another column."
        ) from None


def _check_numeric_text(name: str, column: pa.ChunkedArray, *, where: str) -> None:
    """Raises DataError for a column that was read as text although most of its cells are numbers."""
    cells = [(row, cell) for row, cell in enumerate(column.to_pylist()) if cell and cell.strip()]
    odd = [(row, cell) for row, cell in cells if not _is_number(cell)]
    if odd and 2 * len(odd) < len(cells):
        row, cell = odd[0]
        raise DataError(
            f"column '{name}' holds numbers, but also {cell[:40]!r} in row {row}",
            where=where,
            hint="Correct the cell, or list the columns to read in `columns`.",
        )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class NumericTable:
    """A numeric stream in one file, with timestamps in the same or another file.

    Attributes:
        path: path of the file with the values.
        time: location of the timestamps.
        stream: name of the stream, for messages.
        selected_columns: value columns, or columns of lists of values; empty for all numeric columns but the time.
        start_ns: duration added to every timestamp.
    """

    path: Path
    time: TimeColumn
    stream: str
    selected_columns: tuple[str, ...] = ()
    start_ns: int = 0

    @cached_property
    def _timestamps(self) -> Timestamps:
        return self.time.read(stream=self.stream).shift(self.start_ns)

    @cached_property
    def _content(self) -> tuple[tuple[str, ...], NDArray[np.float64]]:
        """The names and values of the value columns. The table itself is not kept in memory."""
        where = f"stream '{self.stream}', {self.path}"
        table = read_table(self.path, stream=self.stream, only=self.selected_columns)
        names = table.column_names(self.selected_columns) or self._find_numeric_columns(table, where=where)
        if not names:
            raise DataError("the table has no numeric column besides the time", where=where)
        values = np.empty((len(table.column(names[0])), len(names)), np.float64)
        for index, name in enumerate(names):
            column = table.column(name)
            if isinstance(column, pa.ChunkedArray):
                _check_numeric_text(name, column, where=where)
            if isinstance(column, pa.ChunkedArray) or np.asarray(column).dtype.kind not in "iufb":
                raise DataError(
                    f"column '{name}' is not numeric", where=where, hint="Remove it from `columns`."
                )
            values[:, index] = column
        return names, values

    def _find_numeric_columns(self, table: ColumnTable, *, where: str) -> tuple[str, ...]:
        """Returns the names of all numeric columns except the time columns.

        Raises:
            DataError: a column mixes numbers with a few texts.
        """
        time_columns = self.time.column_names() if self.time.path == self.path else set()
        names: list[str] = []
        for name, column in table.columns.items():
            if name in time_columns:
                continue
            if isinstance(column, pa.ChunkedArray):
                _check_numeric_text(name, column, where=where)
            elif np.asarray(column).dtype.kind != "M":
                names.append(name)
        return tuple(names)

    def timestamps(self) -> Timestamps:
        """Returns the timestamps of all table rows. Raises ConfigError, DataError."""
        return self._timestamps

    def columns(self) -> tuple[str, ...]:
        """Returns the names of the value columns, with list columns replaced by their element columns.

        Raises:
            DataError: there is no numeric column, a selected column is not numeric, or a numeric column has a cell
                that is not a number.
        """
        return self._content[0]

    def values(self) -> NDArray[np.float64]:
        """Returns all values, float64, shape (n, columns), in file order.

        Raises:
            DataError: as in :meth:`columns`, or the numbers of table rows and timestamps differ.
        """
        values = self._content[1]
        if len(values) != len(self._timestamps):
            where = f"stream '{self.stream}', {self.path}"
            raise DataError(f"{len(values)} rows but {len(self._timestamps)} timestamps", where=where)
        return values

    def files(self) -> Iterable[tuple[str, int]]:
        """Yields the names and sizes in bytes of the value file and the time file."""
        for path in dict.fromkeys((self.path, self.time.path)):
            yield file_identity(path)

    def identity(self) -> dict[str, Any]:
        """Returns the values that determine the content, as in :meth:`mmpack.recording.FrameSource.identity`."""
        return {
            "source": "table",
            "path": self.path,
            "time": self.time.identity(),
            "columns": self.selected_columns,
            "start_ns": self.start_ns,
        }

    def __getstate__(self) -> dict[str, Any]:
        # The cached values are left out: a process that receives this object reads the file again, if at all.
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def read_text_column(path: Path, column: str, *, stream: str) -> Sequence[str]:
    """Returns a column of a table file as texts. Raises DataError."""
    values = read_table(path, stream=stream, text=[column], only=[column]).as_array(column)
    return values.to_pylist() if isinstance(values, pa.ChunkedArray) else [str(value) for value in values]
