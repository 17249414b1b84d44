"""What a row's arrays are, once every place has its id: all of them follow from the ids and from what was
read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import MmpackError
from mmpack.layout import Layout, Modality
from mmpack.layout.special_tokens import ACTION_VALUE, PAD, PATCH, VALUE
from mmpack.masks import document_ids, position_ids
from mmpack.plan.planned import PlannedSample
from mmpack.rows.row import IGNORE_INDEX, Row
from mmpack.rows.sample_decoder import NumericRows, TokenisedSample


@dataclass(slots=True, eq=False)
class RowSample:
    """A sample on its way into the row.

    Attributes:
        planned: from the plan.
        outline: None if it cannot be read, or belongs to a pair of which another cannot.
        reason: why it cannot be read.
        patches: where its patches lie in the row's.
        frames: float32 (n, hop), of its sounds.
    """

    planned: PlannedSample
    tokenised: TokenisedSample | None = None
    reason: str = ""
    patch_slice: slice = field(default_factory=lambda: slice(0, 0))
    frames: NDArray[np.float32] | None = None

    def mark_unreadable(self, error: MmpackError) -> None:
        """It cannot be read."""
        self.tokenised, self.reason = None, " ".join(str(error).split())


@dataclass(slots=True, eq=False)
class RowBuilder:
    """A row's places as documents are put there, one after the other.

    Attributes:
        ids, slice_ids: int32 (L,), of the row.
        ends, valid, datasets, keys: of each document; `ends` starts with 0.
        t_ns: of each slice.
        pairs, cls: of each pair.
        read: samples that are in the row, in the order of their places.
    """

    ids: NDArray[np.int32]
    slice_ids: NDArray[np.int32]
    ends: list[int] = field(default_factory=lambda: [0])
    valid: list[bool] = field(default_factory=list)
    datasets: list[int] = field(default_factory=list)
    keys: list[tuple[str, ...]] = field(default_factory=list)
    t_ns: list[int] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)
    cls: list[tuple[int, int]] = field(default_factory=list)
    samples: list[RowSample] = field(default_factory=list)

    def end_document(self, size: int, valid: bool, dataset: int, samples: Sequence[RowSample]) -> None:
        """Ends a document `size` places behind the one before it."""
        self.ends.append(self.ends[-1] + size)
        self.valid.append(valid)
        self.datasets.append(dataset)
        self.keys.append(tuple(sample.planned.key for sample in samples))


def build_row(layout: Layout, number: int, builder: RowBuilder, patches: NDArray[np.uint8]) -> Row:
    """The row.

    Args:
        layout: of the places.
        number: of the row.
        places: its documents.
        patches: uint8, (n, side, side, 3), of all samples, read or not.
    """
    names, ids = layout.vocabulary, builder.ids
    cu_seqlens = np.array(builder.ends, np.int32)
    valid = np.array(builder.valid, np.bool_)
    documents = document_ids(cu_seqlens, len(ids))
    documents[~np.append(valid, False)[documents]] = -1  # pads are -1 and find the False at the end
    modality = names.modality(ids)
    patch_index = np.flatnonzero(ids == names.id(PATCH)).astype(np.int32)
    spans, grids = _image_spans(builder.samples, patch_index)
    values, value_mask, value_stream = _numeric_arrays(layout, builder.samples, is_action=False)
    actions, action_mask, action_stream = _numeric_arrays(layout, builder.samples, is_action=True)
    audio = layout.config.audio
    frames = [sample.frames for sample in builder.samples if sample.frames is not None]
    audio_frames = np.concatenate([np.empty((0, audio.hop), np.float32), *frames])
    audio_index = np.flatnonzero(modality == Modality.AUDIO)[:: audio.codebooks]
    return Row(
        number=number,
        input_ids=ids,
        labels=_labels(layout, ids, documents),
        position_ids=position_ids(cu_seqlens, len(ids)),
        document_ids=documents,
        cu_seqlens=cu_seqlens,
        document_valid=valid,
        datasets=np.array(builder.datasets, np.int16),
        keys=tuple(builder.keys),
        modality=modality,
        slice_ids=builder.slice_ids,
        t_ns=np.array(builder.t_ns, np.int64),
        patches=_used_patches(builder.samples, patches),
        patch_index=patch_index,
        image_spans=spans,
        image_grids=grids,
        values=values,
        value_mask=value_mask,
        value_index=np.flatnonzero(ids == names.id(VALUE)).astype(np.int32),
        value_stream=value_stream,
        actions=actions,
        action_mask=action_mask,
        action_index=np.flatnonzero(ids == names.id(ACTION_VALUE)).astype(np.int32),
        action_stream=action_stream,
        audio_frames=audio_frames,
        audio_index=audio_index[: len(audio_frames)].astype(np.int32),
        pairs=np.array(builder.pairs, np.int32).reshape(-1, 2),
        cls_index=np.array(builder.cls, np.int32).reshape(-1, 2),
    )


def _labels(layout: Layout, ids: NDArray[np.int32], documents: NDArray[np.int32]) -> NDArray[np.int32]:
    labels = np.full(len(ids), IGNORE_INDEX, np.int32)
    following = ids[1:]
    held = [layout.vocabulary.id(token) for token in (PATCH, VALUE, ACTION_VALUE, PAD)]
    predicted = (documents[1:] == documents[:-1]) & (documents[1:] >= 0) & ~np.isin(following, held)
    labels[:-1][predicted] = following[predicted]
    return labels


def _numeric_arrays(
    layout: Layout, samples: Sequence[RowSample], *, is_action: bool
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int16]]:
    found: list[NumericRows] = [
        each
        for sample in samples
        if sample.tokenised is not None
        for each in sample.tokenised.numeric
        if each.is_action == is_action
    ]
    total = sum(len(each.values) for each in found)
    widths = [
        stream.width
        for stream in layout.config.numeric
        if stream.mode == "continuous" and (stream.role == "action") == is_action
    ]
    values = np.zeros((total, max(widths, default=0)), np.float32)
    mask = np.zeros(values.shape, np.bool_)
    stream = np.empty(total, np.int16)
    start = 0
    for each in found:
        rows, width = slice(start, start + len(each.values)), each.values.shape[1]
        values[rows, :width], mask[rows, :width], stream[rows] = each.values, each.mask, each.stream_index
        start = rows.stop
    return values, mask, stream


def _image_spans(
    samples: Sequence[RowSample], patch_index: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """[start, stop) and (rows, columns) of each picture; a frame of a tubelet is one."""
    grids = [
        (shown.grid.rows, shown.grid.cols)
        for sample in samples
        if sample.tokenised is not None
        for shown in sample.tokenised.images
        for _ in range(shown.num_frames)
    ]
    found = np.array(grids, np.int32).reshape(-1, 2)
    sizes = found.prod(axis=1)
    starts = patch_index[np.cumsum(sizes) - sizes]
    return np.stack([starts, starts + sizes], axis=1).astype(np.int32), found


def _used_patches(samples: Sequence[RowSample], patches: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The patches of samples that are in the row; only where one failed to decode is anything copied."""
    spans = [patches[sample.patch_slice] for sample in samples]
    if sum(len(span) for span in spans) == len(patches):
        return patches
    return np.concatenate([patches[:0], *spans])
