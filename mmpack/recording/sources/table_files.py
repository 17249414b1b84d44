"""Reader of csv, npy and parquet files as columns."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmpack.errors import DataError
from mmpack.recording.files import require_file
from mmpack.settings import suggest

# Numeric streams stay in memory while a recording is built. 4 GiB of csv are weeks of IMU data.
MAX_TABLE_BYTES = 4 << 30


class ColumnTable:
    """A table file as columns with names or indices.

    A missing number is NaN, which is also what sensors write when they have no value. A column of lists is split
    into one column per element: NAME.0, NAME.1, ...

    Attributes:
        columns: by name or index as text, a numpy array, or an Arrow array for text.
        where: stream and file, for messages.
        missing: index of the first row without a value, by column name; only columns with such a row.
        elements: number of elements of each list column, by its NAME.
    """

    def __init__(
        self,
        columns: dict[str, Any],
        *,
        where: str,
        missing: dict[str, int] | None = None,
        elements: dict[str, int] | None = None,
    ) -> None:
        self.columns = columns
        self.where = where
        self.missing = missing or {}
        self.elements = elements or {}

    def column_names(self, selected: Collection[str]) -> tuple[str, ...]:
        """Returns the `selected` names, with each list column replaced by its element columns."""
        return tuple(
            name
            for column in selected
            for name in (
                _element_names(column, self.elements[column]) if column in self.elements else [column]
            )
        )

    def column(self, name: str | int | None) -> Any:
        """Returns a column as a numpy array, or as an Arrow array for text.

        Args:
            name: name or index of the column; None for the only column of the file.

        Raises:
            DataError: there is no such column (the error suggests the nearest name), or the file has several columns
                and `name` is None.
        """
        if name is None:
            if len(self.columns) != 1:
                raise DataError(
                    f"time.column is not set, but the file has {len(self.columns)} columns",
                    where=self.where,
                    hint=f"Set time.column to one of: {', '.join(self.columns)}.",
                )
            return next(iter(self.columns.values()))
        try:
            return self.columns[str(name)]
        except KeyError:
            raise DataError(
                f"no column '{name}'", where=self.where, hint=suggest(str(name), self.columns)
            ) from None

    def as_array(self, name: str | int | None) -> Any:
        """Returns a column that must have a value in every row; otherwise like :meth:`column`.

        Raises:
            DataError: as in :meth:`column`, or a row has no value; the error names the first such row.
        """
        values = self.column(name)
        row = self.missing.get(next(iter(self.columns)) if name is None else str(name))
        if row is not None:
            raise DataError(f"no value in row {row}", where=self.where, hint="Fill or remove the row.")
        return values


def read_table(
    path: Path, *, stream: str, text: Collection[str] = (), only: Collection[str] = ()
) -> ColumnTable:
    """Reads a csv, parquet or npy file.

    npy and parquet files are recognised by their first bytes. The columns of a npy array are '0', '1', ...; pickled
    arrays are not read. Spaces around the column names of a csv are removed.

    Args:
        path: path of the file.
        stream: name of the stream, for messages.
        text: names of csv columns that are not converted to numbers.
        only: names of the columns to read; all columns are read if it is empty or names a column that the file lacks.

    Raises:
        DataError: the file is missing, empty, too large, damaged, or has an unknown format.
    """
    require_file(path, stream=stream)
    where = f"stream '{stream}', {path}"
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise DataError(
            f"the file is larger than {MAX_TABLE_BYTES} bytes", where=where, hint="Split the recording."
        )
    with path.open("rb") as file:
        magic = file.read(6)
    try:
        if magic == b"\x93NUMPY":
            return _from_array(np.load(path, allow_pickle=False, mmap_mode="r"), where=where)
        if magic[:4] == b"PAR1":
            has_all = only and set(only) <= set(pq.read_schema(path).names)
            return _from_arrow(pq.read_table(path, columns=list(only) if has_all else None), where=where)
        if path.suffix.lower() in (".csv", ".tsv", ".txt"):
            return _from_arrow(_read_csv(path, set(text), set(only)), where=where)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise DataError(f"cannot be read as a table ({_first_line(error)})", where=where) from None
    raise DataError(
        "the file is neither csv, parquet nor npy", where=where, hint="Convert the file, or correct its path."
    )


def _read_csv(path: Path, text: set[str], only: set[str]) -> pa.Table:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    # Quoted texts can contain commas and line ends.
    parsing = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    with pa_csv.open_csv(path, parse_options=parsing) as reader:
        header = reader.schema.names
    has_all = only <= {name.strip() for name in header}
    options = pa_csv.ConvertOptions(
        column_types={name: pa.string() for name in header if name.strip() in text},
        include_columns=[name for name in header if name.strip() in only] if has_all else None,
    )
    table = pa_csv.read_csv(path, parse_options=parsing, convert_options=options)
    return table.rename_columns([name.strip() for name in table.column_names])


def _from_array(array: NDArray[Any], *, where: str) -> ColumnTable:
    if array.dtype.names:
        return ColumnTable({name: array[name] for name in array.dtype.names}, where=where)
    if array.ndim not in (1, 2) or array.dtype.kind not in "iuf":
        raise DataError(
            f"an array of shape {array.shape} and type {array.dtype} is not a table of numbers", where=where
        )
    grid = array.reshape(len(array), -1)
    return ColumnTable({str(index): grid[:, index] for index in range(grid.shape[1])}, where=where)


def _from_arrow(table: pa.Table, *, where: str) -> ColumnTable:
    columns: dict[str, Any] = {}
    missing: dict[str, int] = {}
    elements: dict[str, int] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in columns:
            raise DataError(f"two columns are called '{name}'", where=where, hint="Rename one of them.")
        if column.null_count:
            missing[name] = int(np.argmin(column.is_valid().to_numpy()))
        if pa.types.is_null(column.type):
            column = column.cast(pa.float64())
        elif pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            column = column.cast(pa.timestamp("ns"))
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            columns[name] = column
        elif pa.types.is_fixed_size_list(column.type) or pa.types.is_list(column.type):
            grid = _stack_lists(name, column, where=where)
            elements[name] = grid.shape[1]
            columns.update(zip(_element_names(name, grid.shape[1]), grid.T, strict=True))
        else:
            columns[name] = column.to_numpy()
    return ColumnTable(columns, where=where, missing=missing, elements=elements)


def _element_names(column: str, count: int) -> list[str]:
    return [f"{column}.{index}" for index in range(count)]


def _stack_lists(name: str, column: pa.ChunkedArray, *, where: str) -> NDArray[Any]:
    """Converts a column of n lists of equal length k to an array of shape (n, k). Raises DataError."""
    lengths = pc.call_function("list_value_length", [column]).fill_null(-1).to_numpy()
    odd = np.flatnonzero((lengths < 0) | (lengths != lengths[:1]))
    if odd.size:
        raise DataError(
            f"column '{name}' holds lists of different lengths, as in row {odd[0]}",
            where=where,
            hint="Remove it from `columns`, or write lists of equal length.",
        )
    values = pc.call_function("list_flatten", [column]).to_numpy()
    if values.dtype.kind not in "iufb":
        raise DataError(
            f"column '{name}' holds lists of {column.type.value_type}, not of numbers", where=where
        )
    return values.reshape(len(column), -1) if len(column) else np.empty((0, 0))


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
