"""Several rows as one batch of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import DataError
from mmpack.rows.row import Row

PER_POSITION = ("input_ids", "labels", "position_ids", "document_ids", "modality", "slice_ids")
"""One value a place: stacked to (rows, L)."""
INDEXED = ("patch_index", "value_index", "action_index", "audio_index", "cls_index")
"""Places: joined, and made to count through the batch, row b from b · L on, as in the flattened dense arrays."""
CONCATENATED = (
    "document_valid",
    "datasets",
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
)
"""Joined along their first axis, row after row."""
PER_ROW = ("cu_seqlens", "image_spans")
"""Kept a row each, in a list, as :func:`mmpack.masks.build_block_mask` takes them; their places count within the row."""


def collate(rows: Sequence[Row]) -> dict[str, Any]:
    """A batch of B rows of L places.

    Types are those of the rows' arrays. What numbers something that is joined counts through the batch: `slice_ids` lead
    into `t_ns`, `pairs` into `document_valid` and `datasets`. `position_ids` and `document_ids` count within their row.

    Args:
        rows: made under one layout, with one `max_seq_len`.

    Returns:
        The arrays of the rows by name: those in `DENSE` stacked to (B, L), those in `INDEXED` and `CONCATENATED` joined, those in
        `PER_ROW` as lists of B arrays. And which rows they are: `numbers`, int64 (B,), and `keys`, a list of B.

    Raises:
        DataError: no rows, or rows of different lengths.
    """
    if not rows:
        raise DataError("no rows", where="batch")
    places = rows[0].seq_len
    if any(row.seq_len != places for row in rows):
        raise DataError(
            f"rows of {places} places and of others", where="batch", hint="Batch rows of one max_seq_len."
        )
    batch: dict[str, Any] = {name: np.stack([getattr(row, name) for row in rows]) for name in PER_POSITION}
    for name in INDEXED:
        batch[name] = _concatenate(rows, name, _start_offsets([places] * len(rows)))
    for name in CONCATENATED:
        batch[name] = np.concatenate([getattr(row, name) for row in rows])
    for name in PER_ROW:
        batch[name] = [getattr(row, name) for row in rows]
    batch["pairs"] = _concatenate(rows, "pairs", _start_offsets([len(row.document_valid) for row in rows]))
    slices, starts = batch["slice_ids"], _start_offsets([len(row.t_ns) for row in rows])
    batch["slice_ids"] = np.where(slices < 0, slices, slices + starts[:, None])
    batch["numbers"] = np.array([row.number for row in rows], np.int64)
    batch["keys"] = [row.keys for row in rows]
    return batch


def _concatenate(rows: Sequence[Row], name: str, starts: NDArray[np.int32]) -> NDArray[np.int32]:
    """An array of numbers of each row, shifted by where what they number starts in the batch."""
    return np.concatenate([getattr(row, name) + start for row, start in zip(rows, starts, strict=True)])


def _start_offsets(sizes: Sequence[int]) -> NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(sizes[:-1])]).astype(np.int32)
