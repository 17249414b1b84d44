"""All lengths at hand: the fewest rows we can find."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmpack.errors import ConfigError, DataError
from mmpack.packing.packing import Packing

#: Longest row. Counts are kept for every length up to it: 2^24 take 128 MiB.
MAX_CAPACITY = 1 << 24
#: Search steps of a plan unless told otherwise: about a tenth of a second, and far more than usual mixes take.
DEFAULT_EFFORT = 20_000_000


def pack(
    lengths: ArrayLike, capacity: int, *, seed: int = 0, effort: int = DEFAULT_EFFORT, level: bool = False
) -> Packing:
    """Pack items into rows.

    Rows are planned over the histogram of lengths: first completed exactly, and where that leaves more rows than the
    lower bound also by best fit decreasing; the better plan is kept. So the result never has more rows than best
    fit decreasing, and is optimal where `gap` is 0. Planning costs what distinct lengths cost; an item costs
    being counted, sorted and handed out.

    Rows come longest item first, not in random order: see :meth:`Packing.shuffled` and
    :func:`mmpack.packing.balance`.

    Args:
        lengths: integers (n,) in [0, capacity]; int32 and int64 arrays are read in place. Items of length 0 go to
            the last row.
        capacity: token places of a row, at most 16,777,216.
        seed: which of the items of equal length goes where. Each length's items are walked from a start and with a
            stride drawn from the seed: another pairing for each seed, though not one of all possible orders alike.
            How many rows there are and which lengths meet does not depend on it.
        effort: search steps; 0 for best fit decreasing alone. The plan is a function of the arguments, on any
            machine.
        level: bring rows near the same Σ length² as far as the fill allows, for :func:`mmpack.packing.balance` with one row
            per rank. It costs some fill (0.2 % on long texts), and best fit decreasing may have fewer rows.

    Raises:
        DataError: lengths are not one-dimensional integers, or one is negative or longer than a row (the first
            is named).
        ConfigError: capacity, seed or effort is out of range.
    """
    from mmpack.packing.best_fit import best_fit
    from mmpack.packing.exact_fit import exact_fit
    from mmpack.packing.histogram import assign_items, count_lengths, order_by_length
    from mmpack.packing.lower_bound import fekete_schepers_bound, martello_toth_bound

    check_capacity(capacity)
    check_range("seed", seed, 0, (1 << 63) - 1)
    check_range("effort", effort, 0, (1 << 62) - 1)
    values = as_lengths(lengths)
    counts, tokens, wrong = count_lengths(values, capacity)
    if wrong >= 0:
        raise length_error(f"item {wrong}", int(values[wrong]), capacity)
    bound = martello_toth_bound(counts, capacity)
    plan = exact_fit(counts, capacity, effort, level) if effort or level else best_fit(counts, capacity)
    if effort and not level and plan[0].sum() > bound:
        plain = best_fit(counts, capacity)
        plan = min(plan, plain, key=lambda found: int(found[0].sum()))
    if plan[0].sum() > bound:
        bound = max(bound, fekete_schepers_bound(counts, capacity))
    ordered = np.empty(values.size, np.int32 if values.size < 1 << 31 else np.int64)
    order_by_length(values, counts, ordered)
    ids, offsets = assign_items(ordered, counts, seed, *plan)
    # Items without tokens need a row to be in, though the bound does not count them.
    return Packing(ids, offsets, capacity, int(tokens), max(bound, min(1, values.size)))


def as_lengths(lengths: ArrayLike, name: str = "lengths") -> NDArray[Any]:
    """`lengths` as a contiguous int32 or int64 array, itself if it is one.

    Raises:
        DataError: it is not one-dimensional, or does not hold integers that int64 can.
    """
    values = np.asarray(lengths)
    if values.ndim != 1:
        raise DataError(f"{name} have {values.ndim} dimensions", hint="Give one length per item.")
    if not values.size:
        return np.zeros(0, np.int64)
    if values.dtype == np.uint64 and values.max() > np.iinfo(np.int64).max:
        raise DataError(f"{name} hold {values.max()}, which int64 cannot", hint="Give lengths in tokens.")
    if values.dtype.kind not in "iu":
        raise DataError(f"{name} are {values.dtype}, not integers", hint="Give lengths in whole tokens.")
    dtype = np.int32 if values.dtype == np.int32 else np.int64
    return np.ascontiguousarray(values, dtype)


def check_capacity(capacity: int) -> None:
    """Raise ConfigError unless rows may have `capacity` places."""
    check_range("capacity", capacity, 1, MAX_CAPACITY)


def check_range(name: str, value: int, low: int, high: int) -> None:
    """Raise ConfigError unless `value` is an integer in [low, high]."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"{name} is {value!r}", hint=f"Give an integer from {low:,} to {high:,}.")


def length_error(where: str, length: int, capacity: int) -> DataError:
    """The error for a length that is negative or longer than a row."""
    if length < 0:
        return DataError(
            f"length is {length:,}, which is negative", where=where, hint="Check where lengths come from."
        )
    return DataError(
        f"{length:,} tokens do not fit a row of {capacity:,}",
        where=where,
        hint="Drop it, cut it first, or pack into longer rows.",
    )
