"""Row arrays: collects the token ids of a row's documents and derives all arrays of the row."""

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
    """A sample while its row is assembled.

    Attributes:
        planned: the sample in the plan.
        tokenised: tokens and content of the sample; None if the sample, or another sample of its pair, is unreadable.
        reason: reason why the sample is unreadable; empty if it is readable.
        patch_slice: range of its patches in the patches of the row.
        frames: float32 (n, hop), audio frames of the sample; None before decoding.
    """

    planned: PlannedSample
    tokenised: TokenisedSample | None = None
    reason: str = ""
    patch_slice: slice = field(default_factory=lambda: slice(0, 0))
    frames: NDArray[np.float32] | None = None

    def mark_unreadable(self, error: MmpackError) -> None:
        """Marks the sample as unreadable."""
        self.tokenised, self.reason = None, " ".join(str(error).split())


@dataclass(slots=True, eq=False)
class RowBuilder:
    """The content of a row, to which documents are appended one by one.

    Attributes:
        ids: int32 (L,), token ids of the row.
        slice_ids: int32 (L,), slice index of each position.
        ends: end position of each document, after a leading 0.
        valid: whether each document is readable.
        datasets: data set index of each document.
        keys: sample keys of each document.
        t_ns: tick of each slice.
        pairs: document indices (media, text) of each pair.
        cls: positions of the `<|cls|>` tokens of each pair.
        samples: readable samples of the row, in the order of their positions.
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

    def end_document(self, size: int, is_valid: bool, dataset: int, samples: Sequence[RowSample]) -> None:
        """Ends a document of `size` positions."""
        self.ends.append(self.ends[-1] + size)
        self.valid.append(is_valid)
        self.datasets.append(dataset)
        self.keys.append(tuple(sample.planned.key for sample in samples))


def build_row(layout: Layout, number: int, builder: RowBuilder, patches: NDArray[np.uint8]) -> Row:
    """Builds the arrays of a row.

    Args:
        layout: token layout of the row.
        number: number of the row.
        builder: content of the row.
        patches: uint8 (n, side, side, 3), patches of all samples, readable or not.
    """
    vocabulary, ids = layout.vocabulary, builder.ids
    cu_seqlens = np.array(builder.ends, np.int32)
    valid = np.array(builder.valid, np.bool_)
    documents = document_ids(cu_seqlens, len(ids))
    documents[~np.append(valid, False)[documents]] = -1  # the index -1 of padding selects the appended False
    modality = vocabulary.modality(ids)
    patch_index = np.flatnonzero(ids == vocabulary.id(PATCH)).astype(np.int32)
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
        labels=_compute_labels(layout, ids, documents),
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
        value_index=np.flatnonzero(ids == vocabulary.id(VALUE)).astype(np.int32),
        value_stream=value_stream,
        actions=actions,
        action_mask=action_mask,
        action_index=np.flatnonzero(ids == vocabulary.id(ACTION_VALUE)).astype(np.int32),
        action_stream=action_stream,
        audio_frames=audio_frames,
        audio_index=audio_index[: len(audio_frames)].astype(np.int32),
        pairs=np.array(builder.pairs, np.int32).reshape(-1, 2),
        cls_index=np.array(builder.cls, np.int32).reshape(-1, 2),
    )


def _compute_labels(
    layout: Layout, ids: NDArray[np.int32], documents: NDArray[np.int32]
) -> NDArray[np.int32]:
    labels = np.full(len(ids), IGNORE_INDEX, np.int32)
    next_ids = ids[1:]
    unpredicted = [layout.vocabulary.id(token) for token in (PATCH, VALUE, ACTION_VALUE, PAD)]
    is_predicted = (documents[1:] == documents[:-1]) & (documents[1:] >= 0) & ~np.isin(next_ids, unpredicted)
    labels[:-1][is_predicted] = next_ids[is_predicted]
    return labels


def _numeric_arrays(
    layout: Layout, samples: Sequence[RowSample], *, is_action: bool
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int16]]:
    """Concatenates the continuous actions or observations of all samples: values, mask and stream indices."""
    parts: list[NumericRows] = [
        part
        for sample in samples
        if sample.tokenised is not None
        for part in sample.tokenised.numeric
        if part.is_action == is_action
    ]
    total = sum(len(part.values) for part in parts)
    widths = [
        stream.width
        for stream in layout.config.numeric
        if stream.mode == "continuous" and (stream.role == "action") == is_action
    ]
    values = np.zeros((total, max(widths, default=0)), np.float32)
    mask = np.zeros(values.shape, np.bool_)
    stream_indices = np.empty(total, np.int16)
    start = 0
    for part in parts:
        rows, width = slice(start, start + len(part.values)), part.values.shape[1]
        values[rows, :width], mask[rows, :width], stream_indices[rows] = (
            part.values,
            part.mask,
            part.stream_index,
        )
        start = rows.stop
    return values, mask, stream_indices


def _image_spans(
    samples: Sequence[RowSample], patch_index: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Returns [start, stop) and (rows, columns) of each image, where each frame of a tubelet is one image."""
    grids = [
        (image.grid.rows, image.grid.cols)
        for sample in samples
        if sample.tokenised is not None
        for image in sample.tokenised.images
        for _ in range(image.num_frames)
    ]
    image_grids = np.array(grids, np.int32).reshape(-1, 2)
    sizes = image_grids.prod(axis=1)
    starts = patch_index[np.cumsum(sizes) - sizes]
    return np.stack([starts, starts + sizes], axis=1).astype(np.int32), image_grids


def _used_patches(samples: Sequence[RowSample], patches: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns the patches of readable samples. Patches are copied only if a sample could not be decoded."""
    spans = [patches[sample.patch_slice] for sample in samples]
    if sum(len(span) for span in spans) == len(patches):
        return patches
    return np.concatenate([patches[:0], *spans])
