"""`[[layout.numeric]]`: numeric streams as tokens, one per row of values or one bin per value."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import ArrayLike, NDArray

from mmpack.errors import ConfigError, DataError
from mmpack.settings import PositiveInt, Settings


class NumericLayout(Settings, frozen=True, kw_only=True):
    """A `[[layout.numeric]]` table: the token layout of one numeric stream.

    `continuous`: a table row of `width` values takes one position with a placeholder token, and the values are stored
    in a separate array. `discrete`: a table row takes `width` positions, each with the id of a uniform bin on
    [low, high]. All values of a row share the ids of the bins; the order of the positions distinguishes the values.

    Raises:
        ConfigError: a setting is out of range, or a discrete stream lacks its limits.
    """

    name: str
    """Name of the stream in the recordings."""
    width: PositiveInt
    """Number of values per table row."""
    mode: Literal["continuous", "discrete"] = "continuous"
    """Representation of values: as numbers or as bins."""
    role: Literal["observation", "action"] = "observation"
    """Role of the stream; actions are counted and predicted separately from observations."""
    bins: Annotated[int, Meta(ge=2, le=65_536)] = 256
    """Number of bins per value (discrete only)."""
    low: float | tuple[float, ...] | None = None
    """Lower limit, one for all values or one per value (discrete only). Values below it get the first bin."""
    high: float | tuple[float, ...] | None = None
    """Upper limit, one for all values or one per value (discrete only). Values above it get the last bin."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode == "continuous":
            return
        low, high = self.limits()
        for lower, upper in zip(low, high, strict=True):
            step = (upper - lower) / self.bins
            if not math.isfinite(step) or step <= 0:
                raise ConfigError(f"[{lower}, {upper}] is not an interval", where=f"{self._where}.low, high")
            if lower + step == lower or upper - step == upper:
                raise ConfigError(
                    f"[{lower}, {upper}] in {self.bins} bins is finer than float64 can represent",
                    where=f"{self._where}.bins",
                )

    @property
    def _where(self) -> str:
        return f"layout.numeric.{self.name}"

    def limits(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns (low, high), each with one number per value.

        Raises:
            ConfigError: a limit is missing, or the number of limits is not `width`.
        """
        return self._broadcast_limit("low", self.low), self._broadcast_limit("high", self.high)

    def _broadcast_limit(self, key: str, limit: float | tuple[float, ...] | None) -> tuple[float, ...]:
        if limit is None:
            raise ConfigError(
                "a discrete stream needs limits",
                where=f"{self._where}.{key}",
                hint=f"Set {key} to a number.",
            )
        if not isinstance(limit, tuple):
            return (float(limit),) * self.width
        if len(limit) != self.width:
            raise ConfigError(
                f"{len(limit)} limits do not match {self.width} values", where=f"{self._where}.{key}"
            )
        return tuple(map(float, limit))

    def num_tokens(self, rows: int) -> int:
        """Returns the number of tokens of `rows` table rows.

        Raises:
            DataError: `rows` is negative.
        """
        if rows < 0:
            raise DataError(f"{rows} is not a valid number of rows", where=self.name)
        return rows if self.mode == "continuous" else rows * self.width

    def encode(self, values: ArrayLike) -> NDArray[np.int32]:
        """Returns the bins, 0 to bins - 1, of values of shape (..., width), as int32 of the same shape.

        The bin is floor((value - low) / (high - low) * bins), clamped at both ends.

        Raises:
            ConfigError: the stream is not discrete.
            DataError: the last axis is not `width` long, or a value is NaN.
        """
        low, high, step = self._bins()
        array = self._require_width(np.asarray(values, dtype=np.float64))
        if np.isnan(array).any():
            index = tuple(int(i) for i in np.argwhere(np.isnan(array))[0])
            raise DataError(f"the value at {index} is NaN and has no bin", where=self.name)
        codes = np.floor((np.clip(array, low, high) - low) / step)
        return np.minimum(codes, self.bins - 1).astype(np.int32)

    def decode(self, codes: ArrayLike) -> NDArray[np.float64]:
        """Returns the middles of the bins `codes`, float64 (..., width): within half a bin of the encoded values.

        Raises:
            ConfigError: the stream is not discrete.
            DataError: the last axis is not `width` long, or a code is not a bin.
        """
        low, _, step = self._bins()
        array = self._require_width(np.asarray(codes))
        if array.size and (array.min() < 0 or array.max() >= self.bins):
            raise DataError(f"codes must be within 0 and {self.bins - 1}", where=self.name)
        return low + (array + 0.5) * step

    def _bins(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Returns lower limits, upper limits and bin widths, one per value."""
        if self.mode != "discrete":
            raise ConfigError("a continuous stream has no bins", where=f"{self._where}.mode")
        low, high = (np.array(limit) for limit in self.limits())
        return low, high, (high - low) / self.bins

    def _require_width(self, array: np.ndarray) -> np.ndarray:
        if array.ndim == 0 or array.shape[-1] != self.width:
            raise DataError(f"shape {array.shape} does not end in the width {self.width}", where=self.name)
        return array

    def to_canonical(self) -> dict[str, object]:
        """Returns the settings that change tokens, for the fingerprint."""
        settings: dict[str, object] = {
            "name": self.name,
            "width": self.width,
            "mode": self.mode,
            "role": self.role,
        }
        if self.mode == "discrete":
            low, high = self.limits()
            settings |= {"bins": self.bins, "low": low, "high": high}
        return settings
