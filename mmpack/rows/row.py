"""A row: the arrays that a model is trained on."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

IGNORE_INDEX = -100
"""Label of a place where nothing is predicted (torch's `cross_entropy` leaves it out by default)."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Row:
    """One training sequence of L places, D documents, S slices.

    A label is the id that the *next* place of the same document holds, so labels are shifted already.

    Attributes:
        number: of the row in the run, over all ranks.
        input_ids: int32 (L,); `<|pad|>` behind the last document and where a sample could not be read.
        labels: int32 (L,); IGNORE at pads, at a document's last place, and where the next place holds no id to be
            predicted: a patch, a continuous value, `<|pad|>`.
        position_ids: int32 (L,), distance from the document's start, in unreadable ones too; 0 behind the last document.
        document_ids: int32 (L,), from 0; -1 behind the last document and at the places of unreadable samples.
        cu_seqlens: int32 (D + 1,), first place of each document and the end of the last. What the attention is
            confined to: the places of an unreadable sample are a document of their own, which nothing else sees.
        document_valid: bool (D,); False for the places of an unreadable sample.
        datasets: int16 (D,), number of the document's data set in the plan; 0 in rows of tars.
        keys: of each document, the keys of its samples, read or not; both documents of a pair have all of its.
        modality: int8 (L,), numbers of :class:`mmpack.layout.Modality`; pads are SPECIAL.
        slice_ids: int32 (L,), the slice a place belongs to, from 0 in the row; -1 outside of slices. In a pair both
            documents have places of the same slices.
        t_ns: int64 (S,), tick of each slice on its recording's clock.
        patches: uint8 (P, side, side, 3), RGB pixels of each patch place; side is `layout.vision.token_side`.
        patch_index: int32 (P,), the place of each patch, ascending.
        image_spans: int32 (I, 2), [start, stop) of the places of each picture; each frame of a tubelet is one.
        image_grids: int32 (I, 2), rows and columns of its patches.
        values: float32 (V, width), continuous observations, normalised by their stream's mean and deviation; 0 where
            `value_mask` is False. The width is that of the layout's widest such stream.
        value_mask: bool (V, width), True where there is a finite value: columns beyond the stream's width and values
            that are not finite are False.
        value_index: int32 (V,), the place of each row of values.
        value_stream: int16 (V,), its stream's number in `layout.numeric`.
        actions, action_mask, action_index, action_stream: likewise for continuous actions, with a width of their own.
        audio_frames: float32 (A, hop), samples in [-1, 1] of each codec frame; A is 0 unless `rows.audio_frames`.
        audio_index: int32 (A,), the first of the `layout.audio.codebooks` places of each frame.
        pairs: int32 (K, 2), documents (media, text) of each contrastive pair.
        cls_index: int32 (K, 2), the places of their `<|cls|>`.
    """

    number: int
    input_ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    position_ids: NDArray[np.int32]
    document_ids: NDArray[np.int32]
    cu_seqlens: NDArray[np.int32]
    document_valid: NDArray[np.bool_]
    datasets: NDArray[np.int16]
    keys: tuple[tuple[str, ...], ...]
    modality: NDArray[np.int8]
    slice_ids: NDArray[np.int32]
    t_ns: NDArray[np.int64]
    patches: NDArray[np.uint8]
    patch_index: NDArray[np.int32]
    image_spans: NDArray[np.int32]
    image_grids: NDArray[np.int32]
    values: NDArray[np.float32]
    value_mask: NDArray[np.bool_]
    value_index: NDArray[np.int32]
    value_stream: NDArray[np.int16]
    actions: NDArray[np.float32]
    action_mask: NDArray[np.bool_]
    action_index: NDArray[np.int32]
    action_stream: NDArray[np.int16]
    audio_frames: NDArray[np.float32]
    audio_index: NDArray[np.int32]
    pairs: NDArray[np.int32]
    cls_index: NDArray[np.int32]

    @property
    def seq_len(self) -> int:
        """Places, L."""
        return len(self.input_ids)

    @property
    def tokens(self) -> int:
        """Places of documents that could be read."""
        sizes = np.diff(self.cu_seqlens)
        return int(sizes[self.document_valid].sum())

    @property
    def fill(self) -> float:
        """`tokens` / places."""
        return self.tokens / self.seq_len

    def __repr__(self) -> str:
        # Without the arrays: a row has megabytes of them.
        return (
            f"Row {self.number}: {self.tokens:,} of {self.seq_len:,} places, {len(self.keys)} documents, "
            f"{len(self.t_ns)} slices, {len(self.patches):,} patches"
        )

    def arrays(self) -> dict[str, NDArray]:
        """Every array by its name, in the order above."""
        return {name: getattr(self, name) for name in ROW_ARRAYS}


ROW_ARRAYS = tuple(field.name for field in fields(Row) if field.name not in ("number", "keys"))
"""Names of a row's arrays."""
