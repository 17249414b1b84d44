"""Rows built by hand from the segments of a layout, with known content at every position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpack.layout import (
    Layout,
    LayoutConfig,
    Modality,
    NumericLayout,
    SampleMetadata,
    Segment,
    SliceMetadata,
    VisionLayout,
)
from mmpack.rows.row import IGNORE_INDEX, Row

SIDE = 8
MS = 10**6
COLOURS = {"left": (200, 30, 30), "right": (30, 160, 40), "": (40, 60, 200)}


def make_layout() -> Layout:
    """Makes a layout with two cameras, a discrete and two continuous numeric streams, and 8 x 8 pixels per token."""
    return Layout(
        LayoutConfig(
            vision=VisionLayout(patch_size=4, merge=2, max_tokens=12),
            cameras=("left", "right"),
            numeric=(
                NumericLayout(name="imu", width=3),
                NumericLayout(name="wheel", width=2, mode="discrete", bins=16, low=0.0, high=16.0),
                NumericLayout(name="arm", width=2, role="action"),
            ),
        )
    )


def full_slice(texts: Sequence[str] = ()) -> SliceMetadata:
    """Makes the metadata of a slice with all streams."""
    return SliceMetadata(
        cameras=(("left", 24, 32), ("right", 24, 32)),
        audio=(("mic", 1600, 16_000),),
        numeric=(("imu", 2), ("wheel", 1), ("arm", 3)),
        text=tuple(texts),
    )


@dataclass
class RowFactory:
    """A builder that collects documents and makes a row of them."""

    layout: Layout
    seq_len: int
    ids: list[int] = field(default_factory=list)
    modality: list[int] = field(default_factory=list)
    slice_ids: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=lambda: [0])
    arrays: dict[str, list[Any]] = field(default_factory=dict)
    keys: list[tuple[str, ...]] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)

    def add_run(
        self, slices: Sequence[SliceMetadata], *, t_ns: int = 10**9, name: str = "drive", dataset: int = 0
    ) -> RowFactory:
        """Adds a run of slices, 100 ms apart."""
        for segment in self.layout.document_prefix:
            self._add_segment(segment, None, -1, 0)
        for index, metadata in enumerate(slices):
            self._append("t_ns", t_ns + index * 100 * MS)
            for segment in self.layout.sample_segments(metadata):
                self._add_segment(segment, metadata, len(self.arrays["t_ns"]) - 1, index * 100 * MS)
        for segment in self.layout.document_suffix:
            self._add_segment(segment, None, -1, 0)
        return self._end_document(tuple(f"{name}-{ordinal:08d}" for ordinal in range(len(slices))), dataset)

    def add_stand_alone(
        self, metadata: SampleMetadata, *, key: str, dataset: int = 1, is_valid: bool = True
    ) -> RowFactory:
        """Adds a stand-alone sample, or the positions of an unreadable sample."""
        for segment in self.layout.sample_segments(metadata):
            if is_valid:
                self._add_segment(segment, metadata, -1, 0)
            else:
                self._add_tokens(
                    [self.layout.vocabulary.id("<|pad|>")] * segment.tokens, Modality.SPECIAL, -1
                )
        return self._end_document((key,), dataset, is_valid)

    def _end_document(self, keys: tuple[str, ...], dataset: int, is_valid: bool = True) -> RowFactory:
        self.ends.append(len(self.ids))
        self.keys.append(keys)
        self._append("datasets", dataset)
        self._append("document_valid", is_valid)
        return self

    def _append(self, name: str, *values: Any) -> None:
        self.arrays.setdefault(name, []).extend(values)

    def _add_tokens(self, ids: Sequence[int] | NDArray[np.int32], modality: Modality, slice_id: int) -> None:
        self.ids += [int(id_) for id_ in ids]
        self.modality += [int(modality)] * len(ids)
        self.slice_ids += [slice_id] * len(ids)

    def _add_segment(self, segment: Segment, metadata: Any, slice_id: int, relative_ns: int) -> None:
        start, count, vocabulary = len(self.ids), segment.tokens, self.layout.vocabulary
        if segment.kind == "image":
            grid = self.layout.config.vision.patch_grid(*self._size(metadata, segment.index))
            self._append("image_spans", (start, start + count))
            self._append("image_grids", (grid.rows, grid.cols))
            self._append("patch_index", *range(start, start + count))
            for patch in range(count):
                # The first patch is white, so that a test notices a rotated image or shuffled patches.
                colour = (255, 255, 255) if patch == 0 else COLOURS[segment.stream]
                self._append("patches", np.full((SIDE, SIDE, 3), colour, np.uint8))
        elif segment.kind == "numeric":
            stream = next(entry for entry in self.layout.config.numeric if entry.name == segment.stream)
            prefix = "action" if stream.role == "action" else "value"
            if stream.mode == "continuous":
                for row in range(count):
                    vector = [start + row + column / 10 for column in range(stream.width)]
                    self._append(f"{prefix}s", vector + [0.0] * (3 - stream.width))
                    self._append(f"{prefix}_mask", [True] * stream.width + [False] * (3 - stream.width))
                self._append(f"{prefix}_index", *range(start, start + count))
            else:
                self._add_tokens(
                    vocabulary.bin_ids(stream.name, np.arange(count)), segment.modality, slice_id
                )
                return
        if segment.kind == "time":
            ids: Any = [int(vocabulary.time_ids(relative_ns))]
        elif segment.kind == "audio":
            ids = vocabulary.audio_ids(np.arange(count).reshape(-1, 1))
        elif segment.kind == "text":
            text = metadata.text[segment.index] if isinstance(metadata, SliceMetadata) else metadata.text
            ids = self.layout.tokenizer.encode(str(text))
        else:
            ids = [vocabulary.id(segment.token)] * count
        self._add_tokens(ids, segment.modality, slice_id)

    @staticmethod
    def _size(metadata: Any, index: int) -> tuple[int, int]:
        return metadata.cameras[index][1:3] if isinstance(metadata, SliceMetadata) else metadata.images[index]

    def build_row(self, number: int = 7) -> Row:
        """Makes a row of the collected documents, followed by padding."""
        padding = self.seq_len - len(self.ids)
        documents = np.full(self.seq_len, -1, np.int32)
        positions = np.zeros(self.seq_len, np.int32)
        for index, (start, stop) in enumerate(zip(self.ends[:-1], self.ends[1:], strict=True)):
            documents[start:stop] = index if self.arrays["document_valid"][index] else -1
            positions[start:stop] = np.arange(stop - start)
        ids = np.array(self.ids + [self.layout.vocabulary.id("<|pad|>")] * padding, np.int32)
        labels = np.full(self.seq_len, IGNORE_INDEX, np.int32)
        modality = np.array(self.modality + [int(Modality.SPECIAL)] * padding, np.int8)
        continuous = [Modality.VISION, Modality.NUMERIC, Modality.ACTION]
        predicted = (
            ~np.isin(modality[1:], continuous) & (documents[1:] == documents[:-1]) & (documents[1:] >= 0)
        )
        labels[:-1] = np.where(predicted, ids[1:], IGNORE_INDEX)

        def array(name: str, dtype: Any, *shape: int) -> np.ndarray:
            return np.array(self.arrays.get(name, []), dtype).reshape(-1, *shape)

        return Row(
            number=number,
            input_ids=ids,
            labels=labels,
            position_ids=positions,
            document_ids=documents,
            cu_seqlens=np.array(self.ends, np.int32),
            document_valid=array("document_valid", np.bool_),
            datasets=array("datasets", np.int16),
            keys=tuple(self.keys),
            modality=modality,
            slice_ids=np.array(self.slice_ids + [-1] * padding, np.int32),
            t_ns=array("t_ns", np.int64),
            patches=array("patches", np.uint8, SIDE, SIDE, 3),
            patch_index=array("patch_index", np.int32),
            image_spans=array("image_spans", np.int32, 2),
            image_grids=array("image_grids", np.int32, 2),
            values=array("values", np.float32, 3),
            value_mask=array("value_mask", np.bool_, 3),
            value_index=array("value_index", np.int32),
            value_stream=np.zeros(len(self.arrays.get("value_index", [])), np.int16),
            actions=array("actions", np.float32, 3),
            action_mask=array("action_mask", np.bool_, 3),
            action_index=array("action_index", np.int32),
            action_stream=np.full(len(self.arrays.get("action_index", [])), 2, np.int16),
            audio_frames=array("audio_frames", np.float32, 320),
            audio_index=array("audio_index", np.int32),
            pairs=np.array(self.pairs, np.int32).reshape(-1, 2),
            cls_index=np.empty((len(self.pairs), 2), np.int32),
        )
