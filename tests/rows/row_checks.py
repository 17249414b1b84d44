"""Slow checks of row arrays: each array is derived again from its definition, position by position."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from mmpack.layout import Layout, Modality
from mmpack.rows.row import IGNORE_INDEX, ROW_ARRAYS, Row

DTYPES = {
    "input_ids": np.int32,
    "labels": np.int32,
    "position_ids": np.int32,
    "document_ids": np.int32,
    "cu_seqlens": np.int32,
    "document_valid": np.bool_,
    "datasets": np.int16,
    "modality": np.int8,
    "slice_ids": np.int32,
    "t_ns": np.int64,
    "patches": np.uint8,
    "patch_index": np.int32,
    "image_spans": np.int32,
    "image_grids": np.int32,
    "values": np.float32,
    "value_mask": np.bool_,
    "value_index": np.int32,
    "value_stream": np.int16,
    "actions": np.float32,
    "action_mask": np.bool_,
    "action_index": np.int32,
    "action_stream": np.int16,
    "audio_frames": np.float32,
    "audio_index": np.int32,
    "pairs": np.int32,
    "cls_index": np.int32,
}


def check_row_arrays(row: Row, layout: Layout) -> None:
    """Asserts that the arrays of `row` follow the definitions of :class:`Row` and are consistent."""
    assert tuple(DTYPES) == ROW_ARRAYS
    for name, array in row.arrays().items():
        assert array.dtype == DTYPES[name], name
    _check_documents(row, layout)
    _check_labels(row, layout)
    _check_slices(row, layout)
    _check_images(row, layout)
    _check_numeric(row, layout, is_action=False)
    _check_numeric(row, layout, is_action=True)
    _check_audio(row, layout)
    _check_pairs(row, layout)


def _document_positions(row: Row) -> list[list[int]]:
    """Returns the positions of each document."""
    ends = row.cu_seqlens.tolist()
    return [list(range(start, stop)) for start, stop in pairwise(ends)]


def _check_documents(row: Row, layout: Layout) -> None:
    vocabulary, pad = layout.vocabulary, layout.vocabulary.id("<|pad|>")
    length = len(row.input_ids)
    documents = _document_positions(row)
    assert row.cu_seqlens[0] == 0
    assert row.cu_seqlens[-1] <= length
    assert all(documents), "no document is empty"
    counts = {len(documents), len(row.document_valid), len(row.datasets), len(row.keys)}
    assert len(counts) == 1
    assert all(isinstance(key, str) for keys in row.keys for key in keys)
    position_ids, document_ids = [0] * length, [-1] * length
    for document, positions in enumerate(documents):
        for distance, position in enumerate(positions):
            position_ids[position] = distance
            if row.document_valid[document]:
                document_ids[position] = document
    assert row.position_ids.tolist() == position_ids
    assert row.document_ids.tolist() == document_ids
    for position in range(length):
        token, modality = int(row.input_ids[position]), int(row.modality[position])
        assert (token == pad) == (document_ids[position] < 0)
        (span,) = [span for span in vocabulary.ranges if span.start <= token < span.stop]
        assert modality == span.modality
    assert row.tokens == length - document_ids.count(-1)
    assert row.fill == row.tokens / length


def _check_labels(row: Row, layout: Layout) -> None:
    unpredicted = {
        layout.vocabulary.id(name) for name in ("<|pad|>", "<|patch|>", "<|value|>", "<|action_value|>")
    }
    expected = []
    for position in range(len(row.input_ids)):
        is_last = position + 1 == len(row.input_ids)
        document = int(row.document_ids[position])
        if is_last or document < 0 or document != row.document_ids[position + 1]:
            expected.append(IGNORE_INDEX)
        else:
            next_id = int(row.input_ids[position + 1])
            expected.append(IGNORE_INDEX if next_id in unpredicted else next_id)
    assert row.labels.tolist() == expected


def _check_slices(row: Row, layout: Layout) -> None:
    slice_ids = row.slice_ids.tolist()
    assert set(slice_ids) - {-1} == set(range(len(row.t_ns)))
    text_documents = set(row.pairs[:, 1].tolist())
    for document, positions in enumerate(_document_positions(row)):
        slices = [slice_ids[position] for position in positions if slice_ids[position] >= 0]
        assert slices == sorted(slices)
        if not row.document_valid[document]:
            assert not slices
        if not slices or document in text_documents:
            continue
        assert sorted(set(slices)) == list(range(slices[0], slices[-1] + 1))
        first_ns = int(row.t_ns[slices[0]])
        for slice_id in sorted(set(slices)):
            start = next(position for position in positions if slice_ids[position] == slice_id)
            elapsed_ns = int(row.t_ns[slice_id]) - first_ns
            assert elapsed_ns >= 0
            step, span = layout.config.time.step_ns, layout.config.time.span_ns
            nearest = (2 * min(elapsed_ns, span) + step) // (2 * step)
            expected = layout.vocabulary.id(layout.config.time.token_names()[nearest])
            assert row.input_ids[start] == expected


def _check_images(row: Row, layout: Layout) -> None:
    patch = layout.vocabulary.id("<|patch|>")
    positions = [position for position, token in enumerate(row.input_ids.tolist()) if token == patch]
    side = layout.config.vision.token_side
    assert row.patches.shape == (len(positions), side, side, 3)
    assert row.patch_index.tolist() == positions
    covered = [position for start, stop in row.image_spans.tolist() for position in range(start, stop)]
    assert covered == positions
    assert row.image_spans.shape == row.image_grids.shape == (len(row.image_spans), 2)
    for (start, stop), (rows, columns) in zip(
        row.image_spans.tolist(), row.image_grids.tolist(), strict=True
    ):
        assert rows * columns == stop - start > 0
        assert len(set(row.document_ids[start:stop].tolist())) == 1


def _check_numeric(row: Row, layout: Layout, *, is_action: bool) -> None:
    token = layout.vocabulary.id("<|action_value|>" if is_action else "<|value|>")
    positions = [position for position, input_id in enumerate(row.input_ids.tolist()) if input_id == token]
    prefix = "action" if is_action else "value"
    values, mask = getattr(row, f"{prefix}s"), getattr(row, f"{prefix}_mask")
    index, streams = getattr(row, f"{prefix}_index"), getattr(row, f"{prefix}_stream")
    continuous = [
        stream
        for stream in layout.config.numeric
        if stream.mode == "continuous" and (stream.role == "action") == is_action
    ]
    assert index.tolist() == positions
    assert values.shape == mask.shape
    assert values.shape == (len(positions), max((stream.width for stream in continuous), default=0))
    assert streams.shape == index.shape
    assert np.isfinite(values).all()
    assert (values[~mask] == 0).all()
    for number, position in enumerate(positions):
        stream = layout.config.numeric[streams[number]]
        assert stream in continuous
        assert not mask[number, stream.width :].any()
        stream_position = position
        while row.input_ids[stream_position] == token:
            stream_position -= 1
        assert row.input_ids[stream_position] == layout.vocabulary.id(f"<|{stream.name}|>")


def _check_audio(row: Row, layout: Layout) -> None:
    audio = layout.config.audio
    positions = [position for position, value in enumerate(row.modality.tolist()) if value == Modality.AUDIO]
    assert len(positions) % audio.codebooks == 0
    start = layout.vocabulary.range("audio").start
    for number, position in enumerate(positions):
        codebook = (int(row.input_ids[position]) - start) // audio.codebook_size
        assert codebook == number % audio.codebooks
    assert row.audio_frames.shape == (len(row.audio_index), audio.hop)
    if len(row.audio_frames):
        assert row.audio_index.tolist() == positions[:: audio.codebooks]
        assert np.isfinite(row.audio_frames).all()


def _check_pairs(row: Row, layout: Layout) -> None:
    ids = layout.vocabulary.id
    documents = _document_positions(row)
    cls_positions = [
        position for position, token in enumerate(row.input_ids.tolist()) if token == ids("<|cls|>")
    ]
    assert sorted(row.cls_index.ravel().tolist()) == cls_positions
    assert row.pairs.shape == row.cls_index.shape == (len(row.pairs), 2)
    text_specials = {ids(name) for name in ("<|bos|>", "<|text_start|>", "<|cls|>", "<|eos|>")}
    for pair, pair_cls in zip(row.pairs.tolist(), row.cls_index.tolist(), strict=True):
        assert pair[1] == pair[0] + 1
        assert row.keys[pair[0]] == row.keys[pair[1]]
        for document, cls_position in zip(pair, pair_cls, strict=True):
            assert row.document_valid[document]
            tokens = [int(row.input_ids[position]) for position in documents[document]]
            assert cls_position == documents[document][-2]
            assert tokens[-1] == ids("<|eos|>")
            assert tokens[0] == ids("<|bos|>")
            is_text = [token in text_specials or row.modality[position] == Modality.TEXT
                       for token, position in zip(tokens, documents[document], strict=True)]  # fmt: skip
            if document == pair[1]:
                assert all(is_text)
            else:
                assert ids("<|text_start|>") not in tokens
                assert Modality.TEXT not in row.modality[documents[document]]
