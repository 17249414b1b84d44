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
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmpack.clock import UNIT_NS, decimals_to_ns, floats_to_ns, gps_week_s_to_ns, integers_to_ns
from mmpack.clock.convert import GPS_WEEK_UNIT
from mmpack.errors import ConfigError, DataError
from mmpack.recording.files import file_identity
from mmpack.recording.model import Timestamps
from mmpack.recording.sources.table_files import ColumnTable, read_table
from mmpack.settings import suggest

# Stamps written as text that are converted at once: each is some hundred bytes of Python objects on the way.
_DECIMALS_AT_ONCE = 1 << 16


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

    def read(self, *, stream: str) -> Timestamps:
        """All stamps. Raises DataError naming file and column."""
        where = f"stream '{stream}', {self.path}, {self._label()}"
        table = read_table(self.path, stream=stream, text=self._names(), only=self._names())
        if self.unit == GPS_WEEK_UNIT:
            if self.pair is None:
                raise ConfigError("unit gps_week_s needs time.columns = [week, seconds]", where=where)
            week, seconds = (
                np.asarray(_as_numbers(table.as_array(name), where), np.float64) for name in self.pair
            )
            t_ns = gps_week_s_to_ns(week, seconds, where=where)
            resolution_ns = floats_to_ns(seconds, "s")[1]
        else:
            t_ns, resolution_ns = _column_to_ns(table.as_array(self.column), self.unit, where=where)
        unit = self.unit if self.unit in UNIT_NS else "s"
        return Timestamps(t_ns, resolution_ns=resolution_ns, origin=self._label(), unit=unit)

    def _names(self) -> set[str]:
        return {str(name) for name in ([self.column] if self.pair is None else self.pair) if name is not None}

    def _label(self) -> str:
        return f"column {self.column if self.pair is None else self.pair} [{self.unit}]"


def _column_to_ns(column: Any, unit: str, *, where: str) -> tuple[NDArray[np.int64], int]:
    if unit not in UNIT_NS:
        raise ConfigError(
            f"unknown time unit '{unit}'", where=where, hint=suggest(unit, [*UNIT_NS, GPS_WEEK_UNIT])
        )
    if isinstance(column, pa.ChunkedArray):
        return _text_to_ns(column, unit, where=where)
    array = np.asarray(column)
    if array.dtype.kind == "M":  # carries its own unit
        return array.astype(np.int64), 1
    if array.dtype.kind == "f":
        if unit == "ns" and len(array) and np.abs(array).max() >= 2.0**53:
            lost = int(np.spacing(np.abs(array).max()))
            raise DataError(
                f"nanoseconds stored as {array.dtype}: steps of {lost} ns, the true stamps are lost",
                where=where,
                hint="Write the stamps as integers at the source.",
            )
        return floats_to_ns(array, unit, where=where)
    if array.dtype.kind not in "iu":
        raise DataError(f"holds {array.dtype}, which is no time", where=where, hint="Choose another column.")
    return integers_to_ns(array, unit, where=where), UNIT_NS[unit]


def _text_to_ns(column: pa.ChunkedArray, unit: str, *, where: str) -> tuple[NDArray[np.int64], int]:
    """Stamps in text, exactly: integers as such, decimals in blocks."""
    trimmed = pc.call_function("utf8_trim_whitespace", [column])
    # Arrow alone would take '0x1F' for an integer too.
    plain = pc.call_function("match_substring_regex", [trimmed], pc.MatchSubstringOptions("^-?[0-9]+$"))
    if plain.to_numpy().all():
        try:
            return integers_to_ns(trimmed.cast(pa.int64()).to_numpy(), unit, where=where), UNIT_NS[unit]
        except pa.ArrowInvalid:
            pass  # past int64: the decimals' message names the row
    parts: list[NDArray[np.int64]] = []
    finest_ns = np.iinfo(np.int64).max
    for start in range(0, len(column), _DECIMALS_AT_ONCE):
        texts = column.slice(start, _DECIMALS_AT_ONCE).to_pylist()
        t_ns, resolution_ns = decimals_to_ns(texts, unit, where=where, first_row=start)
        parts.append(t_ns)
        finest_ns = min(finest_ns, resolution_ns)
    return np.concatenate(parts), finest_ns


def _as_numbers(column: Any, where: str) -> Any:
    try:
        return (
            [float(value) for value in column.to_pylist()] if isinstance(column, pa.ChunkedArray) else column
        )
    except ValueError as error:
        raise DataError(f"is no number ({error})", where=where, hint="Choose another column.") from None


def _check_numeric_text(name: str, column: pa.ChunkedArray, *, where: str) -> None:
    """Raises DataError for a column that came out as text although most of its cells are numbers."""
    cells = [(row, cell) for row, cell in enumerate(column.to_pylist()) if cell and cell.strip()]
    odd = [(row, cell) for row, cell in cells if not _is_number(cell)]
    if odd and 2 * len(odd) < len(cells):
        row, cell = odd[0]
        raise DataError(
            f"column '{name}' holds numbers, but {cell[:40]!r} in row {row}",
            where=where,
            hint="Correct the cell, or list the columns that are wanted in `columns`.",
        )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class NumericTable:
    """A numeric stream in one file, its stamps in the same or another.

    Attributes:
        path: file of the values.
        time: where the stamps are.
        stream: name for messages.
        wanted: value columns, or columns of lists of values; empty for all but the time columns.
        start_ns: added to every stamp.
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
        """Names and values of the columns; the table itself is let go."""
        where = f"stream '{self.stream}', {self.path}"
        table = read_table(self.path, stream=self.stream, only=self.selected_columns)
        names = table.column_names(self.selected_columns) or self._numeric(table, where=where)
        if not names:
            raise DataError("no numeric column besides the time", where=where)
        values = np.empty((len(table.column(names[0])), len(names)), np.float64)
        for place, name in enumerate(names):
            column = table.column(name)
            if isinstance(column, pa.ChunkedArray):
                _check_numeric_text(name, column, where=where)
            if isinstance(column, pa.ChunkedArray) or np.asarray(column).dtype.kind not in "iufb":
                raise DataError(
                    f"column '{name}' is not numeric", where=where, hint="Leave it out of columns."
                )
            values[:, place] = column
        return names, values

    def _numeric(self, table: ColumnTable, *, where: str) -> tuple[str, ...]:
        """All numeric columns but those of the time; columns that are text throughout are left out."""
        own_time = self.time._names() if self.time.path == self.path else set()
        names: list[str] = []
        for name, column in table.columns.items():
            if name in own_time:
                continue
            if isinstance(column, pa.ChunkedArray):
                _check_numeric_text(name, column, where=where)
            elif np.asarray(column).dtype.kind != "M":
                names.append(name)
        return tuple(names)

    def timestamps(self) -> Timestamps:
        """Stamps of all rows. Raises DataError."""
        return self._timestamps

    def columns(self) -> tuple[str, ...]:
        """Value columns: those asked for (of lists, their elements), or all numeric ones but the time columns.

        Raises:
            DataError: none is numeric, or one of numbers holds a cell that is none.
        """
        return self._content[0]

    def values(self) -> NDArray[np.float64]:
        """All values, float64, shape (n, columns).

        Raises:
            DataError: a column of text, or another number of rows than of stamps.
        """
        values = self._content[1]
        if len(values) != len(self._timestamps):
            where = f"stream '{self.stream}', {self.path}"
            raise DataError(f"{len(values)} rows but {len(self._timestamps)} stamps", where=where)
        return values

    def files(self) -> Iterable[tuple[str, int]]:
        """Names and sizes of the value and time files."""
        for path in dict.fromkeys((self.path, self.time.path)):
            yield file_identity(path)

    def __getstate__(self) -> dict[str, Any]:
        # The parsed table is read again where it is needed rather than sent along.
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def read_text_column(path: Path, column: str, *, stream: str) -> Sequence[str]:
    """A column of a table as text. Raises DataError."""
    values = read_table(path, stream=stream, text=[column], only=[column]).as_array(column)
    return values.to_pylist() if isinstance(values, pa.ChunkedArray) else [str(value) for value in values]
