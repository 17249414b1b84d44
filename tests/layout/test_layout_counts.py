"""Counts against rows assembled here, id by id, without looking at the segments."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from mmpack.errors import ConfigError, DataError
from mmpack.layout import (
    AudioLayout,
    ImageTextMetadata,
    Layout,
    LayoutConfig,
    Modality,
    NumericLayout,
    SampleMetadata,
    Segment,
    SliceMetadata,
    SpeechMetadata,
    TextMetadata,
    TokenCounts,
    VisionLayout,
)

LAYOUT = Layout(
    LayoutConfig(
        vision=VisionLayout(patch_size=4, merge=2, min_tokens=2, max_tokens=30),
        audio=AudioLayout(hop=160, codebooks=2, codebook_size=64),
        cameras=("cam_front", "cam_left", "cam_right"),
        numeric=(
            NumericLayout(name="imu", width=6),
            NumericLayout(name="can", width=2, mode="discrete", low=-1, high=1),
            NumericLayout(name="action", width=3, mode="discrete", bins=64, low=-1, high=1, role="action"),
            NumericLayout(name="pose", width=7, role="action"),
        ),
    )
)
IDS = LAYOUT.vocabulary
BACKEND = tokenizers.Tokenizer.from_str(
    files("mmpack.layout").joinpath("data", "tokenizer.json").read_text(encoding="utf-8")
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
pictures = st.tuples(st.integers(1, 200), st.integers(1, 200))
sounds = st.tuples(st.integers(0, 5000), st.sampled_from([8_000, 16_000, 44_100, 48_000]))
CAMERAS = st.sampled_from(LAYOUT.config.cameras)
STREAMS = st.sampled_from([stream.name for stream in LAYOUT.config.numeric])

slices = st.builds(
    SliceMetadata,
    cameras=st.dictionaries(CAMERAS, pictures).map(lambda d: tuple((n, *size) for n, size in d.items())),
    audio=st.lists(sounds, max_size=2).map(lambda s: tuple((f"mic_{i}", *x) for i, x in enumerate(s))),
    numeric=st.dictionaries(STREAMS, st.integers(0, 5)).map(lambda d: tuple(d.items())),
    text=st.lists(texts, max_size=3).map(tuple),
)
facts_of_any_kind = st.one_of(
    slices,
    texts.map(TextMetadata),
    st.builds(lambda size, text: ImageTextMetadata(*size, text), pictures, texts),
    st.builds(lambda sound, text: SpeechMetadata(*sound, text), sounds, texts),
)


def patch_ids(height: int, width: int) -> list[int]:
    """One id per merged patch of the resized picture, cut out of real pixels."""
    grid = LAYOUT.config.vision.patch_grid(height, width)
    pixels = np.zeros((grid.height, grid.width))
    tokens = pixels.reshape(grid.height // 8, 8, grid.width // 8, 8).swapaxes(1, 2).reshape(-1, 8, 8)
    return [IDS.id("<|patch|>")] * len(tokens)


def sound_ids(samples: int, rate: int) -> list[int]:
    duration = [k for k in range(samples * 3) if k * rate < samples * 16_000]
    frames = [duration[start : start + 160] for start in range(0, len(duration), 160)]
    if not frames:
        return []
    codes = np.random.default_rng(samples).integers(0, 64, (len(frames), 2))
    return [IDS.id("<|audio_start|>"), *IDS.audio_ids(codes), IDS.id("<|audio_end|>")]


def value_ids(stream: NumericLayout, rows: int) -> list[int]:
    if not rows:
        return []
    values = np.random.default_rng(rows).normal(size=(rows, stream.width))
    if stream.mode == "discrete":
        ids = IDS.bin_ids(stream.name, stream.encode(values)).ravel().tolist()
    else:
        ids = [IDS.id("<|action_value|>" if stream.role == "action" else "<|value|>") for _ in values]
    return [IDS.id(f"<|{stream.name}|>"), *ids]


def assemble(facts: SampleMetadata) -> list[int]:
    """The ids of a sample, in the order of the documentation."""
    if isinstance(facts, SliceMetadata):
        row = [int(IDS.time_ids(1_000_000_000))]
        sizes = {name: size for name, *size in facts.cameras}
        for name in ("cam_front", "cam_left", "cam_right"):
            if name in sizes:
                row += [IDS.id(f"<|{name}|>"), *patch_ids(*sizes[name])]
        for _, samples, rate in facts.audio:
            row += sound_ids(samples, rate)
        rows = dict(facts.numeric)
        for stream in LAYOUT.config.numeric:
            row += value_ids(stream, rows.get(stream.name, 0))
        for text in facts.text:
            if text:
                row += [IDS.id("<|text_start|>"), *BACKEND.encode(str(text)).ids]
        return row
    row = [IDS.id("<|bos|>")]
    if isinstance(facts, ImageTextMetadata):
        row += [IDS.id("<|image_start|>"), *patch_ids(facts.height, facts.width), IDS.id("<|image_end|>")]
    if isinstance(facts, SpeechMetadata):
        row += sound_ids(facts.samples, facts.rate_hz)
    return [*row, *BACKEND.encode(str(facts.text)).ids, IDS.id("<|eos|>")]


@given(facts_of_any_kind)
def test_counts_are_those_of_the_assembled_row(facts: SampleMetadata) -> None:
    row = np.array(assemble(facts))
    by_modality = np.bincount(IDS.modality(row), minlength=len(Modality))
    counts = LAYOUT.count_tokens(facts)
    assert counts.total == len(row)
    for modality in Modality:
        assert getattr(counts, modality.name.lower()) == by_modality[modality]


@given(facts_of_any_kind)
def test_segments_lie_where_the_assembled_row_has_them(facts: SampleMetadata) -> None:
    row = np.array(assemble(facts))
    start = 0
    for segment in LAYOUT.sample_segments(facts):
        piece = row[start : start + segment.tokens]
        assert segment.tokens >= 1
        assert (IDS.modality(piece) == segment.modality).all()
        if segment.token:
            assert (piece == IDS.id(segment.token)).all()
        start += segment.tokens
    assert start == len(row)


@given(slices)
def test_segments_point_back_to_their_entry(facts: SliceMetadata) -> None:
    entries = {"image": facts.cameras, "audio": facts.audio, "numeric": facts.numeric}
    for segment in LAYOUT.sample_segments(facts):
        if segment.kind in entries:
            assert entries[segment.kind][segment.index][0] == segment.stream
        elif segment.kind == "text":
            assert len(BACKEND.encode(str(facts.text[segment.index])).ids) == segment.tokens


@given(st.lists(facts_of_any_kind, max_size=6))
def test_many_are_counted_as_each(samples: list[SampleMetadata]) -> None:
    assert LAYOUT.count_tokens_many(samples) == [LAYOUT.count_tokens(facts) for facts in samples]


@given(facts_of_any_kind)
def test_a_text_may_be_given_by_its_length(facts: SampleMetadata) -> None:
    if isinstance(facts, SliceMetadata):
        known = tuple(LAYOUT.count_text_tokens([str(text) for text in facts.text]).tolist())
        counted = replace(facts, text=known)
    else:
        counted = replace(facts, text=int(LAYOUT.count_text_tokens([str(facts.text)])[0]))
    assert LAYOUT.count_tokens(counted) == LAYOUT.count_tokens(facts)
    assert LAYOUT.count_tokens_many([counted, facts]) == [LAYOUT.count_tokens(facts)] * 2


def test_a_slice_reads_as_documented() -> None:
    facts = SliceMetadata(
        cameras=(("cam_left", 16, 16), ("cam_front", 16, 16)),
        audio=(("mic", 160, 16_000),),
        numeric=(("action", 1), ("imu", 2)),
        text=("hi", ""),
    )
    names = [segment.token or segment.kind for segment in LAYOUT.sample_segments(facts)]
    assert names == [
        *("time", "<|cam_front|>", "<|patch|>", "<|cam_left|>", "<|patch|>"),
        *("<|audio_start|>", "audio", "<|audio_end|>"),
        *("<|imu|>", "<|value|>", "<|action|>", "numeric", "<|text_start|>", "text"),
    ]


def test_a_run_of_slices_is_wrapped_and_a_stand_alone_sample_wraps_itself() -> None:
    def names(segments: tuple[Segment, ...]) -> list[str]:
        return [segment.token for segment in segments]

    assert names(LAYOUT.document_prefix) == ["<|bos|>", "<|video_start|>"]
    assert names(LAYOUT.document_suffix) == ["<|video_end|>", "<|eos|>"]
    assert LAYOUT.document_overhead == 4
    assert LAYOUT.count_tokens(SliceMetadata()) == TokenCounts(special=1)
    assert LAYOUT.count_tokens(TextMetadata("")) == TokenCounts(special=2)


def test_an_unknown_stream_is_refused_with_the_nearest_and_the_key() -> None:
    with pytest.raises(ConfigError) as caught:
        LAYOUT.count_tokens(SliceMetadata(cameras=(("cam_frnt", 9, 9),)))
    assert "cam_frnt" in caught.value.message
    assert "cam_front" in caught.value.hint
    assert "layout.cameras" in caught.value.hint
    with pytest.raises(ConfigError, match=r"'imuu'.*'imu'.*layout\.numeric"):
        LAYOUT.count_tokens(SliceMetadata(numeric=(("imuu", 1),)))


@pytest.mark.parametrize(
    "facts",
    [
        SliceMetadata(cameras=(("cam_front", 0, 9),)),
        SliceMetadata(cameras=(("cam_front", 9, 9), ("cam_front", 9, 9))),
        SliceMetadata(numeric=(("imu", 1), ("imu", 1))),
        SliceMetadata(numeric=(("imu", -1),)),
        SliceMetadata(audio=(("mic", -1, 16_000),)),
        SliceMetadata(text=(-1,)),
        SpeechMetadata(10, 0),
    ],
)
def test_facts_that_cannot_be_are_refused(facts: SampleMetadata) -> None:
    with pytest.raises(DataError):
        LAYOUT.count_tokens(facts)
