"""Numeric streams as tokens: one continuous place per row, or one bin token per value."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmpack.errors import ConfigError, DataError
from mmpack.settings import Settings

_MAX_BINS = 65_536


class NumericLayout(Settings, frozen=True, kw_only=True):
    """One `[[layout.numeric]]` entry: how the rows of a numeric stream are read.

    `continuous`: a row of `width` values takes one place, and the vector itself goes beside the ids.
    `discrete`: a row takes `width` places, each the id of a uniform bin on [low, high]; the bins' ids are
    shared by all values of a row, whose order tells them apart.

    Raises:
        ConfigError: a setting is out of range, or a discrete stream lacks its limits.
    """

    name: str
    """The stream's name in the recordings."""
    width: int
    """Values per row."""
    mode: Literal["continuous", "discrete"] = "continuous"
    """Whether values stay numbers or become bins."""
    role: Literal["observation", "action"] = "observation"
    """Actions are counted and predicted apart from what is observed."""
    bins: int = 256
    """Bins per value (discrete only)."""
    low: float | tuple[float, ...] | None = None
    """Lower limit, one for all values or one for each (discrete only). Values below take the first bin."""
    high: float | tuple[float, ...] | None = None
    """Upper limit, one for all values or one for each (discrete only). Values above take the last bin."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"{self.width} is less than 1", where=f"{self._where}.width")
        if self.mode == "continuous":
            return
        if not 2 <= self.bins <= _MAX_BINS:
            raise ConfigError(f"{self.bins} is not within 2 and {_MAX_BINS}", where=f"{self._where}.bins")
        low, high = self.limits()
        for below, above in zip(low, high, strict=True):
            step = (above - below) / self.bins
            if not math.isfinite(step) or step <= 0:
                raise ConfigError(f"[{below}, {above}] is no interval", where=f"{self._where}.low, high")
            if below + step == below or above - step == above:
                raise ConfigError(
                    f"[{below}, {above}] in {self.bins} bins is finer than float64 can tell apart",
                    where=f"{self._where}.bins",
                )

    @property
    def _where(self) -> str:
        return f"layout.numeric.{self.name}"

    def limits(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(low, high), each with one number per value.

        Raises:
            ConfigError: a limit is missing, or there are not `width` of them.
        """
        return self._spread("low", self.low), self._spread("high", self.high)

    def _spread(self, key: str, limit: float | tuple[float, ...] | None) -> tuple[float, ...]:
        if limit is None:
            raise ConfigError(
                "a discrete stream needs its limits",
                where=f"{self._where}.{key}",
                hint=f"Set {key} to a number.",
            )
        if not isinstance(limit, tuple):
            return (float(limit),) * self.width
        if len(limit) != self.width:
            raise ConfigError(
                f"{len(limit)} limits were given for {self.width} values", where=f"{self._where}.{key}"
            )
        return tuple(map(float, limit))

    def num_tokens(self, rows: int) -> int:
        """Places that `rows` rows take.

        Raises:
            DataError: `rows` is negative.
        """
        if rows < 0:
            raise DataError(f"{rows} rows cannot be", where=self.name)
        return rows if self.mode == "continuous" else rows * self.width

    def encode(self, values: ArrayLike) -> NDArray[np.int32]:
        """Bin numbers, 0 to bins - 1, of values of shape (..., width); the same shape, int32.

        floor((value - low) / (high - low) * bins), clamped at both ends.

        Raises:
            ConfigError: the stream is not discrete.
            DataError: the last axis is not `width` long, or a value is NaN.
        """
        low, high, step = self._bins()
        array = self._rows_of(np.asarray(values, dtype=np.float64))
        if np.isnan(array).any():
            at = tuple(int(i) for i in np.argwhere(np.isnan(array))[0])
            raise DataError(f"the value at {at} is NaN and has no bin", where=self.name)
        codes = np.floor((np.clip(array, low, high) - low) / step)
        return np.minimum(codes, self.bins - 1).astype(np.int32)

    def decode(self, codes: ArrayLike) -> NDArray[np.float64]:
        """Middles of the bins `codes`, shape (..., width): float64 within half a bin of what was encoded.

        Raises:
            ConfigError: the stream is not discrete.
            DataError: the last axis is not `width` long, or a code is no bin.
        """
        low, _, step = self._bins()
        array = self._rows_of(np.asarray(codes))
        if array.size and (array.min() < 0 or array.max() >= self.bins):
            raise DataError(f"codes must lie within 0 and {self.bins - 1}", where=self.name)
        return low + (array + 0.5) * step

    def _bins(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Lower limits, upper limits and bin widths, one per value."""
        if self.mode != "discrete":
            raise ConfigError("a continuous stream has no bins", where=f"{self._where}.mode")
        low, high = (np.array(limit) for limit in self.limits())
        return low, high, (high - low) / self.bins

    def _rows_of(self, array: np.ndarray) -> np.ndarray:
        if array.ndim == 0 or array.shape[-1] != self.width:
            raise DataError(f"shape {array.shape} does not end in the width {self.width}", where=self.name)
        return array

    def to_canonical(self) -> dict[str, object]:
        """What changes tokens, for the fingerprint."""
        what: dict[str, object] = {
            "name": self.name,
            "width": self.width,
            "mode": self.mode,
            "role": self.role,
        }
        if self.mode == "discrete":
            low, high = self.limits()
            what |= {"bins": self.bins, "low": low, "high": high}
        return what
