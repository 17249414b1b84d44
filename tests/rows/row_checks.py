"""What the arrays of a row are, told slowly: each is derived once more from its definition, place by
place.
"""

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
    """Asserts that the arrays of `row` are what :class:`Row` says, and agree with each other."""
    assert tuple(DTYPES) == ROW_ARRAYS
    for name, array in row.arrays().items():
        assert array.dtype == DTYPES[name], name
    _check_documents(row, layout)
    _check_labels(row, layout)
    _check_slices(row, layout)
    _check_pictures(row, layout)
    _check_numbers(row, layout, action=False)
    _check_numbers(row, layout, action=True)
    _check_sound(row, layout)
    _check_pairs(row, layout)


def _documents(row: Row) -> list[list[int]]:
    """The places of each document."""
    ends = row.cu_seqlens.tolist()
    return [list(range(start, stop)) for start, stop in pairwise(ends)]


def _check_documents(row: Row, layout: Layout) -> None:
    names, pad = layout.vocabulary, layout.vocabulary.id("<|pad|>")
    length = len(row.input_ids)
    documents = _documents(row)
    assert row.cu_seqlens[0] == 0
    assert row.cu_seqlens[-1] <= length
    assert all(documents), "no document is empty"
    counts = {len(documents), len(row.document_valid), len(row.datasets), len(row.keys)}
    assert len(counts) == 1
    assert all(isinstance(key, str) for keys in row.keys for key in keys)
    positions, numbers = [0] * length, [-1] * length
    for number, places in enumerate(documents):
        for position, place in enumerate(places):
            positions[place] = position
            if row.document_valid[number]:
                numbers[place] = number
    assert row.position_ids.tolist() == positions
    assert row.document_ids.tolist() == numbers
    for place in range(length):
        token, modality = int(row.input_ids[place]), int(row.modality[place])
        assert (token == pad) == (numbers[place] < 0)
        (span,) = [span for span in names.ranges if span.start <= token < span.stop]
        assert modality == span.modality
    assert row.tokens == length - numbers.count(-1)
    assert row.fill == row.tokens / length


def _check_labels(row: Row, layout: Layout) -> None:
    held = {layout.vocabulary.id(name) for name in ("<|pad|>", "<|patch|>", "<|value|>", "<|action_value|>")}
    expected = []
    for place in range(len(row.input_ids)):
        last = place + 1 == len(row.input_ids)
        document = int(row.document_ids[place])
        if last or document < 0 or document != row.document_ids[place + 1]:
            expected.append(IGNORE_INDEX)
        else:
            following = int(row.input_ids[place + 1])
            expected.append(IGNORE_INDEX if following in held else following)
    assert row.labels.tolist() == expected


def _check_slices(row: Row, layout: Layout) -> None:
    found = row.slice_ids.tolist()
    assert set(found) - {-1} == set(range(len(row.t_ns)))
    texts = set(row.pairs[:, 1].tolist())
    for number, places in enumerate(_documents(row)):
        slices = [found[place] for place in places if found[place] >= 0]
        assert slices == sorted(slices)
        if not row.document_valid[number]:
            assert not slices
        if not slices or number in texts:
            continue
        assert sorted(set(slices)) == list(range(slices[0], slices[-1] + 1))
        first_ns = int(row.t_ns[slices[0]])
        for each in sorted(set(slices)):
            start = next(place for place in places if found[place] == each)
            since_ns = int(row.t_ns[each]) - first_ns
            assert since_ns >= 0
            step, span = layout.config.time.step_ns, layout.config.time.span_ns
            nearest = (2 * min(since_ns, span) + step) // (2 * step)
            expected = layout.vocabulary.id(layout.config.time.token_names()[nearest])
            assert row.input_ids[start] == expected


def _check_pictures(row: Row, layout: Layout) -> None:
    patch = layout.vocabulary.id("<|patch|>")
    places = [place for place, token in enumerate(row.input_ids.tolist()) if token == patch]
    side = layout.config.vision.token_side
    assert row.patches.shape == (len(places), side, side, 3)
    assert row.patch_index.tolist() == places
    covered = [place for start, stop in row.image_spans.tolist() for place in range(start, stop)]
    assert covered == places
    assert row.image_spans.shape == row.image_grids.shape == (len(row.image_spans), 2)
    for (start, stop), (rows, columns) in zip(
        row.image_spans.tolist(), row.image_grids.tolist(), strict=True
    ):
        assert rows * columns == stop - start > 0
        assert len(set(row.document_ids[start:stop].tolist())) == 1


def _check_numbers(row: Row, layout: Layout, *, action: bool) -> None:
    token = layout.vocabulary.id("<|action_value|>" if action else "<|value|>")
    places = [place for place, found in enumerate(row.input_ids.tolist()) if found == token]
    kind = "action" if action else "value"
    values, mask = getattr(row, f"{kind}s"), getattr(row, f"{kind}_mask")
    index, streams = getattr(row, f"{kind}_index"), getattr(row, f"{kind}_stream")
    continuous = [
        stream
        for stream in layout.config.numeric
        if stream.mode == "continuous" and (stream.role == "action") == action
    ]
    assert index.tolist() == places
    assert values.shape == mask.shape
    assert values.shape == (len(places), max((stream.width for stream in continuous), default=0))
    assert streams.shape == index.shape
    assert np.isfinite(values).all()
    assert (values[~mask] == 0).all()
    for number, place in enumerate(places):
        stream = layout.config.numeric[streams[number]]
        assert stream in continuous
        assert not mask[number, stream.width :].any()
        before = place
        while row.input_ids[before] == token:
            before -= 1
        assert row.input_ids[before] == layout.vocabulary.id(f"<|{stream.name}|>")


def _check_sound(row: Row, layout: Layout) -> None:
    audio = layout.config.audio
    places = [place for place, found in enumerate(row.modality.tolist()) if found == Modality.AUDIO]
    assert len(places) % audio.codebooks == 0
    start = layout.vocabulary.range("audio").start
    for number, place in enumerate(places):
        book = (int(row.input_ids[place]) - start) // audio.codebook_size
        assert book == number % audio.codebooks
    assert row.audio_frames.shape == (len(row.audio_index), audio.hop)
    if len(row.audio_frames):
        assert row.audio_index.tolist() == places[:: audio.codebooks]
        assert np.isfinite(row.audio_frames).all()


def _check_pairs(row: Row, layout: Layout) -> None:
    ids = layout.vocabulary.id
    documents = _documents(row)
    marks = [place for place, token in enumerate(row.input_ids.tolist()) if token == ids("<|cls|>")]
    assert sorted(row.cls_index.ravel().tolist()) == marks
    assert row.pairs.shape == row.cls_index.shape == (len(row.pairs), 2)
    wraps = {ids(name) for name in ("<|bos|>", "<|text_start|>", "<|cls|>", "<|eos|>")}
    for pair, places in zip(row.pairs.tolist(), row.cls_index.tolist(), strict=True):
        assert pair[1] == pair[0] + 1
        assert row.keys[pair[0]] == row.keys[pair[1]]
        for document, place in zip(pair, places, strict=True):
            assert row.document_valid[document]
            held = [int(row.input_ids[each]) for each in documents[document]]
            assert place == documents[document][-2]
            assert held[-1] == ids("<|eos|>")
            assert held[0] == ids("<|bos|>")
            is_text = [token in wraps or row.modality[each] == Modality.TEXT
                       for token, each in zip(held, documents[document], strict=True)]  # fmt: skip
            if document == pair[1]:
                assert all(is_text)
            else:
                assert ids("<|text_start|>") not in held
                assert Modality.TEXT not in row.modality[documents[document]]
