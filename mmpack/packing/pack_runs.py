"""Packing of runs of slices: runs are cut into documents between slices, and the documents are packed into rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmpack.errors import ConfigError, DataError
from mmpack.packing.pack import DEFAULT_EFFORT, as_lengths, check_capacity, check_range, length_error, pack
from mmpack.packing.packing import Packing


@dataclass(frozen=True, slots=True, eq=False)
class RunLengths:
    """The lengths of runs of slices.

    Attributes:
        slices: integers (slices,) > 0, tokens of each slice, run after run.
        offsets: integers (runs + 1,), ascending from 0 to slices: run r consists of the slices `offsets[r]` to
            `offsets[r + 1] - 1`. A stand-alone item is a run of one slice.
        overhead: tokens that every document has in addition to its slices: one integer, or one per run.
    """

    slices: ArrayLike
    offsets: ArrayLike
    overhead: ArrayLike = 0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RunPacking:
    """The documents that runs were cut into, and the rows that contain the documents.

    Attributes:
        start, stop: int64 (documents,), document d consists of the slices `start[d]` to `stop[d] - 1`; documents are
            in the order of their slices, and every slice is in exactly one document.
        run: int64 (documents,), index of the run that contains the document.
        lengths: int64 (documents,), tokens of each document, overhead included.
        packing: the documents in rows. Its lower bound holds for any cuts: (tokens + smallest possible overhead) /
            capacity, rounded up.
        forced_cuts: number of cuts that are necessary because a document would be longer than a row.
        cuts: number of all cuts; the other cuts complete rows.
    """

    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    run: NDArray[np.int64]
    lengths: NDArray[np.int64]
    packing: Packing
    forced_cuts: int
    cuts: int


def pack_runs(
    runs: RunLengths,
    capacity: int,
    *,
    fill: float = 1.0,
    seed: int = 0,
    effort: int = DEFAULT_EFFORT,
) -> RunPacking:
    """Cuts runs into documents and packs the documents.

    Runs longer than a row are cut into the smallest number of documents, each as long as possible. If these documents do
    not reach `fill`, rows are completed with more cuts: a row that they leave with free space gets the first slices of
    another document, or returns the last slices of its longest document. Free space is accepted as long as all rows so far
    together still reach `fill`. The additional cuts are used only if they save rows.

    Args:
        runs: lengths of the slices of all runs.
        capacity: number of positions of a row.
        fill: the fill up to which rows are completed with cuts, in [0, 1]: a smaller value leaves small gaps and makes
            fewer cuts; 0 makes only the forced cuts.
        seed: seed of the choice among documents of equal length.
        effort: largest number of search steps, as in :func:`mmpack.packing.pack`.

    Raises:
        DataError: a slice with the overhead of its run is longer than a row, or a slice is not longer than 0 (the message
            names the first one); or the arrays are not consistent.
        ConfigError: a setting is out of range.
    """
    check_capacity(capacity)
    check_range("seed", seed, 0, (1 << 63) - 1)
    check_range("effort", effort, 0, (1 << 62) - 1)
    if not 0 <= fill <= 1:
        raise ConfigError(f"fill is {fill}", hint="Use a share from 0 to 1.")
    slices = as_lengths(runs.slices, "slice lengths").astype(np.int64, copy=False)
    offsets = as_lengths(runs.offsets, "run offsets").astype(np.int64, copy=False)
    extra = _check_inputs(slices, offsets, runs.overhead, capacity)

    from mmpack.packing.run_cuts import cut_to_complete, cut_to_fit
    from mmpack.packing.shuffle import permutation

    token_offsets = np.concatenate(([0], np.cumsum(slices)))
    start, stop, run = cut_to_fit(token_offsets, offsets, extra, capacity)
    num_runs = int(np.count_nonzero(np.diff(offsets)))
    forced = start.size - num_runs
    lengths = token_offsets[stop] - token_offsets[start] + extra[run]
    # No other cuts give fewer documents, so no other cuts give less overhead.
    min_rows = -(-int(lengths.sum()) // capacity)
    packing = replace(pack(lengths, capacity, seed=seed, effort=effort), lower_bound=min_rows)
    uncompleted = RunPacking(
        start=start, stop=stop, run=run, lengths=lengths, packing=packing, forced_cuts=forced, cuts=forced
    )
    if packing.fill >= fill or packing.rows == min_rows or slices.size == start.size:
        return uncompleted
    order = permutation(start.size, seed)
    start, stop, run, row = cut_to_complete(
        token_offsets, extra, start[order], stop[order], run[order], capacity, (1 - fill) * capacity, effort
    )
    rows = int(row.max()) + 1
    if rows >= packing.rows:
        return uncompleted
    order = np.argsort(start)
    start, stop, run, row = start[order], stop[order], run[order], row[order]
    lengths = token_offsets[stop] - token_offsets[start] + extra[run]
    row_offsets = np.concatenate(([0], np.cumsum(np.bincount(row, minlength=rows))))
    packing = Packing(np.argsort(row, kind="stable"), row_offsets, capacity, int(lengths.sum()), min_rows)
    return RunPacking(
        start=start,
        stop=stop,
        run=run,
        lengths=lengths,
        packing=packing,
        forced_cuts=forced,
        cuts=start.size - num_runs,
    )


def _check_inputs(
    slices: NDArray[np.int64], offsets: NDArray[np.int64], overhead: ArrayLike, capacity: int
) -> NDArray[np.int64]:
    """Returns the overhead of each run, int64 (runs,); raises the DataError of :func:`pack_runs`."""
    if not offsets.size or offsets[0] != 0 or offsets[-1] != slices.size or (np.diff(offsets) < 0).any():
        raise DataError(
            "the run offsets do not ascend from 0 to the number of slices", hint="Give runs + 1 offsets."
        )
    runs = offsets.size - 1
    extra = np.asarray(overhead)
    if extra.ndim == 0:
        extra = np.full(runs, extra)
    extra = as_lengths(extra, "overhead").astype(np.int64, copy=False)
    if extra.size != runs:
        raise DataError(f"{extra.size} overheads for {runs} runs", hint="Give one integer, or one per run.")
    if (extra < 0).any():
        raise DataError("overhead is negative", where=f"run {int((extra < 0).argmax())}")
    # Slices are checked without overhead first, because the sum with the overhead could overflow.
    invalid = np.flatnonzero((slices <= 0) | (slices > capacity))
    if not invalid.size and (extra > capacity).any():
        raise length_error(f"overhead of run {int((extra > capacity).argmax())}", int(extra.max()), capacity)
    if not invalid.size:
        run = np.repeat(np.arange(runs), np.diff(offsets))
        invalid = np.flatnonzero(slices + extra[run] > capacity)
    if invalid.size:
        first = int(invalid[0])
        run_index = int(np.searchsorted(offsets, first, side="right")) - 1
        where = f"slice {first} (run {run_index}, overhead {int(extra[run_index])})"
        length = int(slices[first])
        if length == 0:
            raise DataError("length is 0", where=where, hint="Give every slice at least one token.")
        with_extra = min(length, capacity + 1) + int(extra[run_index])
        raise length_error(where, length if length < 0 or length > capacity else with_extra, capacity)
    return extra
