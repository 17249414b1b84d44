"""A fixed number of rows out of a series of documents: as many of them, in their order, as fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmpack.packing.pack_runs import pack_runs

#: Search steps per document: a few times what usual mixes take, and never more than some microseconds.
_STEPS = 64


@dataclass(frozen=True, slots=True, eq=False)
class WindowPacking:
    """The first chains of a series, cut to documents, in rows.

    Attributes:
        chains: how many of the series are in it.
        start, stop: int64 (documents,), document d is the slices `start[d]` to `stop[d] - 1`.
        chain: int64 (documents,).
        lengths: int64 (documents,), places, overhead included.
        ids, offsets: row r holds the documents `ids[offsets[r]:offsets[r + 1]]`; int64.
    """

    num_runs: int
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    run: NDArray[np.int64]
    lengths: NDArray[np.int64]
    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.offsets.size - 1


def pack_window(
    slice_lengths: NDArray[np.int64],
    run_offsets: NDArray[np.int64],
    overhead: NDArray[np.int64],
    capacity: int,
    rows: int,
    *,
    seed: int = 0,
) -> WindowPacking:
    """Fill at most `rows` rows with a prefix of a series of chains.

    The longest prefix whose tokens fit is packed; if it takes more rows, as many of its last chains are left out as
    the rows beyond hold. Then the chains behind it go into the holes that are left, best fit, up to the first that fits
    none: so all rows are in use if there are chains enough, and nothing is passed over.

    Args:
        slice_lengths, chain_offsets, overhead: as :func:`mmpack.packing.pack_runs` takes them; every chain fits a row.
        capacity: token places of a row.
        rows: how many there may be.
        seed: which of the documents of equal length go where.

    Raises:
        DataError: as :func:`mmpack.packing.pack_runs`.
    """
    before = np.concatenate(([0], np.cumsum(slice_lengths)))
    lengths = before[run_offsets[1:]] - before[run_offsets[:-1]] + overhead
    total = np.cumsum(lengths)
    taken = int(np.searchsorted(total, rows * capacity, side="right"))
    least = 0
    while True:
        cut = pack_runs(
            slice_lengths[: run_offsets[taken]],
            run_offsets[: taken + 1],
            capacity,
            overhead=overhead[:taken],
            seed=seed,
            effort=_STEPS * max(taken, 64),
        )
        packed = cut.packing
        if packed.rows <= rows:
            break
        used = np.sort(np.add.reduceat(cut.lengths[packed.ids], packed.offsets[:-1]))
        least = max(2 * least, int(used[: packed.rows - rows].sum()))
        taken = int(np.searchsorted(total, total[taken - 1] - least, side="right"))
    from mmpack.packing.gap_fill import fill_gaps

    offsets, ids, more = fill_gaps(packed.offsets, packed.ids, cut.lengths, lengths[taken:], capacity, rows)
    added = np.arange(taken, taken + more)
    return WindowPacking(
        taken + more,
        np.concatenate((cut.start, run_offsets[added])),
        np.concatenate((cut.stop, run_offsets[added + 1])),
        np.concatenate((cut.run, added)),
        np.concatenate((cut.lengths, lengths[added])),
        ids,
        offsets,
    )
