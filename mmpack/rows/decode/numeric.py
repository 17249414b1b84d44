"""Converts rows of numeric streams to normalised vectors or bin indices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import IntegrityError
from mmpack.layout import NumericLayout


class Normaliser:
    """A normaliser (value - mean) / std per column, with the statistics of one shard set; a std of 0 counts as 1.

    Args:
        statistics: `mean` and `std` of the columns of each stream, as in `manifest.numeric`.
        streams: numeric streams of the layout; only continuous ones need statistics.

    Raises:
        IntegrityError: the statistics are not one finite number per column.
    """

    def __init__(
        self, statistics: Mapping[str, Mapping[str, Any]], streams: tuple[NumericLayout, ...]
    ) -> None:
        self._scales = {
            stream.name: _read_statistics(stream, statistics[stream.name])
            for stream in streams
            if stream.mode == "continuous" and stream.name in statistics
        }

    def __call__(
        self, stream: NumericLayout, rows: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Normalises rows (n, width). Returns float32 values and a mask of finite values; the others are 0.

        Raises:
            IntegrityError: the manifest has no statistics for the stream.
        """
        if stream.name not in self._scales:
            raise IntegrityError(
                "the manifest has no statistics for this stream", where=f"stream '{stream.name}'"
            )
        mean, deviation = self._scales[stream.name]
        with np.errstate(over="ignore", invalid="ignore"):
            values = ((rows - mean) / deviation).astype(np.float32)
        finite = np.isfinite(values)
        values[~finite] = 0
        return values, finite


def bin_indices(stream: NumericLayout, rows: NDArray[np.float64]) -> NDArray[np.int32]:
    """Returns the bin indices of rows (n, width), row by row: (n * width,).

    A value beyond the limits, infinity included, takes the first or last bin. NaN has no bin: any bin would be a
    value that nobody measured, so the sample counts as unreadable.

    Raises:
        DataError: a value is NaN.
    """
    return stream.encode(rows).ravel()


def _read_statistics(
    stream: NumericLayout, statistics: Mapping[str, Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the mean and standard deviation of each column."""
    where = f"manifest.numeric.{stream.name}"
    try:
        mean = np.array(statistics["mean"], np.float64)
        deviation = np.array(statistics["std"], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"mean and std are missing or not numeric ({error!r})", where=where) from None
    if not all(array.shape == (stream.width,) and np.isfinite(array).all() for array in (mean, deviation)):
        raise IntegrityError(f"mean and std must be {stream.width} finite numbers each", where=where)
    return mean, np.where(deviation > 0, deviation, 1.0)
