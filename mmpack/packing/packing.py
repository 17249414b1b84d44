"""The result of packing: which item is in which row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """An assignment of items to rows; every item is in exactly one row.

    Attributes:
        ids: int64 (n,), item indices, row after row.
        offsets: int64 (rows + 1,), row r holds the items `ids[offsets[r]:offsets[r + 1]]`.
        capacity: number of positions of a row.
        tokens: sum of the lengths of all items.
        lower_bound: number of rows that every packing needs (:func:`mmpack.packing.lower_bound`).
    """

    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    capacity: int
    tokens: int
    lower_bound: int

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.offsets.size - 1

    @property
    def fill(self) -> float:
        """The share of positions that hold a token, in [0, 1]; 1 if there are no rows."""
        return self.tokens / (self.rows * self.capacity) if self.rows else 1.0

    @property
    def fill_bound(self) -> float:
        """The largest fill that a packing can reach; 1 if there are no rows."""
        # Runs that were cut have more overhead than the bound counts, because the bound holds for any cuts.
        return min(1.0, self.tokens / (self.lower_bound * self.capacity)) if self.lower_bound else 1.0

    @property
    def excess_rows(self) -> int:
        """The number of rows above the lower bound; 0 proves that the packing is optimal."""
        return self.rows - self.lower_bound

    def row(self, row: int) -> NDArray[np.int64]:
        """Returns the item indices of one row, int64."""
        return self.ids[self.offsets[row] : self.offsets[row + 1]]

    def reorder_rows(self, order: NDArray[np.int64]) -> Packing:
        """Returns the same packing with its rows in another order.

        Args:
            order: int64 (rows,), a permutation: row r of the result is row `order[r]` of this packing.
        """
        sizes = np.diff(self.offsets)[order]
        offsets = np.concatenate(([0], np.cumsum(sizes)))
        source = np.repeat(self.offsets[order] - offsets[:-1], sizes)
        source += np.arange(source.size)
        return Packing(self.ids[source], offsets, self.capacity, self.tokens, self.lower_bound)

    def shuffle(self, seed: int) -> Packing:
        """Returns the same packing with its rows in a random order."""
        from mmpack.packing.shuffle import permutation

        return self.reorder_rows(permutation(self.rows, seed))

    def __str__(self) -> str:
        text = f"{self.ids.size:,} items in {self.rows:,} rows of {self.capacity:,}, fill {self.fill:.3%}"
        return f"{text}; at least {self.lower_bound:,} rows are needed (fill {self.fill_bound:.3%})"
