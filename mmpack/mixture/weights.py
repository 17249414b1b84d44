"""Shares as integers: P(i) ∝ weight(i) · tokens(i)^(1/T) in parts of 1 / `SCALE`.

The shares are integers because a plan must be the same on every machine, and powers of floats are not. Powers are
computed with `decimal`, whose ln and exp are correctly rounded on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction

SCALE = 1 << 24
"""Sum of the weights of a stage. A share is exact to 6e-8, and a document's tokens in these units fit into 64 bits."""

# Relative errors of shares are below 1e-30; shares that round to 0 get the smallest weight.
_DIGITS = 40
_ONE = 10**_DIGITS
_CONTEXT = Context(prec=_DIGITS + 10, Emin=-999_999, Emax=999_999, traps=[InvalidOperation])


def split_proportionally(total: int, parts: Sequence[int]) -> list[int]:
    """Splits `total` into integers in proportion to `parts`, by the largest remainder method.

    Args:
        total: integer to split, at least 0.
        parts: proportions, each at least 0, not all 0.

    Returns:
        Integers that sum to `total`. Of equal remainders, the one with the lower index is rounded up first.
    """
    parts_sum = sum(parts)
    shares, remainders = zip(*(divmod(total * part, parts_sum) for part in parts), strict=True)
    order = sorted(range(len(parts)), key=lambda i: (-remainders[i], i))
    rounded_up = set(order[: total - sum(shares)])
    return [share + (i in rounded_up) for i, share in enumerate(shares)]


def integer_weights(parts: Sequence[int]) -> list[int]:
    """Computes integer weights in proportion to `parts` that sum to `SCALE`.

    Every part above 0 gets a weight of at least 1; the largest weights are lowered to compensate.

    Args:
        parts: proportions, each at least 0, not all 0, at most `SCALE` of them above 0.
    """
    split = split_proportionally(SCALE, parts)
    weights = [max(weight, 1) if part else 0 for part, weight in zip(parts, split, strict=True)]
    for _ in range(sum(weights) - SCALE):
        weights[weights.index(max(weights))] -= 1
    return weights


def share_weights(shares: Sequence[float]) -> list[int]:
    """Computes integer weights from explicit shares.

    Args:
        shares: finite shares, each at least 0, not all 0; taken as the decimals that `repr` prints, so 0.1 is 1/10.
    """
    exact = [Fraction(repr(float(share))) for share in shares]
    largest = max(exact)
    return integer_weights([_keep_present(int(share / largest * _ONE), share > 0) for share in exact])


def temperature_weights(
    tokens: Sequence[int], temperature: Fraction | float, factors: Sequence[float]
) -> list[int]:
    """Computes the integer weights of P(i) ∝ factor(i) · tokens(i)^(1/T).

    T = 1 keeps the sizes, T above 1 flattens them, T below 1 amplifies them. (Exponentiated smoothing as in
    multilingual BERT; with T, Arivazhagan et al., arXiv 1907.05019.)

    Args:
        tokens: sizes of the data sets, each at least 0; a data set of size 0 has no share.
        temperature: temperature T, above 0.
        factors: finite factors, each at least 0; at least one data set with tokens has a factor above 0.

    Returns:
        Weights that sum to `SCALE`; at least 1 where both factor and size are above 0.
    """
    exact = Fraction(repr(temperature)) if isinstance(temperature, float) else Fraction(temperature)
    decimal_temperature = _CONTEXT.divide(Decimal(exact.numerator), Decimal(exact.denominator))
    logs: list[Decimal | None] = []
    for size, factor in zip(tokens, factors, strict=True):
        if size and factor:
            power = _CONTEXT.divide(_CONTEXT.ln(Decimal(size)), decimal_temperature)
            logs.append(_CONTEXT.add(power, _CONTEXT.ln(Decimal(repr(float(factor))))))
        else:
            logs.append(None)
    largest = max(log for log in logs if log is not None)
    return integer_weights([0 if log is None else _exp_part(_CONTEXT.subtract(log, largest)) for log in logs])


def _exp_part(log: Decimal) -> int:
    """Computes exp(log) in parts of 1 / `_ONE` for a `log` of at most 0; at least 1."""
    if log < -100:
        return 1
    return _keep_present(int(_CONTEXT.multiply(_CONTEXT.exp(log), Decimal(_ONE))), True)


def _keep_present(part: int, is_present: bool) -> int:
    """Returns `part`, raised to at least 1, if `is_present`; else 0."""
    return max(part, 1) if is_present else 0
