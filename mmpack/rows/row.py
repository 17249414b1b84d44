"""The arrays of a row, on which a model is trained."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

IGNORE_INDEX = -100
"""Label of a position where nothing is predicted (the default `ignore_index` of torch's `cross_entropy`)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Row:
    """One training sequence of L positions with D documents and S slices.

    Labels are already shifted: a label is the id at the *next* position of the same document.

    Attributes:
        number: number of the row in the training run, counted over all ranks.
        input_ids: int32 (L,), token ids; `<|pad|>` after the last document and where a sample is unreadable.
        labels: int32 (L,), ids to predict; IGNORE_INDEX at padding, at the last position of a document, and where the
            next position has no id to predict (a patch, a continuous value or `<|pad|>`).
        position_ids: int32 (L,), distance from the start of the document, in unreadable documents too; 0 after the last
            document.
        document_ids: int32 (L,), index of the document; -1 after the last document and in unreadable samples.
        cu_seqlens: int32 (D + 1,), first position of each document and the end of the last one. Attention stays within
            these documents; an unreadable sample is a document of its own, to which no other document attends.
        document_valid: bool (D,), False for documents of unreadable samples.
        datasets: int16 (D,), index of the document's data set in the plan; 0 in rows of plain tars.
        keys: for each document, the keys of its samples, readable or not; both documents of a pair have the same keys.
        modality: int8 (L,), values of :class:`mmpack.layout.Modality`; padding is SPECIAL.
        slice_ids: int32 (L,), index of the slice in the row, from 0; -1 outside of slices. Both documents of a pair
            have positions of the same slices.
        t_ns: int64 (S,), tick of each slice in ns on the clock of its recording.
        patches: uint8 (P, side, side, 3), RGB pixels of each patch; side is `layout.vision.token_side`.
        patch_index: int32 (P,), position of each patch, ascending.
        image_spans: int32 (I, 2), positions [start, stop) of each image; each frame of a tubelet is one image.
        image_grids: int32 (I, 2), number of patch rows and columns of each image.
        values: float32 (V, width), continuous observations, normalised by the mean and standard deviation of their
            stream; 0 where `value_mask` is False. The width is that of the layout's widest such stream.
        value_mask: bool (V, width), True for finite values; False for values that are not finite and for columns beyond
            the width of the stream.
        value_index: int32 (V,), position of each row of values.
        value_stream: int16 (V,), index of the stream in `layout.numeric`.
        actions, action_mask, action_index, action_stream: the same for continuous actions, with their own width.
        audio_frames: float32 (A, hop), audio samples in [-1, 1] of each codec frame; A is 0 unless `rows.audio_frames`.
        audio_index: int32 (A,), first of the `layout.audio.codebooks` positions of each frame.
        pairs: int32 (K, 2), document indices (media, text) of each contrastive pair.
        cls_index: int32 (K, 2), positions of the `<|cls|>` tokens of each pair.
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
        """The number of positions, L."""
        return len(self.input_ids)

    @property
    def tokens(self) -> int:
        """The number of positions in readable documents."""
        sizes = np.diff(self.cu_seqlens)
        return int(sizes[self.document_valid].sum())

    @property
    def fill(self) -> float:
        """The share of positions in readable documents: `tokens` / `seq_len`."""
        return self.tokens / self.seq_len

    def __repr__(self) -> str:
        # The arrays are left out, because a row has megabytes of them.
        return (
            f"Row {self.number}: {self.tokens:,} of {self.seq_len:,} positions, {len(self.keys)} documents, "
            f"{len(self.t_ns)} slices, {len(self.patches):,} patches"
        )

    def arrays(self) -> dict[str, NDArray]:
        """Returns all arrays by name, in the order of the attributes."""
        return {name: getattr(self, name) for name in ROW_ARRAYS}


ROW_ARRAYS = tuple(field.name for field in fields(Row) if field.name not in ("number", "keys"))
"""Names of the arrays of a row."""
