"""`[[phases]]`: which data sets are mixed, in what shares, for how many tokens."""

from __future__ import annotations

import re

from mmpack.errors import ConfigError
from mmpack.settings import Settings, suggest

_COUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kMGBT]?)\s*")
_SCALE = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}


def parse_token_count(text: int | str, *, where: str) -> int:
    """A number of tokens: an integer, or text with a unit, as `"1.5T"` (k, M, B = G, T).

    Raises:
        ConfigError: neither, or not above 0.
    """
    if isinstance(text, str):
        match = _COUNT.fullmatch(text)
        if match is None:
            raise ConfigError(f"'{text}' is no number of tokens", where=where, hint="Write it as in '1.5T'.")
        whole, _, part = match[1].partition(".")
        # In integers: 0.1T is 10**11 exactly.
        digits = int(whole + part) * _SCALE[match[2]]
        tokens, rest = divmod(digits, 10 ** len(part))
        if rest:
            raise ConfigError(f"'{text}' is no whole number of tokens", where=where)
    else:
        tokens = text
    if tokens < 1:
        raise ConfigError(f"{tokens} tokens are none", where=where)
    return tokens


class PhaseConfig(Settings, frozen=True, kw_only=True):
    """One `[[phases]]` table. A data set's share is P(i) ∝ weight(i) · tokens(i)^(1/T) over the phase's data sets.

    T = 1 keeps the data sets' sizes, T above 1 flattens them, T below 1 amplifies them.

    Raises:
        ConfigError: a temperature is not above 0, a weight or share is negative, shares stand beside weights, or a data
            set is named twice, or weighed though it is not among those named.
    """

    name: str
    """Of the phase, as in "cold"."""
    tokens: int | str | None = None
    """How long it lasts, as in `"1T"`; left out in the last phase, which then goes on while there is data."""
    temperature: float | tuple[float, float] = 1.0
    """T, or (first, last): a ramp over the phase, linear in tokens; needs `tokens`."""
    datasets: tuple[str, ...] | None = None
    """Data sets of this phase; left out: all, or those that `shares` names."""
    weights: dict[str, float] = {}
    """Factor of a data set beside its size; 1 where it is not named."""
    shares: dict[str, float] = {}
    """Explicit shares, in proportion, in place of sizes, temperature and weights."""

    def __post_init__(self) -> None:
        where = f"phases.{self.name}"
        for bound in self.temperatures:
            if not 0 < bound < float("inf"):
                raise ConfigError(f"temperature {bound} is not above 0", where=where)
        if isinstance(self.temperature, tuple) and self.tokens is None:
            raise ConfigError("a ramp needs an end", where=where, hint="Give the phase its tokens.")
        for key, table in (("weights", self.weights), ("shares", self.shares)):
            for name, value in table.items():
                if not 0 <= value < float("inf"):
                    raise ConfigError(f"{value} is negative or not finite", where=f"{where}.{key}.{name}")
        if self.datasets == ():
            raise ConfigError(
                "an empty list names no data set",
                where=f"{where}.datasets",
                hint="Name some, or leave it out for all.",
            )
        names = self.datasets or ()
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"'{name}' is named twice", where=f"{where}.datasets")
        if self.datasets:
            for name in {**self.weights, **self.shares}:
                if name not in self.datasets:
                    raise ConfigError(
                        f"'{name}' is weighed, and is none of the phase's datasets",
                        where=where,
                        hint=f"Add it to datasets. {suggest(name, self.datasets)}",
                    )
            for name in self.datasets:
                if self.shares and name not in self.shares:
                    raise ConfigError(
                        f"'{name}' has no share", where=f"{where}.shares", hint="Give it one, or 0."
                    )
        if self.shares and (self.weights or self.temperature != 1.0):
            raise ConfigError(
                "shares are explicit, and weights or temperature would have no say", where=where
            )

    @property
    def temperatures(self) -> tuple[float, float]:
        """(first, last)."""
        if isinstance(self.temperature, tuple):
            return self.temperature
        return self.temperature, self.temperature

    @property
    def num_tokens(self) -> int | None:
        """Tokens of the phase; None if it has no end."""
        return (
            None
            if self.tokens is None
            else parse_token_count(self.tokens, where=f"phases.{self.name}.tokens")
        )
