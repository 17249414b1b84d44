"""What a row is without some of its samples, derived from the whole row: places masked, all else as it was."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from itertools import groupby

import numpy as np

from mmpack.layout import Layout
from mmpack.plan.planned import PAIR_OVERHEAD, PlannedDocument, PlannedRow
from mmpack.rows.row import IGNORE_INDEX, Row


def row_without(row: Row, planned: PlannedRow, lost: Collection[str], layout: Layout) -> Row:
    """`row` as it must be when the samples `lost` cannot be read.

    Args:
        row: as it is when all can be read.
        planned: what it was made of.
        lost: keys.
        layout: of its places.
    """
    pad = layout.vocabulary.id("<|pad|>")
    ids, gone = row.input_ids.copy(), np.zeros(row.seq_len, np.bool_)
    ends, valid, datasets, keys = [0], [], [], []
    for document in planned.documents:
        for size, is_lost, own in _pieces(row, ends[-1], document, lost, layout):
            start = ends[-1]
            gone[start : start + size] = is_lost
            if not is_lost and start not in row.cu_seqlens:
                _restart_time(row, ids, start, start + size, layout)
            ends.append(start + size)
            valid.append(not is_lost)
            datasets.append(document.dataset)
            keys.append(own)
    ids[gone] = pad
    places = np.arange(row.seq_len)
    number = np.searchsorted(ends, places, side="right") - 1
    inside = places < ends[-1]
    document_ids = np.where(inside & ~gone, number, -1).astype(np.int32)
    starts = np.array(ends)[number]
    modality = row.modality.copy()
    modality[gone] = layout.vocabulary.modality(np.array([pad], np.int32))[0]
    kept = np.unique(row.slice_ids[~gone & (row.slice_ids >= 0)])
    slice_ids = np.where(gone | (row.slice_ids < 0), -1, np.searchsorted(kept, row.slice_ids))
    has = {name: ~gone[getattr(row, f"{name}_index")] for name in ("patch", "value", "action", "audio")}
    pictures = ~gone[row.image_spans[:, 0]]
    cls_index = row.cls_index[~gone[row.cls_index[:, 0]]]
    return replace(
        row,
        input_ids=ids,
        labels=_labels(ids, document_ids, layout),
        position_ids=np.where(inside, places - starts, 0).astype(np.int32),
        document_ids=document_ids,
        cu_seqlens=np.array(ends, np.int32),
        document_valid=np.array(valid, np.bool_),
        datasets=np.array(datasets, np.int16),
        keys=tuple(keys),
        modality=modality,
        slice_ids=slice_ids.astype(np.int32),
        t_ns=row.t_ns[kept],
        patches=row.patches[has["patch"]],
        patch_index=row.patch_index[has["patch"]],
        image_spans=row.image_spans[pictures],
        image_grids=row.image_grids[pictures],
        **{
            f"{name}{part}": getattr(row, f"{name}{part}")[has[kind]]
            for kind, name, parts in (
                ("value", "value", ("s", "_mask", "_index", "_stream")),
                ("action", "action", ("s", "_mask", "_index", "_stream")),
                ("audio", "audio", ("_frames", "_index")),
            )
            for part in parts
        },
        pairs=document_ids[cls_index],
        cls_index=cls_index,
    )


def _pieces(
    row: Row, start: int, document: PlannedDocument, lost: Collection[str], layout: Layout
) -> list[tuple[int, bool, tuple[str, ...]]]:
    """(places, whether they are lost, keys) of each document that a planned one becomes."""
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
    both = zip(sizes, keys, strict=True)
    pieces = []
    for is_lost, group in groupby(both, key=lambda each: each[1] in lost):
        found = list(group)
        pieces.append((sum(size for size, _ in found), is_lost, tuple(key for _, key in found)))
    return pieces


def _restart_time(row: Row, ids: np.ndarray, start: int, stop: int, layout: Layout) -> None:
    """A run that goes on behind a lost slice counts its time from there."""
    found, first = np.unique(row.slice_ids[start:stop], return_index=True)
    own = found >= 0
    since_ns = row.t_ns[found[own]] - row.t_ns[found[own][0]]
    ids[start + first[own]] = layout.vocabulary.time_ids(since_ns)


def _labels(ids: np.ndarray, document_ids: np.ndarray, layout: Layout) -> np.ndarray:
    held = [layout.vocabulary.id(f"<|{name}|>") for name in ("pad", "patch", "value", "action_value")]
    labels = np.full(len(ids), IGNORE_INDEX, np.int32)
    for place in np.flatnonzero(document_ids[:-1] >= 0).tolist():
        if document_ids[place] == document_ids[place + 1] and ids[place + 1] not in held:
            labels[place] = ids[place + 1]
    return labels
