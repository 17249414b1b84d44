"""Packing of items whose lengths are all known in advance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmpack.errors import ConfigError, DataError
from mmpack.packing.packing import Packing

#: Largest capacity of a row. The histogram has one count per length: 2^24 counts take 128 MiB.
MAX_CAPACITY = 1 << 24
#: Default number of search steps of a plan: about a tenth of a second, and far more than usual mixtures take.
DEFAULT_EFFORT = 20_000_000


def pack(
    lengths: ArrayLike, capacity: int, *, seed: int = 0, effort: int = DEFAULT_EFFORT, level: bool = False
) -> Packing:
    """Packs items into rows.

    Rows are planned over the histogram of lengths: by exact completion, and if that plan has more rows than the lower
    bound, also by best fit decreasing; the plan with fewer rows is used. So the result never has more rows than best fit
    decreasing, and it is optimal if `excess_rows` is 0. The cost of planning depends on the number of distinct lengths;
    each item is only counted, sorted and assigned.

    Rows are ordered by their longest item, not randomly: see :meth:`Packing.shuffle` and
    :func:`mmpack.packing.balance_rows`.

    Args:
        lengths: integers (n,) in [0, capacity]; int32 and int64 arrays are read in place. Items of length 0 go to
            the last row.
        capacity: number of positions of a row, at most 16,777,216.
        seed: seed of the choice among items of equal length. The items of each length are visited from a start and with a
            stride derived from the seed: each seed gives another assignment, but not all orders are equally likely.
            The number of rows and the lengths in each row do not depend on it.
        effort: largest number of search steps; 0 selects best fit decreasing alone. The plan depends on the arguments
            only and is the same on every machine.
        level: whether rows are brought near the same Σ length² as far as the fill allows, for
            :func:`mmpack.packing.balance_rows` with one row per rank. This costs some fill (0.2 % on long texts), and
            best fit decreasing may need fewer rows.

    Raises:
        DataError: lengths are not one-dimensional integers, or one is negative or longer than a row (the message names
            the first one).
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
    counts, tokens, invalid = count_lengths(values, capacity)
    if invalid >= 0:
        raise length_error(f"item {invalid}", int(values[invalid]), capacity)
    bound = martello_toth_bound(counts, capacity)
    plan = exact_fit(counts, capacity, effort, level) if effort or level else best_fit(counts, capacity)
    if effort and not level and plan[0].sum() > bound:
        best_fit_plan = best_fit(counts, capacity)
        plan = min(plan, best_fit_plan, key=lambda candidate: int(candidate[0].sum()))
    if plan[0].sum() > bound:
        bound = max(bound, fekete_schepers_bound(counts, capacity))
    ordered = np.empty(values.size, np.int32 if values.size < 1 << 31 else np.int64)
    order_by_length(values, counts, ordered)
    ids, offsets = assign_items(ordered, counts, seed, *plan)
    # Items without tokens need one row too, although the bound does not count them.
    return Packing(ids, offsets, capacity, int(tokens), max(bound, min(1, values.size)))


def as_lengths(lengths: ArrayLike, name: str = "lengths") -> NDArray[Any]:
    """Returns `lengths` as a contiguous int32 or int64 array, without a copy where possible.

    Raises:
        DataError: `lengths` is not one-dimensional, or holds a value that is not an integer or exceeds int64.
    """
    values = np.asarray(lengths)
    if values.ndim != 1:
        raise DataError(f"{name} have {values.ndim} dimensions", hint="Give one length per item.")
    if not values.size:
        return np.zeros(0, np.int64)
    if values.dtype == np.uint64 and values.max() > np.iinfo(np.int64).max:
        raise DataError(f"{name} hold {values.max()}, which exceeds int64", hint="Give lengths in tokens.")
    if values.dtype.kind not in "iu":
        raise DataError(f"{name} are {values.dtype}, not integers", hint="Give lengths in whole tokens.")
    dtype = np.int32 if values.dtype == np.int32 else np.int64
    return np.ascontiguousarray(values, dtype)


def check_capacity(capacity: int) -> None:
    """Raises ConfigError unless `capacity` is a possible number of positions of a row."""
    check_range("capacity", capacity, 1, MAX_CAPACITY)


def check_range(name: str, value: int, low: int, high: int) -> None:
    """Raises ConfigError unless `value` is an integer in [low, high]."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"{name} is {value!r}", hint=f"Use an integer from {low:,} to {high:,}.")


def length_error(where: str, length: int, capacity: int) -> DataError:
    """Returns the error for a length that is negative or longer than a row."""
    if length < 0:
        return DataError(
            f"length is {length:,}, which is negative", where=where, hint="Check the source of the lengths."
        )
    return DataError(
        f"{length:,} tokens do not fit a row of {capacity:,}",
        where=where,
        hint="Remove or cut the item, or use longer rows.",
    )
