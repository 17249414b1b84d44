"""Linear maps from one clock to another, declared or fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike

from mmpack.clock._int64 import Int64Array, IntArray, int64_array, require_int64
from mmpack.clock.drift import MIN_SPAN_NS, Method, fit_drift, fit_offset
from mmpack.errors import ClockError

_MAX_RATE = 1.01 + 1e-12  # the small tolerance lets a map at the limit have an inverse in spite of rounding


@dataclass(frozen=True, kw_only=True)
class ClockMap:
    """A linear map between two clocks: target = anchor_target + d + rint(d·drift_ppm·1e-6), d = t - anchor_source.

    The shift is exact: d is an int64, and only the correction is a float64. Before rounding, the relative error of the
    correction is less than 4·2^-53: 0.02 ns after 10 years at 100 ppm. The same input gives the same output on every
    machine. Within 10 years of the anchor and up to 1,000 ppm, a later timestamp never maps to an earlier one.

    Attributes:
        source, target: names of the clocks.
        anchor_source_ns, anchor_target_ns: the same instant on both clocks.
        drift_ppm: additional growth of the target's timestamps, in parts per million.
        residual_ns: 99th percentile of |residual| of the fitted pairs; 0 for a map that was not fitted.
        note: reason why a fitted map has no drift; empty otherwise.

    Raises:
        ClockError: the drift is not finite, or one clock is more than 1 % faster than the other.
        DataError: an anchor does not fit into int64.
    """

    source: str
    target: str
    anchor_source_ns: int
    anchor_target_ns: int
    drift_ppm: float = 0.0
    residual_ns: int = 0
    note: str = ""

    def __post_init__(self) -> None:
        require_int64(self.anchor_source_ns)
        require_int64(self.anchor_target_ns)
        rate = 1 + self.drift_ppm * 1e-6
        if not (rate > 0 and max(rate, 1 / rate) <= _MAX_RATE):
            raise ClockError(
                f"a drift of {self.drift_ppm:g} ppm is more than 1 %",
                where=f"clock map {self.source} -> {self.target}",
                hint="Check the units of both clocks: this is another rate or unit, not a drift",
            )

    @overload
    def apply(self, t_ns: int | np.integer[Any]) -> int: ...
    @overload
    def apply(self, t_ns: IntArray) -> Int64Array: ...
    def apply(self, t_ns: int | np.integer[Any] | IntArray) -> int | Int64Array:
        """Converts timestamps of the source clock to the target clock.

        Returns:
            A Python int for one timestamp; int64 of the same shape for an array.

        Raises:
            DataError: a distance to the anchor, or a result, does not fit into int64.
        """
        if isinstance(t_ns, int | np.integer):
            return self._apply_int(int(t_ns))
        t = int64_array(t_ns)
        if t.size:
            for end in (t.min(), t.max()):
                self._apply_int(int(end))
        d = t - self.anchor_source_ns
        return d + self.anchor_target_ns + np.rint(d * (self.drift_ppm * 1e-6)).astype(np.int64)

    def _apply_int(self, t_ns: int) -> int:
        d = require_int64(t_ns - self.anchor_source_ns)
        require_int64(d + self.anchor_target_ns)
        return require_int64(self.anchor_target_ns + d + round(d * (self.drift_ppm * 1e-6)))

    def inverse(self) -> ClockMap:
        """Returns the map from target to source; the round trip is within 1 ns over 10 years at up to 1,000 ppm."""
        return ClockMap(
            source=self.target,
            target=self.source,
            anchor_source_ns=self.anchor_target_ns,
            anchor_target_ns=self.anchor_source_ns,
            drift_ppm=-self.drift_ppm / (1 + self.drift_ppm * 1e-6),
            residual_ns=self.residual_ns,
            note=self.note,
        )

    @classmethod
    def fit(
        cls,
        x_ns: ArrayLike,
        y_ns: ArrayLike,
        source: str,
        target: str,
        method: Method = "theil-sen",
        *,
        min_span_ns: int = MIN_SPAN_NS,
    ) -> ClockMap:
        """Fits a map to timestamps of the same instants: `x_ns` on the source clock, `y_ns` on the target clock.

        See :func:`fit_drift` for the methods. A drift that has a rejection reason is not applied: the map is then only
        an offset, and its note is the reason.

        Raises:
            DataError: the arrays differ in length, or are not integers.
            ClockError: there are no pairs, or the drift is more than 1 %.
        """
        fit = fit_drift(x_ns, y_ns, method=method, min_span_ns=min_span_ns)
        if fit.n == 0:
            raise ClockError(
                "there are no pairs of timestamps to fit", where=f"clock map {source} -> {target}"
            )
        if not fit.rejection_reason:
            return cls(
                source=source,
                target=target,
                anchor_source_ns=fit.x0_ns,
                anchor_target_ns=fit.x0_ns + fit.offset_ns,
                drift_ppm=fit.ppm,
                residual_ns=fit.residual_p99_ns,
            )
        offset_ns, residual_ns = fit_offset(x_ns, y_ns, method)
        return cls(
            source=source,
            target=target,
            anchor_source_ns=fit.x0_ns,
            anchor_target_ns=fit.x0_ns + offset_ns,
            drift_ppm=0.0,
            residual_ns=residual_ns,
            note=fit.rejection_reason,
        )
