"""Packing of the longest possible prefix of a series of runs into a fixed number of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmpack.packing.pack_runs import RunLengths, pack_runs

#: Largest number of search steps per run: a few times what usual mixtures need, and at most some microseconds.
_MAX_STEPS_PER_RUN = 64


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WindowPacking:
    """The first runs of a series, cut into documents and packed into rows.

    Attributes:
        num_runs: number of runs that are packed.
        start, stop: int64 (documents,), document d consists of the slices `start[d]` to `stop[d] - 1`.
        run: int64 (documents,), index of the run that contains the document.
        lengths: int64 (documents,), positions of each document, overhead included.
        ids, offsets: int64, row r holds the documents `ids[offsets[r]:offsets[r + 1]]`.
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
        """The number of rows."""
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
    """Fills at most `rows` rows with a prefix of a series of runs.

    The longest prefix whose tokens fit `rows` rows is packed. If the packing has too many rows, the last runs of the prefix
    are removed, as many as the surplus rows hold, and the shorter prefix is packed. Then the runs that follow the prefix
    are added to the free space by best fit, up to the first run that fits no row. So all rows are used if there are enough
    runs, and no run is skipped.

    Args:
        slice_lengths, run_offsets, overhead: arrays as in :class:`mmpack.packing.RunLengths`; every run fits into a row.
        capacity: number of positions of a row.
        rows: largest number of rows.
        seed: seed of the choice among documents of equal length.

    Raises:
        DataError: an input is invalid, as in :func:`mmpack.packing.pack_runs`.
    """
    token_offsets = np.concatenate(([0], np.cumsum(slice_lengths)))
    lengths = token_offsets[run_offsets[1:]] - token_offsets[run_offsets[:-1]] + overhead
    total = np.cumsum(lengths)
    num_runs = int(np.searchsorted(total, rows * capacity, side="right"))
    surplus = 0
    while True:
        cut = pack_runs(
            RunLengths(
                slice_lengths[: run_offsets[num_runs]], run_offsets[: num_runs + 1], overhead[:num_runs]
            ),
            capacity,
            seed=seed,
            effort=_MAX_STEPS_PER_RUN * max(num_runs, 64),
        )
        packing = cut.packing
        if packing.rows <= rows:
            break
        row_tokens = np.sort(np.add.reduceat(cut.lengths[packing.ids], packing.offsets[:-1]))
        surplus = max(2 * surplus, int(row_tokens[: packing.rows - rows].sum()))
        num_runs = int(np.searchsorted(total, total[num_runs - 1] - surplus, side="right"))
    from mmpack.packing.gap_fill import fill_gaps

    offsets, ids, num_added = fill_gaps(
        packing.offsets, packing.ids, cut.lengths, lengths[num_runs:], capacity, rows
    )
    added = np.arange(num_runs, num_runs + num_added)
    return WindowPacking(
        num_runs=num_runs + num_added,
        start=np.concatenate((cut.start, run_offsets[added])),
        stop=np.concatenate((cut.stop, run_offsets[added + 1])),
        run=np.concatenate((cut.run, added)),
        lengths=np.concatenate((cut.lengths, lengths[added])),
        ids=ids,
        offsets=offsets,
    )
