"""A data set of a plan: its units, and the order they are drawn in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmpack.mixture.forecast import max_tokens_of_run
from mmpack.plan.catalog import IndexCatalog
from mmpack.plan.documents import DocumentTable
from mmpack.plan.epoch_order import epoch_order
from mmpack.plan.plan_config import DatasetConfig


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """One data set.

    Attributes:
        config: its table.
        number: of the data set in the plan.
        source: number of its build in the plan.
        catalog: of that build.
        units: what is drawn.
        key: uint64, of its order: another for each seed and name, whatever other data sets there are.
    """

    config: DatasetConfig
    number: int
    source: int
    catalog: IndexCatalog
    document_table: DocumentTable
    key: np.uint64

    @property
    def name(self) -> str:
        """What the phases call it."""
        return self.config.name

    @property
    def tokens(self) -> int:
        """Of one epoch, with what wraps documents."""
        return self.document_table.total_tokens

    @property
    def documents(self) -> int:
        """Of one epoch."""
        return len(self.document_table)

    @property
    def max_tokens(self) -> int | None:
        """Tokens that may be drawn in the whole run; None: no cap."""
        return max_tokens_of_run(self.config.max_epochs, self.tokens)

    def draw_order(self, first: int, count: int) -> NDArray[np.int64]:
        """The units drawn at the places first, ..., first + count - 1: int64 (count,)."""
        return epoch_order(
            first,
            count,
            len(self.document_table),
            min(self.config.locality, len(self.document_table)),
            self.key,
        )


def derive_dataset_key(seed: int, name: str) -> np.uint64:
    """The key of a data set's order."""
    return np.uint64(int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little"))
