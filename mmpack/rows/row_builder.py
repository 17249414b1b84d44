"""Row arrays: collects the token ids of a row's documents and derives all arrays of the row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmpack.layout import Layout, Modality
from mmpack.layout.special_tokens import ACTION_VALUE, PAD, PATCH, VALUE
from mmpack.masks import document_ids, position_ids
from mmpack.rows.pairs import is_text_position, make_pair_ids, split_pair
from mmpack.rows.row import IGNORE_INDEX, Row
from mmpack.rows.sample_decoder import DecodedAudio, NumericRows, TokenisedSample


@dataclass(frozen=True, slots=True, eq=False)
class DecodedSample:
    """A readable sample of a row.

    Attributes:
        tokenised: tokens and content of the sample.
        audio: decoded audio of the sample.
        patch_slice: range of the sample's patches in the patches of the row.
    """

    tokenised: TokenisedSample
    audio: DecodedAudio
    patch_slice: slice


class RowBuilder:
    """A row under construction: documents are appended one by one, and `build` derives the arrays of the row.

    Args:
        layout: token layout of the row.
        max_seq_len: number of positions of the row, L.
    """

    def __init__(self, layout: Layout, max_seq_len: int) -> None:
        self._layout = layout
        self._ids = np.full(max_seq_len, layout.vocabulary.id(PAD), np.int32)
        self._slice_ids = np.full(max_seq_len, -1, np.int32)
        #: End position of each document, after a leading 0.
        self._ends = [0]
        self._valid: list[bool] = []
        self._datasets: list[int] = []
        self._keys: list[tuple[str, ...]] = []
        self._t_ns: list[int] = []
        #: Document indices (media, text) of each pair, and the positions of its `<|cls|>` tokens.
        self._pairs: list[tuple[int, int]] = []
        self._cls: list[tuple[int, int]] = []
        #: Samples of the row, in the order of their positions.
        self._samples: list[DecodedSample] = []

    def add_samples(self, samples: Sequence[DecodedSample], *, are_slices: bool) -> list[int]:
        """Adds the content of the samples of the next document.

        Returns:
            The index of each slice in the row; -1 for stand-alone samples.
        """
        self._samples += samples
        if not are_slices:
            return [-1] * len(samples)
        first = len(self._t_ns)
        self._t_ns += [sample.tokenised.t_ns for sample in samples]
        return list(range(first, len(self._t_ns)))

    def append_document(
        self, ids: NDArray[np.int32], slice_ids: NDArray[np.int32], dataset: int, keys: tuple[str, ...]
    ) -> None:
        """Appends a document of n positions.

        Args:
            ids: int32 (n,), token ids.
            slice_ids: int32 (n,), index of the slice in the row of each position; -1 outside of slices.
            dataset: index of the data set.
            keys: keys of the samples.
        """
        start = self._ends[-1]
        self._ids[start : start + len(ids)] = ids
        self._slice_ids[start : start + len(ids)] = slice_ids
        self._end_document(len(ids), dataset, keys, is_valid=True)

    def append_pair(
        self, ids: NDArray[np.int32], slice_ids: NDArray[np.int32], dataset: int, keys: tuple[str, ...]
    ) -> None:
        """Appends a document as a pair of documents: its media and its texts. The arguments are as in `append_document`."""
        pair = split_pair(is_text_position(self._layout, ids))
        start, index = self._ends[-1], len(self._valid)
        self._ids[start : start + pair.eos + 1] = make_pair_ids(self._layout, ids, pair)
        self._slice_ids[start + pair.positions] = slice_ids
        self._pairs.append((index, index + 1))
        self._cls.append((start + pair.cls[0], start + pair.cls[1]))
        self._end_document(pair.bos, dataset, keys, is_valid=True)
        self._end_document(pair.eos + 1 - pair.bos, dataset, keys, is_valid=True)

    def append_unreadable(self, size: int, dataset: int, keys: tuple[str, ...]) -> None:
        """Appends an invalid document: `size` positions of unreadable samples."""
        self._end_document(size, dataset, keys, is_valid=False)

    def build(self, number: int, patches: NDArray[np.uint8]) -> Row:
        """Builds the arrays of the row.

        Args:
            number: number of the row.
            patches: uint8 (n, side, side, 3), patches of all samples, readable or not.
        """
        layout, ids, samples = self._layout, self._ids, self._samples
        vocabulary = layout.vocabulary
        cu_seqlens = np.array(self._ends, np.int32)
        valid = np.array(self._valid, np.bool_)
        documents = document_ids(cu_seqlens, len(ids))
        documents[
            ~np.append(valid, False)[documents]
        ] = -1  # the index -1 of padding selects the appended False
        modality = vocabulary.modality(ids)
        patch_index = np.flatnonzero(ids == vocabulary.id(PATCH)).astype(np.int32)
        spans, grids = _image_spans(samples, patch_index)
        values, value_mask, value_stream = _numeric_arrays(layout, samples, is_action=False)
        actions, action_mask, action_stream = _numeric_arrays(layout, samples, is_action=True)
        audio = layout.config.audio
        audio_frames = np.concatenate(
            [np.empty((0, audio.hop), np.float32), *(sample.audio.frames for sample in samples)]
        )
        audio_index = np.flatnonzero(modality == Modality.AUDIO)[:: audio.codebooks]
        return Row(
            number=number,
            input_ids=ids,
            labels=_compute_labels(layout, ids, documents),
            position_ids=position_ids(cu_seqlens, len(ids)),
            document_ids=documents,
            cu_seqlens=cu_seqlens,
            document_valid=valid,
            datasets=np.array(self._datasets, np.int16),
            keys=tuple(self._keys),
            modality=modality,
            slice_ids=self._slice_ids,
            t_ns=np.array(self._t_ns, np.int64),
            patches=_used_patches(samples, patches),
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
            pairs=np.array(self._pairs, np.int32).reshape(-1, 2),
            cls_index=np.array(self._cls, np.int32).reshape(-1, 2),
        )

    def _end_document(self, size: int, dataset: int, keys: tuple[str, ...], *, is_valid: bool) -> None:
        self._ends.append(self._ends[-1] + size)
        self._valid.append(is_valid)
        self._datasets.append(dataset)
        self._keys.append(keys)


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
    layout: Layout, samples: Sequence[DecodedSample], *, is_action: bool
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int16]]:
    """Concatenates the continuous actions or observations of all samples: values, mask and stream indices."""
    parts: list[NumericRows] = [
        part for sample in samples for part in sample.tokenised.numeric if part.is_action == is_action
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
    samples: Sequence[DecodedSample], patch_index: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Returns [start, stop) and (rows, columns) of each image, where each frame of a tubelet is one image."""
    grids = [
        (image.grid.rows, image.grid.cols)
        for sample in samples
        for image in sample.tokenised.images
        for _ in range(image.num_frames)
    ]
    image_grids = np.array(grids, np.int32).reshape(-1, 2)
    sizes = image_grids.prod(axis=1)
    starts = patch_index[np.cumsum(sizes) - sizes]
    return np.stack([starts, starts + sizes], axis=1).astype(np.int32), image_grids


def _used_patches(samples: Sequence[DecodedSample], patches: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns the patches of readable samples. Patches are copied only if a sample could not be decoded."""
    spans = [patches[sample.patch_slice] for sample in samples]
    if sum(len(span) for span in spans) == len(patches):
        return patches
    return np.concatenate([patches[:0], *spans])
