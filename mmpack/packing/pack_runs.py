"""Chains of indivisible slices: documents cut between slices, and rows of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmpack.errors import ConfigError, DataError
from mmpack.packing.pack import DEFAULT_EFFORT, as_lengths, check_capacity, check_range, length_error, pack
from mmpack.packing.packing import Packing


@dataclass(frozen=True, slots=True, eq=False)
class RunPacking:
    """Chains cut to documents, and the documents dealt to rows.

    Attributes:
        start, stop: int64 (documents,), document d is the slices `start[d]` to `stop[d] - 1`; documents are
            numbered in the order of their slices, and every slice is in exactly one.
        chain: int64 (documents,), the chain it is a run of.
        lengths: int64 (documents,), tokens, overhead included.
        packing: the documents in rows. Its lower bound holds however the chains are cut: tokens and the least overhead
            over capacity.
        forced_cuts: cuts without which a document would be longer than a row.
        cuts: all cuts; those beyond the forced ones complete rows.
    """

    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    run: NDArray[np.int64]
    lengths: NDArray[np.int64]
    packing: Packing
    forced_cuts: int
    cuts: int


def pack_runs(
    slice_lengths: ArrayLike,
    run_offsets: ArrayLike,
    capacity: int,
    *,
    overhead: ArrayLike = 0,
    fill: float = 1.0,
    seed: int = 0,
    effort: int = DEFAULT_EFFORT,
) -> RunPacking:
    """Cut chains to documents and pack these.

    Chains longer than a row are cut into the fewest documents, each as long as fits. If whole documents do not reach
    `fill`, rows are completed with cuts: a row that whole documents leave a hole in gets the first slices of another
    document, or hands the last slices of its longest back. A hole is left alone as long as the rows before it, taken
    together, still reach `fill`. The cuts are kept only if they save rows.

    Args:
        slice_lengths: integers (slices,) > 0, tokens of each slice, chain after chain.
        chain_offsets: integers (chains + 1,), ascending from 0 to slices: chain c is the slices `chain_offsets[c]` to
            `chain_offsets[c + 1] - 1`. A stand-alone item is a chain of one slice.
        capacity: token places of a row.
        overhead: tokens every document has beside its slices: one integer, or one per chain.
        fill: the fill up to which cuts are spent, in [0, 1]: less leaves small holes and makes fewer cuts, 0 only the
            forced ones.
        seed: which of the documents of equal length go where.
        effort: search steps, as in :func:`mmpack.packing.pack`.

    Raises:
        DataError: a slice with its chain's overhead is longer than a row, or not longer than 0 (the first is named);
            or the arrays do not fit together.
        ConfigError: a setting is out of range.
    """
    check_capacity(capacity)
    check_range("seed", seed, 0, (1 << 63) - 1)
    check_range("effort", effort, 0, (1 << 62) - 1)
    if not 0 <= fill <= 1:
        raise ConfigError(f"fill is {fill}", hint="Give a share from 0 to 1.")
    slices = as_lengths(slice_lengths, "slice_lengths").astype(np.int64, copy=False)
    offsets = as_lengths(run_offsets, "chain_offsets").astype(np.int64, copy=False)
    extra = _checked(slices, offsets, overhead, capacity)

    from mmpack.packing.run_cuts import cut_to_complete, cut_to_fit
    from mmpack.packing.shuffle import permutation

    before = np.concatenate(([0], np.cumsum(slices)))  # tokens before each slice
    start, stop, chain = cut_to_fit(before, offsets, extra, capacity)
    chains = int(np.count_nonzero(np.diff(offsets)))
    forced = start.size - chains
    lengths = before[stop] - before[start] + extra[chain]
    # However chains are cut, there are no fewer documents than these, so no less overhead.
    least = -(-int(lengths.sum()) // capacity)
    packing = replace(pack(lengths, capacity, seed=seed, effort=effort), lower_bound=least)
    best = RunPacking(start, stop, chain, lengths, packing, forced, forced)
    if packing.fill >= fill or packing.rows == least or slices.size == start.size:
        return best
    mixed = permutation(start.size, seed)
    start, stop, chain, row = cut_to_complete(
        before, extra, start[mixed], stop[mixed], chain[mixed], capacity, (1 - fill) * capacity, effort
    )
    rows = int(row.max()) + 1
    if rows >= packing.rows:
        return best
    order = np.argsort(start)
    start, stop, chain, row = start[order], stop[order], chain[order], row[order]
    lengths = before[stop] - before[start] + extra[chain]
    places = np.concatenate(([0], np.cumsum(np.bincount(row, minlength=rows))))
    packed = Packing(np.argsort(row, kind="stable"), places, capacity, int(lengths.sum()), least)
    return RunPacking(start, stop, chain, lengths, packed, forced, start.size - chains)


def _checked(
    slices: NDArray[np.int64], offsets: NDArray[np.int64], overhead: ArrayLike, capacity: int
) -> NDArray[np.int64]:
    """Overhead per chain, int64 (chains,); raises what :func:`pack_runs` says."""
    if not offsets.size or offsets[0] != 0 or offsets[-1] != slices.size or (np.diff(offsets) < 0).any():
        raise DataError(
            "chain_offsets do not ascend from 0 to the number of slices", hint="Give chains + 1 offsets."
        )
    chains = offsets.size - 1
    extra = np.asarray(overhead)
    if extra.ndim == 0:
        extra = np.full(chains, extra)
    extra = as_lengths(extra, "overhead").astype(np.int64, copy=False)
    if extra.size != chains:
        raise DataError(
            f"{extra.size} overheads for {chains} chains", hint="Give one integer, or one per chain."
        )
    if (extra < 0).any():
        raise DataError("overhead is negative", where=f"chain {int((extra < 0).argmax())}")
    # Slices alone first: a sum with overhead could overflow.
    wrong = np.flatnonzero((slices <= 0) | (slices > capacity))
    if not wrong.size and (extra > capacity).any():
        raise length_error(
            f"overhead of chain {int((extra > capacity).argmax())}", int(extra.max()), capacity
        )
    if not wrong.size:
        chain = np.repeat(np.arange(chains), np.diff(offsets))
        wrong = np.flatnonzero(slices + extra[chain] > capacity)
    if wrong.size:
        first = int(wrong[0])
        chain_of = int(np.searchsorted(offsets, first, side="right")) - 1
        where = f"slice {first} (chain {chain_of}, overhead {int(extra[chain_of])})"
        length = int(slices[first])
        if length == 0:
            raise DataError("length is 0", where=where, hint="A slice has at least one token.")
        with_extra = min(length, capacity + 1) + int(extra[chain_of])
        raise length_error(where, length if length < 0 or length > capacity else with_extra, capacity)
    return extra
