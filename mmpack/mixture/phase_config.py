"""`[[phases]]`: the data sets of each phase, their shares and the number of tokens."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from mmpack.errors import ConfigError
from mmpack.settings import NonNegativeFloat, PositiveFloat, PositiveInt, Settings, check_ranges, suggest

_COUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kMGBT]?)\s*")
# msgspec 0.22 crashes at the garbage collection of a field type that has both a fixed tuple and a range of a float. So the
# field is declared without its range.
_TEMPERATURE: Any = PositiveFloat | tuple[PositiveFloat, PositiveFloat]
_SCALE = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}


def parse_token_count(text: int | str, *, where: str) -> int:
    """Returns a positive number of tokens from an integer, or from text with a unit such as `"1.5T"` (k, M, B = G, T).

    Args:
        text: number of tokens.
        where: location named by an error.

    Raises:
        ConfigError: the text is not a whole number of tokens, or the number is not above 0.
    """
    if isinstance(text, str):
        match = _COUNT.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"'{text}' is not a number of tokens",
                where=where,
                hint="Write it with a unit, such as '1.5T'.",
            )
        integer_part, _, fraction = match[1].partition(".")
        # Integer arithmetic keeps the value exact: 0.1T is 10**11.
        scaled = int(integer_part + fraction) * _SCALE[match[2]]
        tokens, remainder = divmod(scaled, 10 ** len(fraction))
        if remainder:
            raise ConfigError(f"'{text}' is not a whole number of tokens", where=where)
    else:
        tokens = text
    if tokens < 1:
        raise ConfigError(f"{text} is not at least 1", where=where)
    return tokens


class PhaseConfig(Settings, frozen=True, kw_only=True):
    """One `[[phases]]` table.

    The share of data set i is P(i) ∝ weight(i) · tokens(i)^(1/T) over the data sets of the phase. T = 1 keeps the sizes
    of the data sets, T above 1 flattens them, T below 1 amplifies them.

    Raises:
        ConfigError: `tokens` is not a positive whole number, a temperature is not positive and finite, a weight or share
            is negative or not finite, `shares` is combined with `weights` or `temperature`, `datasets` is empty or lists
            a data set twice, `weights` or `shares` has a data set that `datasets` does not list, or a temperature ramp
            has no `tokens`.
    """

    name: str
    """Name of the phase, such as "cold"."""
    tokens: PositiveInt | str | None = None
    """Number of tokens of the phase, such as `"1T"`; only the last phase may omit it and then lasts as long as there are
    data."""
    temperature: float | tuple[float, float] = 1.0
    """Temperature T, or (first, last): a ramp over the phase, linear in tokens, which needs `tokens`."""
    datasets: tuple[str, ...] | None = None
    """Data sets of this phase; if omitted, those of `shares`, or all data sets if `shares` is empty."""
    weights: dict[str, NonNegativeFloat] = {}
    """Factors by which the shares of data sets are multiplied; 1 for a data set that is not listed."""
    shares: dict[str, NonNegativeFloat] = {}
    """Explicit shares in any unit, instead of sizes, temperature and weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        where = self._where
        check_ranges(self.temperature, _TEMPERATURE, where=self._key("temperature"))
        if self.tokens is not None:
            parse_token_count(self.tokens, where=self._key("tokens"))
        if isinstance(self.temperature, tuple) and self.tokens is None:
            raise ConfigError(
                "a temperature ramp needs the number of tokens of its phase",
                where=where,
                hint="Set 'tokens' of the phase.",
            )
        if self.datasets == ():
            raise ConfigError(
                "the list of data sets is empty",
                where=f"{where}.datasets",
                hint="List at least one data set, or omit 'datasets' to use all data sets.",
            )
        names = self.datasets or ()
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"data set '{name}' is listed twice", where=f"{where}.datasets")
        if self.datasets:
            for name in {**self.weights, **self.shares}:
                if name not in self.datasets:
                    raise ConfigError(
                        f"data set '{name}' has a weight or share, but is not in 'datasets'",
                        where=where,
                        hint=f"Add it to 'datasets'. {suggest(name, self.datasets)}",
                    )
            for name in self.datasets:
                if self.shares and name not in self.shares:
                    raise ConfigError(
                        f"data set '{name}' has no share",
                        where=f"{where}.shares",
                        hint="Add its share, which may be 0.",
                    )
        if self.shares and (self.weights or self.temperature != 1.0):
            raise ConfigError(
                "'shares' cannot be combined with 'weights' or 'temperature'",
                where=where,
                hint="Remove 'shares', or remove 'weights' and 'temperature'.",
            )

    @property
    def _where(self) -> str:
        return f"phases.{self.name}"

    @property
    def temperatures(self) -> tuple[float, float]:
        """The first and the last temperature of the phase."""
        if isinstance(self.temperature, tuple):
            return self.temperature
        return self.temperature, self.temperature

    @property
    def num_tokens(self) -> int | None:
        """The number of tokens of the phase; None if the phase has no end."""
        return None if self.tokens is None else parse_token_count(self.tokens, where=self._key("tokens"))


def check_phases(phases: Sequence[PhaseConfig], datasets: Collection[str]) -> None:
    """Checks the phases of a plan against each other and against its data sets.

    Raises:
        ConfigError: a phase names an unknown data set (the hint has the nearest known name), or a phase that is not the
            last lacks `tokens`.
    """
    for index, phase in enumerate(phases):
        if index and phases[index - 1].tokens is None:
            previous = phases[index - 1].name
            raise ConfigError(
                f"the phase never begins, because the phase '{previous}' before it has no end",
                where=f"phases.{phase.name}",
                hint=f"Set 'tokens' of '{previous}'.",
            )
        for key, names in (
            ("datasets", phase.datasets or ()),
            ("weights", phase.weights),
            ("shares", phase.shares),
        ):
            for name in names:
                if name not in datasets:
                    raise ConfigError(
                        f"no data set is called '{name}'",
                        where=f"phases.{phase.name}.{key}",
                        hint=suggest(name, datasets),
                    )
