"""Several rows as one batch of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import DataError
from mmpack.stream.row import Row

DENSE = ("input_ids", "labels", "position_ids", "document_ids", "modality", "slice_ids")
"""One value a place: stacked to (rows, L)."""
PLACED = ("patch_index", "value_index", "action_index", "audio_index", "cls_index")
"""Places: made to count through the batch, row b from b · L on, as in the flattened dense arrays."""
JOINED = (
    "t_ns",
    "patches",
    "image_grids",
    "values",
    "value_mask",
    "value_stream",
    "actions",
    "action_mask",
    "action_stream",
    "audio_frames",
    "datasets",
    "document_valid",
)
"""Joined along their first axis, row after row."""
LISTED = ("cu_seqlens", "image_spans")
"""Kept a row each, in a list, as :func:`mmpack.masks.block_mask` takes them."""


def collate(rows: Sequence[Row]) -> dict[str, Any]:
    """A batch.

    Returns:
        The arrays of the rows by name: those in `DENSE` stacked, those in `PLACED` joined and counted through the
        batch, those in `JOINED` joined, those in `LISTED` as lists. `pairs` counts documents through the batch.
        `slice_ids` counts slices through the batch, so that it leads into `t_ns`. `numbers` (rows,), int64, and `keys`, a list a
        row, say which rows they are.

    Raises:
        DataError: no rows, or rows of different lengths.
    """
    if not rows:
        raise DataError("no rows", where="batch")
    places = rows[0].seq_len
    if any(row.seq_len != places for row in rows):
        raise DataError("rows of different lengths", where="batch")
    batch: dict[str, Any] = {name: np.stack([getattr(row, name) for row in rows]) for name in DENSE}
    for name in PLACED:
        batch[name] = np.concatenate(
            [getattr(row, name) + number * places for number, row in enumerate(rows)]
        )
    for name in JOINED:
        batch[name] = np.concatenate([getattr(row, name) for row in rows])
    for name in LISTED:
        batch[name] = [getattr(row, name) for row in rows]
    documents = _starts([len(row.document_valid) for row in rows])
    batch["pairs"] = np.concatenate([row.pairs + start for row, start in zip(rows, documents, strict=True)])
    slices = _starts([len(row.t_ns) for row in rows])
    ids = batch["slice_ids"]
    batch["slice_ids"] = np.where(ids < 0, ids, ids + slices[:, None].astype(ids.dtype))
    batch["numbers"] = np.array([row.number for row in rows], np.int64)
    batch["keys"] = [row.keys for row in rows]
    return batch


def _starts(sizes: Sequence[int]) -> NDArray[np.int32]:
    return np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.int32)
