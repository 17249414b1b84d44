"""Tests of row assembly: any mix of documents, pairs and unreadable samples."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpack import ShardSet
from mmpack.errors import DataError, IntegrityError, StorageError
from mmpack.layout import Layout, Modality
from mmpack.plan.plan_config import RowsConfig
from mmpack.plan.planned_rows import PAIR_OVERHEAD, PlannedRow
from mmpack.rows.assemble import RowAssembler
from mmpack.rows.decode.numeric import Normaliser
from mmpack.rows.row import Row
from mmpack.rows.sample_decoder import SampleDecoder
from tests.examples import examples
from tests.rows.handmade_rows import make_assembler, open_layout, plan_row, read_members
from tests.rows.row_checks import check_row_arrays

MAX_SEQ_LEN = 1024


class AssemblerBench:
    """A shard set and its row assembler, opened once."""

    def __init__(self, shards: ShardSet) -> None:
        self.shards = shards
        self.layout: Layout = open_layout(shards)
        self.assembler: RowAssembler = make_assembler(shards, MAX_SEQ_LEN, RowsConfig(audio_frames=True))
        self.rows: list[dict[str, Any]] = shards.index.to_pylist()
        self.slices = self.index_rows("slice")
        self.stand_alone = [
            *self.index_rows("text"),
            *self.index_rows("image_text"),
            *self.index_rows("speech"),
        ]

    def index_rows(self, kind: str) -> list[int]:
        return [number for number, row in enumerate(self.rows) if row["kind"] == kind]

    def row(self, documents: Sequence[Any], broken: Sequence[int] = ()) -> tuple[Row, list[Any], PlannedRow]:
        """Assembles a row of `documents` (see `plan_row`) in which the index rows `broken` are unreadable."""
        planned = plan_row(self.shards, documents, number=11)
        members = read_members(self.shards, planned)
        for number in broken:
            members[0, number] = StorageError("gone", where="shard")
        row, unreadable_samples = self.assembler.assemble(planned, members)
        return row, unreadable_samples, planned


@pytest.fixture(scope="module")
def bench(mixed_shards: ShardSet) -> AssemblerBench:
    return AssemblerBench(mixed_shards)


@st.composite
def documents(draw: st.DrawFn, bench: AssemblerBench) -> tuple[list[Any], list[int]]:
    """Draws documents that fit a row, some of them pairs, and the index rows that are unreadable."""
    mix: list[Any] = []
    used, broken = 0, []
    for _ in range(draw(st.integers(0, 6))):
        if draw(st.booleans()):
            first = draw(st.integers(0, len(bench.slices) - 1))
            numbers = bench.slices[first : first + draw(st.integers(1, 6))]
        else:
            numbers = [draw(st.sampled_from(bench.stand_alone))]
        size = sum(bench.rows[number]["tokens"] for number in numbers) + 4 + PAIR_OVERHEAD
        if used + size > MAX_SEQ_LEN:
            continue
        used += size
        mix.append((numbers, draw(st.booleans())))
        broken += [number for number in numbers if draw(st.integers(0, 4)) == 0]
    return mix, broken


@given(data=st.data())
@settings(max_examples=examples(60))
def test_any_mix_of_documents_gives_consistent_arrays(bench: AssemblerBench, data: st.DataObject) -> None:
    mix, broken = data.draw(documents(bench))
    row, unreadable_samples, planned = bench.row(mix, broken)
    check_row_arrays(row, bench.layout)
    samples = [sample for document in planned.documents for sample in document.samples]
    assert [sample.key for sample in unreadable_samples] == [
        sample.key for sample in samples if sample.number in broken
    ]
    # All planned positions are present, readable or not, and documents keep their order.
    num_positions = sum(document.tokens + document.is_pair * PAIR_OVERHEAD for document in planned.documents)
    assert row.cu_seqlens[-1] == num_positions
    row_keys = [key for keys in row.keys for key in keys]
    expected: list[str] = []
    for (numbers, is_pair), document in zip(mix, planned.documents, strict=True):
        keys = [sample.key for sample in document.samples]
        expected += keys * (2 if is_pair and not set(numbers) & set(broken) else 1)
    assert row_keys == expected
    num_readable_pairs = sum(is_pair and not set(numbers) & set(broken) for numbers, is_pair in mix)
    assert len(row.pairs) == num_readable_pairs


@given(data=st.data())
@settings(max_examples=examples(25))
def test_a_row_has_the_content_of_its_samples(bench: AssemblerBench, data: st.DataObject) -> None:
    mix, _ = data.draw(documents(bench))
    row, unreadable_samples, planned = bench.row(mix)
    assert unreadable_samples == []
    decoder = SampleDecoder(bench.layout, RowsConfig(audio_frames=True))
    normaliser = Normaliser(bench.shards.manifest.numeric, bench.layout.config.numeric)
    members, side = read_members(bench.shards, planned), bench.layout.config.vision.token_side
    codes, texts, media = [], [], {"patches": [], "values": [], "actions": [], "audio_frames": []}
    for sample in [sample for document in planned.documents for sample in document.samples]:
        tokenised = decoder.tokenise(sample, members[0, sample.number], normaliser)
        patches = np.empty((tokenised.num_patches, side, side, 3), np.uint8)
        ids_before = tokenised.ids.copy()
        audio = decoder.decode(tokenised, patches)
        # Tokenised samples are immutable: decoding returns the ids of the audio codes.
        assert np.array_equal(tokenised.ids, ids_before)
        media["audio_frames"].append(audio.frames)
        codes += [int(token) for ids in audio.ids for token in ids]
        media["patches"].append(patches)
        for part in tokenised.numeric:
            media["actions" if part.is_action else "values"].append(part.values)
        modality = bench.layout.vocabulary.modality(tokenised.ids)
        texts += tokenised.ids[modality == Modality.TEXT].tolist()
    for name, arrays in media.items():
        array = getattr(row, name)
        assert np.array_equal(array, np.concatenate([array[:0], *arrays]))
    assert row.input_ids[row.modality == Modality.AUDIO].tolist() == codes
    assert row.input_ids[row.modality == Modality.TEXT].tolist() == texts
    assert row.t_ns.tolist() == [
        bench.rows[sample.number]["t_ns"]
        for document in planned.documents
        for sample in document.samples
        if sample.kind == "slice"
    ]


@pytest.mark.parametrize("broken", list(product([False, True], repeat=4)))
def test_a_run_is_split_at_unreadable_slices(bench: AssemblerBench, broken: tuple[bool, ...]) -> None:
    numbers = bench.slices[2:6]
    unreadable_numbers = [number for number, is_broken in zip(numbers, broken, strict=True) if is_broken]
    text = bench.index_rows("text")[0]
    row, unreadable_samples, planned = bench.row([numbers, [text]], unreadable_numbers)
    check_row_arrays(row, bench.layout)
    assert [sample.key for sample in unreadable_samples] == [
        bench.rows[number]["key"] for number in unreadable_numbers
    ]
    # Slow reference: adjacent slices of equal readability share a document; the first and last get prefix and suffix.
    expected: list[tuple[bool, list[str], int]] = []
    for number, is_broken in zip(numbers, broken, strict=True):
        if not expected or expected[-1][0] == is_broken:
            expected.append((not is_broken, [], 0))
        _, keys, size = expected[-1]
        expected[-1] = (
            not is_broken,
            [*keys, bench.rows[number]["key"]],
            size + bench.rows[number]["tokens"],
        )
    expected[0] = (*expected[0][:2], expected[0][2] + 2)
    expected[-1] = (*expected[-1][:2], expected[-1][2] + 2)
    expected.append((True, [bench.rows[text]["key"]], bench.rows[text]["tokens"]))
    sizes = np.diff(row.cu_seqlens).tolist()
    documents = list(zip(row.document_valid.tolist(), map(list, row.keys), sizes, strict=True))
    assert documents == expected
    bos = bench.layout.vocabulary.id("<|bos|>")
    intact = bench.row([numbers, [text]])[0]
    assert (row.input_ids[0] == bos) == (not broken[0])
    # The text after the run keeps its positions.
    assert np.array_equal(
        row.input_ids[planned.documents[0].tokens :], intact.input_ids[planned.documents[0].tokens :]
    )
    # Readable slices keep their patches.
    is_kept = np.isin(intact.patch_index, row.patch_index)
    assert np.array_equal(row.patches, intact.patches[is_kept])


def test_a_sample_that_cannot_be_decoded_leaves_no_patches(bench: AssemblerBench) -> None:
    numbers = bench.slices[:4]
    planned = plan_row(bench.shards, [numbers])
    members = read_members(bench.shards, planned)
    intact, _ = bench.assembler.assemble(planned, members)
    jpeg = members[0, numbers[1]]["cam_front.jpg"]
    truncated = jpeg[: len(jpeg) // 2] + b"\xff\xd9"
    members[0, numbers[1]] = members[0, numbers[1]] | {"cam_front.jpg": truncated}
    row, unreadable_samples = bench.assembler.assemble(planned, members)
    check_row_arrays(row, bench.layout)
    assert [sample.key for sample in unreadable_samples] == [bench.rows[numbers[1]]["key"]]
    assert unreadable_samples[0].reason.startswith("'cam_front': the image cannot be decoded as JPEG")
    assert row.document_valid.tolist() == [True, False, True]
    assert np.array_equal(row.patches, intact.patches[np.isin(intact.patch_index, row.patch_index)])


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("stage", ["read", "decode"])
def test_an_unreadable_sample_makes_its_pair_invalid(bench: AssemblerBench, at: int, stage: str) -> None:
    numbers = bench.slices[4:7]
    planned = plan_row(bench.shards, [(numbers, True), (bench.index_rows("speech")[:1], True)])
    members = read_members(bench.shards, planned)
    if stage == "read":
        members[0, numbers[at]] = IntegrityError("crc", where="x")
    else:
        flac = members[0, numbers[at]]["mic.flac"]
        members[0, numbers[at]] = members[0, numbers[at]] | {"mic.flac": flac[:200] + bytes(len(flac) - 200)}
    row, unreadable_samples = bench.assembler.assemble(planned, members)
    check_row_arrays(row, bench.layout)
    assert [sample.key for sample in unreadable_samples] == [bench.rows[numbers[at]]["key"]]
    assert row.document_valid.tolist() == [False, True, True]
    assert row.cu_seqlens[1] == planned.documents[0].tokens + PAIR_OVERHEAD
    assert row.pairs.tolist() == [[1, 2]]
    assert not len(row.patches)
    assert not len(row.t_ns)


def test_the_texts_of_a_pair_decode_to_the_original_texts(bench: AssemblerBench) -> None:
    caption = bench.index_rows("image_text")[2]
    row, _, planned = bench.row([([caption], True)])
    start, stop = row.cu_seqlens[1], row.cu_seqlens[2]
    text = read_members(bench.shards, planned)[0, caption]["txt"].decode()
    assert bench.layout.tokenizer.decode(row.input_ids[start + 1 : stop - 2]) == text
    assert (row.modality[: row.cu_seqlens[1]] == Modality.VISION).sum() == bench.rows[caption][
        "tokens_vision"
    ]


def test_rows_are_bitwise_equal_in_all_threads(bench: AssemblerBench) -> None:
    planned = plan_row(
        bench.shards,
        [bench.slices[:5], (bench.slices[5:8], True), *([number] for number in bench.stand_alone[-8:])],
    )
    members = read_members(bench.shards, planned)
    expected, _ = bench.assembler.assemble(planned, members)
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda _: bench.assembler.assemble(planned, members)[0], range(8)))
    for row in rows:
        assert row.keys == expected.keys
        for name, array in expected.arrays().items():
            assert np.array_equal(row.arrays()[name], array), name


def test_a_sample_may_occur_twice_in_a_row(bench: AssemblerBench) -> None:
    text, run = bench.index_rows("text")[1], bench.slices[:2]
    row, unreadable_samples, _ = bench.row([[text], run, [text], run])
    check_row_arrays(row, bench.layout)
    assert unreadable_samples == []
    assert row.keys[0] == row.keys[2]
    one, other = (row.input_ids[row.document_ids == document] for document in (1, 3))
    assert np.array_equal(one, other)


def test_a_slice_earlier_than_the_previous_one_is_unreadable(bench: AssemblerBench) -> None:
    first, second, third = bench.slices[:3]
    row, unreadable_samples, _ = bench.row([[second, first, third]])
    check_row_arrays(row, bench.layout)
    assert [sample.key for sample in unreadable_samples] == [bench.rows[first]["key"]]
    assert "is earlier than" in unreadable_samples[0].reason
    assert row.document_valid.tolist() == [True, False, True]


def test_an_unreadable_sample_has_its_location_and_a_one_line_reason(bench: AssemblerBench) -> None:
    number = bench.index_rows("text")[0]
    planned = plan_row(bench.shards, [[number]], number=42)
    _, (unreadable,) = bench.assembler.assemble(
        planned, {(0, number): IntegrityError("two\nlines", where="a.tar", hint="Go.")}
    )
    sample = planned.documents[0].samples[0]
    assert (unreadable.row, unreadable.key, unreadable.shard) == (42, sample.key, sample.shard)
    assert (unreadable.offset_bytes, unreadable.size_bytes) == (sample.offset_bytes, sample.size_bytes)
    assert unreadable.reason == "a.tar: two lines. Go."


def test_a_plan_with_wrong_lengths_raises_an_error(bench: AssemblerBench) -> None:
    planned = plan_row(bench.shards, [bench.slices])
    with pytest.raises(DataError, match="do not fit into a row of"):
        bench.assembler.assemble(planned, read_members(bench.shards, planned))
    document = plan_row(bench.shards, [bench.slices[:2]]).documents[0]
    wrong = PlannedRow(0, (replace(document, tokens=document.tokens + 1),))
    with pytest.raises(DataError, match=r"not \d+ as planned"):
        bench.assembler.assemble(wrong, read_members(bench.shards, wrong))


def test_an_empty_row_is_padding(bench: AssemblerBench) -> None:
    row, unreadable_samples = bench.assembler.assemble(PlannedRow(3, ()), {})
    check_row_arrays(row, bench.layout)
    assert unreadable_samples == []
    assert (row.number, row.tokens, row.cu_seqlens.tolist()) == (3, 0, [0])


def test_audio_frames_are_returned_only_if_requested(bench: AssemblerBench, mixed_shards: ShardSet) -> None:
    planned = plan_row(mixed_shards, [bench.slices[:1]])
    row, _ = make_assembler(mixed_shards, MAX_SEQ_LEN).assemble(planned, read_members(mixed_shards, planned))
    check_row_arrays(row, bench.layout)
    assert row.audio_frames.shape == (0, 320)
    assert (row.modality == Modality.AUDIO).any()


def test_tubelet_rows_have_all_frames(tubelet_shards: ShardSet) -> None:
    planned = plan_row(tubelet_shards, [range(4), (range(4, 6), True)])
    row, unreadable_samples = make_assembler(tubelet_shards, 2048).assemble(
        planned, read_members(tubelet_shards, planned)
    )
    check_row_arrays(row, open_layout(tubelet_shards))
    assert unreadable_samples == []
    frames = sum(
        camera["frames"]
        for number in range(6)
        for camera in tubelet_shards.index.slice(number, 1).to_pylist()[0]["cameras"]
    )
    assert len(row.image_spans) == frames > 36


def test_rows_of_six_real_cameras_have_all_patches(camera_shards: ShardSet) -> None:
    planned = plan_row(camera_shards, [[0, 1, 2], [3, 4]])
    row, unreadable_samples = make_assembler(camera_shards, 8192).assemble(
        planned, read_members(camera_shards, planned)
    )
    check_row_arrays(row, open_layout(camera_shards))
    assert unreadable_samples == []
    assert len(row.patches) == 5 * 6 * 252
    assert row.image_grids.tolist() == [[12, 21]] * 30
    assert row.fill > 0.9
