"""Reference for rows with unreadable samples: derived from the intact row by masking positions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from itertools import groupby

import numpy as np

from mmpack.layout import Layout
from mmpack.plan.planned_rows import PAIR_OVERHEAD, PlannedDocument, PlannedRow
from mmpack.rows.row import IGNORE_INDEX, Row


def row_without(row: Row, planned: PlannedRow, lost: Collection[str], layout: Layout) -> Row:
    """Returns the row that must result from `row` when the samples `lost` are unreadable.

    Args:
        row: row in which all samples are readable.
        planned: planned row of `row`.
        lost: keys of the unreadable samples.
        layout: token layout of the row.
    """
    pad = layout.vocabulary.id("<|pad|>")
    ids, is_lost = row.input_ids.copy(), np.zeros(row.seq_len, np.bool_)
    ends, valid, datasets, keys = [0], [], [], []
    for document in planned.documents:
        for size, part_is_lost, part_keys in _split_document(row, ends[-1], document, lost, layout):
            start = ends[-1]
            is_lost[start : start + size] = part_is_lost
            if not part_is_lost and start not in row.cu_seqlens:
                _restart_time(row, ids, start, start + size, layout)
            ends.append(start + size)
            valid.append(not part_is_lost)
            datasets.append(document.dataset)
            keys.append(part_keys)
    ids[is_lost] = pad
    positions = np.arange(row.seq_len)
    index = np.searchsorted(ends, positions, side="right") - 1
    is_inside = positions < ends[-1]
    document_ids = np.where(is_inside & ~is_lost, index, -1).astype(np.int32)
    starts = np.array(ends)[index]
    modality = row.modality.copy()
    modality[is_lost] = layout.vocabulary.modality(np.array([pad], np.int32))[0]
    remaining = np.unique(row.slice_ids[~is_lost & (row.slice_ids >= 0)])
    slice_ids = np.where(is_lost | (row.slice_ids < 0), -1, np.searchsorted(remaining, row.slice_ids))
    is_kept = {
        name: ~is_lost[getattr(row, f"{name}_index")] for name in ("patch", "value", "action", "audio")
    }
    is_kept_image = ~is_lost[row.image_spans[:, 0]]
    cls_index = row.cls_index[~is_lost[row.cls_index[:, 0]]]
    return replace(
        row,
        input_ids=ids,
        labels=_expected_labels(ids, document_ids, layout),
        position_ids=np.where(is_inside, positions - starts, 0).astype(np.int32),
        document_ids=document_ids,
        cu_seqlens=np.array(ends, np.int32),
        document_valid=np.array(valid, np.bool_),
        datasets=np.array(datasets, np.int16),
        keys=tuple(keys),
        modality=modality,
        slice_ids=slice_ids.astype(np.int32),
        t_ns=row.t_ns[remaining],
        patches=row.patches[is_kept["patch"]],
        patch_index=row.patch_index[is_kept["patch"]],
        image_spans=row.image_spans[is_kept_image],
        image_grids=row.image_grids[is_kept_image],
        **{
            f"{name}{suffix}": getattr(row, f"{name}{suffix}")[is_kept[name]]
            for name, suffixes in (
                ("value", ("s", "_mask", "_index", "_stream")),
                ("action", ("s", "_mask", "_index", "_stream")),
                ("audio", ("_frames", "_index")),
            )
            for suffix in suffixes
        },
        pairs=document_ids[cls_index],
        cls_index=cls_index,
    )


def _split_document(
    row: Row, start: int, document: PlannedDocument, lost: Collection[str], layout: Layout
) -> list[tuple[int, bool, tuple[str, ...]]]:
    """Returns (size, whether it is lost, sample keys) of each document that a planned document becomes."""
    keys = tuple(sample.key for sample in document.samples)
    total = document.tokens + (PAIR_OVERHEAD if document.is_pair else 0)
    if document.is_pair:
        if any(key in lost for key in keys):
            return [(total, True, keys)]
        ends = row.cu_seqlens[(row.cu_seqlens >= start) & (row.cu_seqlens <= start + total)]
        return [(size, False, keys) for size in np.diff(ends).tolist()]
    sizes = [sample.tokens for sample in document.samples]
    if document.is_run:
        sizes[0] += len(layout.document_prefix)
        sizes[-1] += len(layout.document_suffix)
    parts = []
    for is_lost, group in groupby(zip(sizes, keys, strict=True), key=lambda item: item[1] in lost):
        items = list(group)
        parts.append((sum(size for size, _ in items), is_lost, tuple(key for _, key in items)))
    return parts


def _restart_time(row: Row, ids: np.ndarray, start: int, stop: int, layout: Layout) -> None:
    """Sets the time tokens of a document that starts after a lost slice: its time starts from 0 again."""
    slices, first = np.unique(row.slice_ids[start:stop], return_index=True)
    is_slice = slices >= 0
    since_ns = row.t_ns[slices[is_slice]] - row.t_ns[slices[is_slice][0]]
    ids[start + first[is_slice]] = layout.vocabulary.time_ids(since_ns)


def _expected_labels(ids: np.ndarray, document_ids: np.ndarray, layout: Layout) -> np.ndarray:
    unpredicted = [layout.vocabulary.id(f"<|{name}|>") for name in ("pad", "patch", "value", "action_value")]
    labels = np.full(len(ids), IGNORE_INDEX, np.int32)
    for position in np.flatnonzero(document_ids[:-1] >= 0).tolist():
        if document_ids[position] == document_ids[position + 1] and ids[position + 1] not in unpredicted:
            labels[position] = ids[position + 1]
    return labels
