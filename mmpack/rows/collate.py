"""Collation of several rows into one batch of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import DataError
from mmpack.rows.row import Row

PER_POSITION = ("input_ids", "labels", "position_ids", "document_ids", "modality", "slice_ids")
"""Arrays with one value per position: stacked to (rows, L)."""
INDEXED = ("patch_index", "value_index", "action_index", "audio_index", "cls_index")
"""Arrays of positions: concatenated; the positions of row b are shifted by b · L, so that they index the flattened
arrays of `PER_POSITION`."""
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
"""Arrays that are concatenated along their first axis, row by row."""
PER_ROW = ("cu_seqlens", "image_spans")
"""Arrays that are kept per row in a list, as :func:`mmpack.masks.build_block_mask` takes them; their positions count
within the row."""


def collate(rows: Sequence[Row]) -> dict[str, Any]:
    """Collates B rows of L positions into one batch.

    The dtypes are those of the rows' arrays. Indices into concatenated arrays are shifted to index the array of the
    batch: `slice_ids` index `t_ns`, and `pairs` index `document_valid` and `datasets`. `position_ids` and
    `document_ids` count within their row.

    Args:
        rows: rows of one layout and one `max_seq_len`.

    Returns:
        The arrays of the rows by name. Arrays in `PER_POSITION` are stacked to (B, L), arrays in `INDEXED` and
        `CONCATENATED` and `pairs` are concatenated, and arrays in `PER_ROW` are lists of B arrays. `numbers`, int64
        (B,), and `keys`, a list of length B, identify the rows.

    Raises:
        DataError: there are no rows, or they have different lengths.
    """
    if not rows:
        raise DataError("a batch needs at least one row", where="batch")
    seq_len = rows[0].seq_len
    if any(row.seq_len != seq_len for row in rows):
        raise DataError(
            f"not all rows have {seq_len} positions",
            where="batch",
            hint="Batch only rows that have the same max_seq_len.",
        )
    batch: dict[str, Any] = {name: np.stack([getattr(row, name) for row in rows]) for name in PER_POSITION}
    for name in INDEXED:
        batch[name] = _concatenate(rows, name, _start_offsets([seq_len] * len(rows)))
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
    """Concatenates an index array of the rows, shifting the values of each row by its entry of `starts`."""
    return np.concatenate([getattr(row, name) + start for row, start in zip(rows, starts, strict=True)])


def _start_offsets(sizes: Sequence[int]) -> NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(sizes[:-1])]).astype(np.int32)
