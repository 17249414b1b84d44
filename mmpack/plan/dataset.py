"""A data set of a plan: its documents and their order."""

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


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Dataset:
    """A data set of a plan.

    Attributes:
        config: table of the data set in PLAN.toml.
        index: index of the data set in the plan.
        shard_set: index of its shard set in the plan.
        catalog: index of that shard set.
        document_table: documents of the data set.
        key: uint64, key of the order of its documents. It depends on seed and name only, not on other data sets.
    """

    config: DatasetConfig
    index: int
    shard_set: int
    catalog: IndexCatalog
    document_table: DocumentTable
    key: np.uint64

    @property
    def name(self) -> str:
        """The name of the data set."""
        return self.config.name

    @property
    def tokens(self) -> int:
        """The number of tokens of one epoch, document overhead included."""
        return self.document_table.total_tokens

    @property
    def num_documents(self) -> int:
        """The number of documents of one epoch."""
        return len(self.document_table)

    @property
    def max_tokens(self) -> int | None:
        """The number of tokens that may be drawn in the whole plan; None if there is no cap."""
        return max_tokens_of_run(self.config.max_epochs, self.tokens)

    def draw_order(self, first: int, count: int) -> NDArray[np.int64]:
        """Returns the documents of draws first, ..., first + count - 1 of this data set.

        Returns:
            int64 (count,), indices in `document_table`.
        """
        return epoch_order(
            first,
            count,
            len(self.document_table),
            min(self.config.locality, len(self.document_table)),
            self.key,
        )


def derive_dataset_key(seed: int, name: str) -> np.uint64:
    """Derives the key of the document order of a data set."""
    return np.uint64(int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little"))
