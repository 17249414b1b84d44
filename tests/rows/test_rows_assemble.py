"""Rows from planned rows: any mix of documents, pairs, and samples that cannot be read."""

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
from mmpack.plan.planned import PAIR_OVERHEAD, PlannedRow
from mmpack.rows.assemble import RowAssembler
from mmpack.rows.decode.numeric import Normaliser
from mmpack.rows.row import Row
from mmpack.rows.sample_decoder import SampleDecoder
from tests.rows.handmade_rows import make_assembler, open_layout, plan_row, read_members
from tests.rows.row_checks import check_row_arrays

MAX_SEQ_LEN = 1024


class Bench:
    """A build and what makes rows of it, opened once."""

    def __init__(self, shards: ShardSet) -> None:
        self.shards = shards
        self.layout: Layout = open_layout(shards)
        self.maker: RowAssembler = make_assembler(shards, MAX_SEQ_LEN, RowsConfig(audio_frames=True))
        self.rows: list[dict[str, Any]] = shards.index.to_pylist()
        self.slices = self.numbers("slice")
        self.alone = [*self.numbers("text"), *self.numbers("image_text"), *self.numbers("speech")]

    def numbers(self, kind: str) -> list[int]:
        return [number for number, row in enumerate(self.rows) if row["kind"] == kind]

    def row(self, documents: Sequence[Any], broken: Sequence[int] = ()) -> tuple[Row, list[Any], PlannedRow]:
        """A row of documents, as `planned_row` takes them, in which index rows `broken` cannot be read."""
        planned = plan_row(self.shards, documents, number=11)
        members = read_members(self.shards, planned)
        for number in broken:
            members[0, number] = StorageError("gone", where="shard")
        row, faults = self.maker.assemble(planned, members)
        return row, faults, planned


@pytest.fixture(scope="module")
def bench(mixed_shards: ShardSet) -> Bench:
    return Bench(mixed_shards)


@st.composite
def documents(draw: st.DrawFn, bench: Bench) -> tuple[list[Any], list[int]]:
    """Runs and stand-alone samples that fit a row, some as pairs, and the index rows that cannot be read."""
    found: list[Any] = []
    used, broken = 0, []
    for _ in range(draw(st.integers(0, 6))):
        if draw(st.booleans()):
            first = draw(st.integers(0, len(bench.slices) - 1))
            numbers = bench.slices[first : first + draw(st.integers(1, 6))]
        else:
            numbers = [draw(st.sampled_from(bench.alone))]
        size = sum(bench.rows[number]["tokens"] for number in numbers) + 4 + PAIR_OVERHEAD
        if used + size > MAX_SEQ_LEN:
            continue
        used += size
        found.append((numbers, draw(st.booleans())))
        broken += [number for number in numbers if draw(st.integers(0, 4)) == 0]
    return found, broken


@given(data=st.data())
@settings(max_examples=60)
def test_any_mix_of_documents_makes_arrays_that_agree(bench: Bench, data: st.DataObject) -> None:
    mix, broken = data.draw(documents(bench))
    row, faults, planned = bench.row(mix, broken)
    check_row_arrays(row, bench.layout)
    samples = [sample for document in planned.documents for sample in document.samples]
    assert [fault.key for fault in faults] == [each.key for each in samples if each.number in broken]
    # Every planned place is there, read or not, and documents keep their order.
    places = sum(each.tokens + each.is_pair * PAIR_OVERHEAD for each in planned.documents)
    assert row.cu_seqlens[-1] == places
    told = [key for keys in row.keys for key in keys]
    expected: list[str] = []
    for (numbers, pair), document in zip(mix, planned.documents, strict=True):
        keys = [sample.key for sample in document.samples]
        expected += keys * (2 if pair and not set(numbers) & set(broken) else 1)
    assert told == expected
    read = sum(pair and not set(numbers) & set(broken) for numbers, pair in mix)
    assert len(row.pairs) == read


@given(data=st.data())
@settings(max_examples=25)
def test_a_row_holds_what_its_samples_hold(bench: Bench, data: st.DataObject) -> None:
    mix, _ = data.draw(documents(bench))
    row, faults, planned = bench.row(mix)
    assert faults == []
    reader = SampleDecoder(bench.layout, RowsConfig(audio_frames=True))
    normaliser = Normaliser(bench.shards.manifest.numeric, bench.layout.config.numeric)
    members, side = read_members(bench.shards, planned), bench.layout.config.vision.token_side
    codes, texts, found = [], [], {"patches": [], "values": [], "actions": [], "audio_frames": []}
    for sample in [sample for document in planned.documents for sample in document.samples]:
        outline = reader.tokenise(sample, members[0, sample.number], normaliser)
        patches = np.empty((outline.num_patches, side, side, 3), np.uint8)
        found["audio_frames"].append(reader.decode(outline, patches))
        found["patches"].append(patches)
        for each in outline.numeric:
            found["actions" if each.is_action else "values"].append(each.values)
        modality = bench.layout.vocabulary.modality(outline.ids)
        codes += outline.ids[modality == Modality.AUDIO].tolist()
        texts += outline.ids[modality == Modality.TEXT].tolist()
    for name, arrays in found.items():
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
def test_a_run_parts_at_its_unreadable_slices(bench: Bench, broken: tuple[bool, ...]) -> None:
    numbers = bench.slices[2:6]
    gone = [number for number, is_broken in zip(numbers, broken, strict=True) if is_broken]
    text = bench.numbers("text")[0]
    row, faults, planned = bench.row([numbers, [text]], gone)
    check_row_arrays(row, bench.layout)
    assert [fault.key for fault in faults] == [bench.rows[number]["key"] for number in gone]
    # The documents, told slowly: neighbours that are alike belong together, ends take what wraps the run.
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
    found = list(zip(row.document_valid.tolist(), map(list, row.keys), sizes, strict=True))
    assert found == expected
    bos = bench.layout.vocabulary.id("<|bos|>")
    whole = bench.row([numbers, [text]])[0]
    assert (row.input_ids[0] == bos) == (not broken[0])
    # The text behind the run lies where it lay.
    assert np.array_equal(
        row.input_ids[planned.documents[0].tokens :], whole.input_ids[planned.documents[0].tokens :]
    )
    # What is readable has the pixels it had.
    kept = np.isin(whole.patch_index, row.patch_index)
    assert np.array_equal(row.patches, whole.patches[kept])


def test_a_sample_that_fails_while_decoding_leaves_no_patches(bench: Bench) -> None:
    numbers = bench.slices[:4]
    planned = plan_row(bench.shards, [numbers])
    members = read_members(bench.shards, planned)
    whole, _ = bench.maker.assemble(planned, members)
    jpeg = members[0, numbers[1]]["cam_front.jpg"]
    half = jpeg[: len(jpeg) // 2] + b"\xff\xd9"
    members[0, numbers[1]] = members[0, numbers[1]] | {"cam_front.jpg": half}
    row, faults = bench.maker.assemble(planned, members)
    check_row_arrays(row, bench.layout)
    assert [fault.key for fault in faults] == [bench.rows[numbers[1]]["key"]]
    assert faults[0].reason.startswith("'cam_front': cannot be decoded as JPEG")
    assert row.document_valid.tolist() == [True, False, True]
    assert np.array_equal(row.patches, whole.patches[np.isin(whole.patch_index, row.patch_index)])


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("stage", ["read", "decode"])
def test_a_pair_is_left_out_as_a_whole(bench: Bench, at: int, stage: str) -> None:
    numbers = bench.slices[4:7]
    planned = plan_row(bench.shards, [(numbers, True), (bench.numbers("speech")[:1], True)])
    members = read_members(bench.shards, planned)
    if stage == "read":
        members[0, numbers[at]] = IntegrityError("crc", where="x")
    else:
        flac = members[0, numbers[at]]["mic.flac"]
        members[0, numbers[at]] = members[0, numbers[at]] | {"mic.flac": flac[:200] + bytes(len(flac) - 200)}
    row, faults = bench.maker.assemble(planned, members)
    check_row_arrays(row, bench.layout)
    assert [fault.key for fault in faults] == [bench.rows[numbers[at]]["key"]]
    assert row.document_valid.tolist() == [False, True, True]
    assert row.cu_seqlens[1] == planned.documents[0].tokens + PAIR_OVERHEAD
    assert row.pairs.tolist() == [[1, 2]]
    assert not len(row.patches)
    assert not len(row.t_ns)


def test_texts_of_a_pair_read_as_they_were_written(bench: Bench) -> None:
    caption = bench.numbers("image_text")[2]
    row, _, planned = bench.row([([caption], True)])
    start, stop = row.cu_seqlens[1], row.cu_seqlens[2]
    text = read_members(bench.shards, planned)[0, caption]["txt"].decode()
    assert bench.layout.tokenizer.decode(row.input_ids[start + 1 : stop - 2]) == text
    assert (row.modality[: row.cu_seqlens[1]] == Modality.VISION).sum() == bench.rows[caption][
        "tokens_vision"
    ]


def test_the_same_row_is_the_same_to_the_bit_in_any_thread(bench: Bench) -> None:
    planned = plan_row(
        bench.shards,
        [bench.slices[:5], (bench.slices[5:8], True), *([number] for number in bench.alone[-8:])],
    )
    members = read_members(bench.shards, planned)
    once, _ = bench.maker.assemble(planned, members)
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda _: bench.maker.assemble(planned, members)[0], range(8)))
    for row in again:
        assert row.keys == once.keys
        for name, array in once.arrays().items():
            assert np.array_equal(row.arrays()[name], array), name


def test_a_sample_may_come_twice(bench: Bench) -> None:
    text, run = bench.numbers("text")[1], bench.slices[:2]
    row, faults, _ = bench.row([[text], run, [text], run])
    check_row_arrays(row, bench.layout)
    assert faults == []
    assert row.keys[0] == row.keys[2]
    one, other = (row.input_ids[row.document_ids == document] for document in (1, 3))
    assert np.array_equal(one, other)


def test_a_slice_before_the_one_before_it_is_unreadable(bench: Bench) -> None:
    first, second, third = bench.slices[:3]
    row, faults, _ = bench.row([[second, first, third]])
    check_row_arrays(row, bench.layout)
    assert [fault.key for fault in faults] == [bench.rows[first]["key"]]
    assert "before" in faults[0].reason
    assert row.document_valid.tolist() == [True, False, True]


def test_faults_say_where_and_why_in_one_line(bench: Bench) -> None:
    number = bench.numbers("text")[0]
    planned = plan_row(bench.shards, [[number]], number=42)
    _, (fault,) = bench.maker.assemble(
        planned, {(0, number): IntegrityError("two\nlines", where="a.tar", hint="Go.")}
    )
    sample = planned.documents[0].samples[0]
    assert (fault.row, fault.key, fault.shard) == (42, sample.key, sample.shard)
    assert (fault.offset_bytes, fault.size_bytes) == (sample.offset_bytes, sample.size_bytes)
    assert fault.reason == "a.tar: two lines. Go."


def test_a_plan_that_does_not_fit_is_an_error(bench: Bench) -> None:
    planned = plan_row(bench.shards, [bench.slices])
    with pytest.raises(DataError, match="in a row of"):
        bench.maker.assemble(planned, read_members(bench.shards, planned))
    document = plan_row(bench.shards, [bench.slices[:2]]).documents[0]
    wrong = PlannedRow(0, (replace(document, tokens=document.tokens + 1),))
    with pytest.raises(DataError, match="not"):
        bench.maker.assemble(wrong, read_members(bench.shards, wrong))


def test_an_empty_row_is_pads(bench: Bench) -> None:
    row, faults = bench.maker.assemble(PlannedRow(3, ()), {})
    check_row_arrays(row, bench.layout)
    assert faults == []
    assert (row.number, row.tokens, row.cu_seqlens.tolist()) == (3, 0, [0])


def test_sound_is_left_out_unless_it_is_asked_for(bench: Bench, mixed_shards: ShardSet) -> None:
    planned = plan_row(mixed_shards, [bench.slices[:1]])
    row, _ = make_assembler(mixed_shards, MAX_SEQ_LEN).assemble(planned, read_members(mixed_shards, planned))
    check_row_arrays(row, bench.layout)
    assert row.audio_frames.shape == (0, 320)
    assert (row.modality == Modality.AUDIO).any()


def test_rows_of_tubelets(tubelet_shards: ShardSet) -> None:
    planned = plan_row(tubelet_shards, [range(4), (range(4, 6), True)])
    row, faults = make_assembler(tubelet_shards, 2048).assemble(
        planned, read_members(tubelet_shards, planned)
    )
    check_row_arrays(row, open_layout(tubelet_shards))
    assert faults == []
    frames = sum(
        camera["frames"]
        for number in range(6)
        for camera in tubelet_shards.index.slice(number, 1).to_pylist()[0]["cameras"]
    )
    assert len(row.image_spans) == frames > 36


def test_rows_of_six_real_cameras(camera_shards: ShardSet) -> None:
    planned = plan_row(camera_shards, [[0, 1, 2], [3, 4]])
    row, faults = make_assembler(camera_shards, 8192).assemble(planned, read_members(camera_shards, planned))
    check_row_arrays(row, open_layout(camera_shards))
    assert faults == []
    assert len(row.patches) == 5 * 6 * 252
    assert row.image_grids.tolist() == [[12, 21]] * 30
    assert row.fill > 0.9
