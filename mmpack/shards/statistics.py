"""Running statistics of numeric streams, for the manifest: what rows are normalised by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpack.config import Settings


class Statistics(Settings, frozen=True, kw_only=True):
    """Of one numeric stream, by column.

    Fields:
        columns: names.
        count: rows.
        mean, m2: mean, and sum of squared distances from it (Welford; merged after Chan et al. 1979).
        low, high: extremes.
    """

    columns: tuple[str, ...]
    count: int
    mean: tuple[float, ...]
    m2: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def public(self) -> dict[str, Any]:
        """For the manifest: population standard deviation in place of the sum of squares."""
        deviation = np.sqrt(np.array(self.m2) / max(self.count, 1))
        return {
            "columns": list(self.columns),
            "count": self.count,
            "mean": list(self.mean),
            "std": deviation.tolist(),
            "min": list(self.low),
            "max": list(self.high),
        }


def of_rows(columns: Sequence[str], rows: NDArray[np.float64]) -> Statistics:
    """Statistics of rows, float64, shape (n, columns), n at least 1. Values that are not finite do not count
    as extremes.
    """
    mean = rows.mean(axis=0)
    return Statistics(
        columns=tuple(columns),
        count=len(rows),
        mean=tuple(mean.tolist()),
        m2=tuple(((rows - mean) ** 2).sum(axis=0).tolist()),
        low=tuple(rows.min(axis=0).tolist()),
        high=tuple(rows.max(axis=0).tolist()),
    )


def merge(first: Statistics, second: Statistics) -> Statistics:
    """Statistics of both together. The order matters in the last bit, so callers keep it fixed."""
    count = first.count + second.count
    mean_a, mean_b = np.array(first.mean), np.array(second.mean)
    apart = mean_b - mean_a
    mean = mean_a + apart * (second.count / count)
    m2 = np.array(first.m2) + np.array(second.m2) + apart**2 * (first.count * second.count / count)
    return Statistics(
        columns=first.columns,
        count=count,
        mean=tuple(mean.tolist()),
        m2=tuple(m2.tolist()),
        low=tuple(np.minimum(first.low, second.low).tolist()),
        high=tuple(np.maximum(first.high, second.high).tolist()),
    )
