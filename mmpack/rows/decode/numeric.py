"""Rows of numeric streams as a model reads them: normalised vectors, or the ids of bins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import IntegrityError
from mmpack.layout import NumericLayout


class Normaliser:
    """(value - mean) / std, column by column, with the statistics of one build; a std of 0 counts as 1.

    Args:
        statistics: by stream, `mean` and `std` of each column, as in `manifest.numeric`.
        streams: of the layout; what is not among them, or is not continuous, needs no statistics.

    Raises:
        IntegrityError: statistics are not one finite number for each column.
    """

    def __init__(
        self, statistics: Mapping[str, Mapping[str, Any]], streams: tuple[NumericLayout, ...]
    ) -> None:
        self._scales = {
            stream.name: _scale_of_stream(stream, statistics[stream.name])
            for stream in streams
            if stream.mode == "continuous" and stream.name in statistics
        }

    def __call__(
        self, stream: NumericLayout, rows: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Rows (n, width) as float32, and which of them are finite; the others are 0.

        Raises:
            IntegrityError: the manifest has no statistics of the stream.
        """
        if stream.name not in self._scales:
            raise IntegrityError("the manifest has no statistics of it", where=f"stream '{stream.name}'")
        mean, deviation = self._scales[stream.name]
        with np.errstate(over="ignore", invalid="ignore"):
            values = ((rows - mean) / deviation).astype(np.float32)
        finite = np.isfinite(values)
        values[~finite] = 0
        return values, finite


def bin_indices(stream: NumericLayout, rows: NDArray[np.float64]) -> NDArray[np.int32]:
    """Bin numbers of rows (n, width), row by row: (n * width,).

    A value beyond the limits, infinity too, takes the outer bin, as the layout says. NaN has none: a bin that
    stands for it would be a measurement that nobody took, so the sample counts as unreadable.

    Raises:
        DataError: a value is NaN.
    """
    return stream.encode(rows).ravel()


def _scale_of_stream(
    stream: NumericLayout, statistics: Mapping[str, Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    where = f"manifest.numeric.{stream.name}"
    try:
        mean = np.array(statistics["mean"], np.float64)
        deviation = np.array(statistics["std"], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"holds no mean and std ({error!r})", where=where) from None
    if not all(each.shape == (stream.width,) and np.isfinite(each).all() for each in (mean, deviation)):
        raise IntegrityError(f"holds no mean and std of {stream.width} columns", where=where)
    return mean, np.where(deviation > 0, deviation, 1.0)
