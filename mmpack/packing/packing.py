"""What packing gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """Items dealt to rows; every item is in exactly one.

    Attributes:
        ids: int64 (n,), item numbers, row after row.
        offsets: int64 (rows + 1,), row r holds `ids[offsets[r]:offsets[r + 1]]`.
        capacity: token places of a row.
        tokens: sum of the items' lengths.
        lower_bound: rows that no packing can do without (:func:`mmpack.packing.lower_bound`).
    """

    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    capacity: int
    tokens: int
    lower_bound: int

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.offsets.size - 1

    @property
    def fill(self) -> float:
        """Tokens per token place, in [0, 1]; 1 if there are no rows."""
        return self.tokens / (self.rows * self.capacity) if self.rows else 1.0

    @property
    def fill_bound(self) -> float:
        """Fill that no packing can exceed; 1 if there are no rows."""
        # Chains that were cut have more overhead than the bound counts, which holds for any cuts.
        return min(1.0, self.tokens / (self.lower_bound * self.capacity)) if self.lower_bound else 1.0

    @property
    def excess_rows(self) -> int:
        """Rows above the lower bound: at most so many could be saved. 0 proves that the packing is optimal."""
        return self.rows - self.lower_bound

    def row(self, row: int) -> NDArray[np.int64]:
        """Item numbers of one row, int64."""
        return self.ids[self.offsets[row] : self.offsets[row + 1]]

    def first_rows(self, rows: NDArray[np.int64]) -> Packing:
        """The same packing with its rows in another order.

        Args:
            rows: int64 (rows,), a permutation: row r of the result is row `rows[r]` of this.
        """
        sizes = np.diff(self.offsets)[rows]
        offsets = np.concatenate(([0], np.cumsum(sizes)))
        source = np.repeat(self.offsets[rows] - offsets[:-1], sizes)
        source += np.arange(source.size)
        return Packing(self.ids[source], offsets, self.capacity, self.tokens, self.lower_bound)

    def shuffle(self, seed: int) -> Packing:
        """The same packing with its rows in a random order."""
        from mmpack.packing.shuffle import permutation

        return self.first_rows(permutation(self.rows, seed))

    def __str__(self) -> str:
        text = f"{self.ids.size:,} items in {self.rows:,} rows of {self.capacity:,}, fill {self.fill:.3%}"
        return f"{text}; at least {self.lower_bound:,} rows are needed (fill {self.fill_bound:.3%})"
