"""Shares as integers: P(i) ∝ weight(i) · tokens(i)^(1/T) in parts of `SCALE`.

Integers, because a plan must be the same on every machine, and float powers are not. Powers are taken with
`decimal`, whose ln and exp are correctly rounded everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction

SCALE = 1 << 24
"""What the weights of a stage sum to. A share is exact to 6e-8, and credits of documents fit into 64 bits."""

# Shares differ by less than 1e-30 of themselves from the true ones; whatever is smaller gets the least weight.
_DIGITS = 40
_ONE = 10**_DIGITS
_CONTEXT = Context(prec=_DIGITS + 10, Emin=-999_999, Emax=999_999, traps=[InvalidOperation])


def split_proportionally(total: int, parts: Sequence[int]) -> list[int]:
    """`total` in proportion to `parts`, in integers: largest remainders first, ties to the lower index.

    Args:
        total: at least 0.
        parts: at least 0 each, not all 0.

    Returns:
        Integers that sum to `total`.
    """
    whole = sum(parts)
    shares, rests = zip(*(divmod(total * part, whole) for part in parts), strict=True)
    order = sorted(range(len(parts)), key=lambda i: (-rests[i], i))
    more = set(order[: total - sum(shares)])
    return [share + (i in more) for i, share in enumerate(shares)]


def integer_weights(parts: Sequence[int]) -> list[int]:
    """`parts` as weights that sum to `SCALE`; every part above 0 gets at least 1, what it costs the largest pay.

    Args:
        parts: at least 0 each, not all 0, at most `SCALE` of them above 0.
    """
    weights = split_proportionally(SCALE, parts)
    lifted = [max(weight, 1) if part else 0 for part, weight in zip(parts, weights, strict=True)]
    for _ in range(sum(lifted) - SCALE):
        lifted[lifted.index(max(lifted))] -= 1
    return lifted


def share_weights(shares: Sequence[float]) -> list[int]:
    """Explicit shares as integer weights.

    Args:
        shares: finite, at least 0, not all 0; taken as the decimals they are written as.
    """
    exact = [Fraction(repr(float(share))) for share in shares]
    top = max(exact)
    return integer_weights([_keep_present(int(share / top * _ONE), share > 0) for share in exact])


def temperature_weights(
    tokens: Sequence[int], temperature: Fraction | float, factors: Sequence[float]
) -> list[int]:
    """P(i) ∝ factor(i) · tokens(i)^(1/T) as integer weights.

    T = 1 keeps the sizes, T above 1 flattens them, T below 1 amplifies them. (Exponentiated smoothing as in
    multilingual BERT; with T, Arivazhagan et al., arXiv 1907.05019.)

    Args:
        tokens: sizes n(i), at least 0; one of 0 has no share.
        temperature: T, above 0.
        factors: finite, at least 0, not all 0 where there are tokens.

    Returns:
        Weights that sum to `SCALE`, at least 1 where factor and size are above 0.
    """
    exact = Fraction(repr(temperature)) if isinstance(temperature, float) else Fraction(temperature)
    heat = _CONTEXT.divide(Decimal(exact.numerator), Decimal(exact.denominator))
    logs: list[Decimal | None] = []
    for size, factor in zip(tokens, factors, strict=True):
        if size and factor:
            power = _CONTEXT.divide(_CONTEXT.ln(Decimal(size)), heat)
            logs.append(_CONTEXT.add(power, _CONTEXT.ln(Decimal(repr(float(factor))))))
        else:
            logs.append(None)
    top = max(log for log in logs if log is not None)
    return integer_weights([0 if log is None else _exp_part(_CONTEXT.subtract(log, top)) for log in logs])


def _exp_part(log: Decimal) -> int:
    """exp(log) of a log at or below 0, in parts of `_ONE`, at least 1."""
    if log < -100:
        return 1
    return _keep_present(int(_CONTEXT.multiply(_CONTEXT.exp(log), Decimal(_ONE))), True)


def _keep_present(part: int, present: bool) -> int:
    return max(part, 1) if present else 0
