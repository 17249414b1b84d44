"""`[layout.time]`: time tokens, the distance of a slice from the start of its document in a bounded number of steps."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmpack.clock import parse_duration
from mmpack.errors import ConfigError, DataError
from mmpack.settings import Settings

_MAX_STEPS = 65_536
_MAX_SPAN_NS = 366 * 24 * 3600 * 10**9
_NS_PER_S_DIGITS = 9


class TimeLayout(Settings, frozen=True, kw_only=True):
    """The `[layout.time]` table: the step and the span of the time tokens.

    Raises:
        ConfigError: a duration is invalid, the span is not a whole number of steps, or there are too many steps.
    """

    step: str = "100ms"
    """Distance between consecutive time tokens."""
    span: str = "60s"
    """Time of the last time token, which later slices get too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        step, span = self.step_ns, self.span_ns
        if step < 1 or span < 0 or span % step:
            raise ConfigError(
                f"span {self.span} is not a whole number of steps of {self.step}",
                where=self._key("span"),
                hint="Choose a positive step and a multiple of it.",
            )
        if span > _MAX_SPAN_NS or span // step > _MAX_STEPS:
            raise ConfigError(
                f"span {self.span} with steps of {self.step} is longer than a year or {_MAX_STEPS} steps",
                where=self._where,
                hint="Choose a longer step or a shorter span.",
            )

    @property
    def _where(self) -> str:
        return "layout.time"

    @property
    def step_ns(self) -> int:
        """The step, in ns."""
        return parse_duration(self.step, where=self._key("step"))

    @property
    def span_ns(self) -> int:
        """The span, in ns."""
        return parse_duration(self.span, where=self._key("span"))

    def token_names(self) -> tuple[str, ...]:
        """Returns the tokens in order: `<|t_0.0s|>`, `<|t_0.1s|>`, ..., with as many decimals as the step needs."""
        step = self.step_ns
        digits = max(1, len(f"{step % 10**_NS_PER_S_DIGITS:09d}".rstrip("0")))
        scale = 10 ** (_NS_PER_S_DIGITS - digits)
        return tuple(
            f"<|t_{t // 10**_NS_PER_S_DIGITS}.{t % 10**_NS_PER_S_DIGITS // scale:0{digits}d}s|>"
            for t in range(0, self.span_ns + 1, step)
        )

    def token_indices(self, relative_ns: ArrayLike) -> NDArray[np.int32]:
        """Returns the index of the time token of each time, int32 of the same shape.

        The index is that of the nearest step, halves up, and at most the last.

        Args:
            relative_ns: times since the start of the document, in ns (integers).

        Raises:
            DataError: a time is not an integer, or is before the start of the document.
        """
        times = np.asarray(relative_ns)
        if times.dtype.kind not in "iu":
            raise DataError(f"times must be integer nanoseconds, not {times.dtype}", where="relative_ns")
        if times.size and times.min() < 0:
            raise DataError(f"{times.min()} ns is before the start of the document", where="relative_ns")
        step = self.step_ns
        # The times are clamped before the sum, so that the sum cannot overflow.
        clamped = np.minimum(times, self.span_ns).astype(np.int64)
        return ((2 * clamped + step) // (2 * step)).astype(np.int32)

    def to_canonical(self) -> dict[str, object]:
        """Returns the settings that change tokens, for the fingerprint."""
        return {"step_ns": self.step_ns, "span_ns": self.span_ns}
