"""Statistics of numeric streams for the manifest, with which rows are normalised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpack.serialisation import Record


class NumericStatistics(Record, frozen=True, kw_only=True):
    """The statistics of one numeric stream, by column. Values that are not finite count only in `rows`.

    Fields:
        columns: names of the columns.
        rows: number of rows.
        count: number of finite values.
        mean: mean of the finite values.
        m2: sum of the squared distances from the mean (merged after Chan, Golub and LeVeque 1979).
        low, high: smallest and largest finite value; None in a column without a finite value.
    """

    columns: tuple[str, ...]
    rows: int
    count: tuple[int, ...]
    mean: tuple[float, ...]
    m2: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]

    def to_manifest(self) -> dict[str, Any]:
        """Returns the JSON values for the manifest, with the population standard deviation instead of `m2`."""
        deviation = np.sqrt(np.array(self.m2) / np.maximum(self.count, 1))
        return {
            "columns": list(self.columns),
            "rows": self.rows,
            "count": list(self.count),
            "mean": list(self.mean),
            "std": deviation.tolist(),
            "min": list(self.low),
            "max": list(self.high),
        }


def compute_statistics(columns: Sequence[str], rows: NDArray[np.float64]) -> NumericStatistics:
    """Computes the statistics of rows, float64, shape (n, columns)."""
    finite = np.isfinite(rows)
    count = finite.sum(axis=0)
    values = np.where(finite, rows, 0.0)
    mean = values.sum(axis=0) / np.maximum(count, 1)
    m2 = (np.where(finite, rows - mean, 0.0) ** 2).sum(axis=0)
    low = np.where(finite, rows, np.inf).min(axis=0, initial=np.inf)
    high = np.where(finite, rows, -np.inf).max(axis=0, initial=-np.inf)
    return _statistics(columns, len(rows), count, mean, m2, low, high)


def merge_statistics(first: NumericStatistics, second: NumericStatistics) -> NumericStatistics:
    """Computes the statistics of the rows of both together.

    The order of merges changes the last bits of the result, so callers keep it fixed.
    """
    count_a, count_b = np.array(first.count), np.array(second.count)
    count = count_a + count_b
    mean_a, mean_b = np.array(first.mean), np.array(second.mean)
    difference = mean_b - mean_a
    share = count_b / np.maximum(count, 1)
    m2 = np.array(first.m2) + np.array(second.m2) + difference**2 * (count_a * share)
    low = np.minimum(_fill_missing(first.low, np.inf), _fill_missing(second.low, np.inf))
    high = np.maximum(_fill_missing(first.high, -np.inf), _fill_missing(second.high, -np.inf))
    rows = first.rows + second.rows
    return _statistics(first.columns, rows, count, mean_a + difference * share, m2, low, high)


def _statistics(
    columns: Sequence[str],
    rows: int,
    count: NDArray[np.int64],
    mean: NDArray[np.float64],
    m2: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> NumericStatistics:
    return NumericStatistics(
        columns=tuple(columns),
        rows=rows,
        count=tuple(count.tolist()),
        mean=tuple(mean.tolist()),
        m2=tuple(m2.tolist()),
        low=tuple(value if np.isfinite(value) else None for value in low.tolist()),
        high=tuple(value if np.isfinite(value) else None for value in high.tolist()),
    )


def _fill_missing(values: Sequence[float | None], default: float) -> NDArray[np.float64]:
    return np.array([default if value is None else value for value in values])
