"""Token counts, compared with rows that this module assembles id by id without the segments of the layout."""

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
    Layout,
    LayoutConfig,
    Modality,
    NumericLayout,
    SampleMetadata,
    Segment,
    SliceMetadata,
    StandAloneMetadata,
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
VOCABULARY = LAYOUT.vocabulary
BACKEND = tokenizers.Tokenizer.from_str(
    files("mmpack.layout").joinpath("data", "tokenizer.json").read_text(encoding="utf-8")
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
image_sizes = st.tuples(st.integers(1, 200), st.integers(1, 200))
audio_sizes = st.tuples(st.integers(0, 5000), st.sampled_from([8_000, 16_000, 44_100, 48_000]))
CAMERAS = st.sampled_from(LAYOUT.config.cameras)
STREAMS = st.sampled_from([stream.name for stream in LAYOUT.config.numeric])

slices = st.builds(
    SliceMetadata,
    cameras=st.dictionaries(CAMERAS, image_sizes).map(lambda d: tuple((n, *size) for n, size in d.items())),
    audio=st.lists(audio_sizes, max_size=2).map(
        lambda sizes: tuple((f"mic_{i}", *size) for i, size in enumerate(sizes))
    ),
    numeric=st.dictionaries(STREAMS, st.integers(0, 5)).map(lambda d: tuple(d.items())),
    text=st.lists(texts, max_size=3).map(tuple),
)
metadata_of_any_kind = st.one_of(
    slices,
    texts.map(StandAloneMetadata),
    st.builds(lambda size, text: StandAloneMetadata(text, images=(size,)), image_sizes, texts),
    st.builds(lambda size, text: StandAloneMetadata(text, audio=(size,)), audio_sizes, texts),
)


def patch_ids(height: int, width: int) -> list[int]:
    """Returns one id per merged patch of an array of pixels of the resized image."""
    grid = LAYOUT.config.vision.patch_grid(height, width)
    pixels = np.zeros((grid.height, grid.width))
    tokens = pixels.reshape(grid.height // 8, 8, grid.width // 8, 8).swapaxes(1, 2).reshape(-1, 8, 8)
    return [VOCABULARY.id("<|patch|>")] * len(tokens)


def audio_ids(samples: int, rate: int) -> list[int]:
    resampled = [k for k in range(samples * 3) if k * rate < samples * 16_000]
    frames = [resampled[start : start + 160] for start in range(0, len(resampled), 160)]
    if not frames:
        return []
    codes = np.random.default_rng(samples).integers(0, 64, (len(frames), 2))
    return [VOCABULARY.id("<|audio_start|>"), *VOCABULARY.audio_ids(codes), VOCABULARY.id("<|audio_end|>")]


def value_ids(stream: NumericLayout, rows: int) -> list[int]:
    if not rows:
        return []
    values = np.random.default_rng(rows).normal(size=(rows, stream.width))
    if stream.mode == "discrete":
        ids = VOCABULARY.bin_ids(stream.name, stream.encode(values)).ravel().tolist()
    else:
        ids = [VOCABULARY.id("<|action_value|>" if stream.role == "action" else "<|value|>") for _ in values]
    return [VOCABULARY.id(f"<|{stream.name}|>"), *ids]


def assemble(metadata: SampleMetadata) -> list[int]:
    """Returns the ids of a sample, in the order of the documentation."""
    if isinstance(metadata, SliceMetadata):
        row = [int(VOCABULARY.time_ids(1_000_000_000))]
        sizes = {name: size for name, *size in metadata.cameras}
        for name in ("cam_front", "cam_left", "cam_right"):
            if name in sizes:
                row += [VOCABULARY.id(f"<|{name}|>"), *patch_ids(*sizes[name])]
        for _, samples, rate in metadata.audio:
            row += audio_ids(samples, rate)
        rows = dict(metadata.numeric)
        for stream in LAYOUT.config.numeric:
            row += value_ids(stream, rows.get(stream.name, 0))
        for text in metadata.text:
            if text:
                row += [VOCABULARY.id("<|text_start|>"), *BACKEND.encode(str(text)).ids]
        return row
    row = [VOCABULARY.id("<|bos|>")]
    for height, width in metadata.images:
        row += [VOCABULARY.id("<|image_start|>"), *patch_ids(height, width), VOCABULARY.id("<|image_end|>")]
    for samples, rate in metadata.audio:
        row += audio_ids(samples, rate)
    return [*row, *BACKEND.encode(str(metadata.text)).ids, VOCABULARY.id("<|eos|>")]


@given(metadata_of_any_kind)
def test_counts_equal_those_of_the_assembled_row(metadata: SampleMetadata) -> None:
    row = np.array(assemble(metadata))
    by_modality = np.bincount(VOCABULARY.modality(row), minlength=len(Modality))
    counts = LAYOUT.count_tokens(metadata)
    assert counts.total == len(row)
    for modality in Modality:
        assert getattr(counts, modality.name.lower()) == by_modality[modality]


@given(metadata_of_any_kind)
def test_segments_match_the_positions_of_the_assembled_row(metadata: SampleMetadata) -> None:
    row = np.array(assemble(metadata))
    start = 0
    for segment in LAYOUT.sample_segments(metadata):
        ids = row[start : start + segment.tokens]
        assert segment.tokens >= 1
        assert (VOCABULARY.modality(ids) == segment.modality).all()
        if segment.token:
            assert (ids == VOCABULARY.id(segment.token)).all()
        start += segment.tokens
    assert start == len(row)


@given(slices)
def test_the_index_of_a_segment_is_that_of_its_metadata_entry(metadata: SliceMetadata) -> None:
    entries = {"image": metadata.cameras, "audio": metadata.audio, "numeric": metadata.numeric}
    for segment in LAYOUT.sample_segments(metadata):
        if segment.kind in entries:
            assert entries[segment.kind][segment.index][0] == segment.stream
        elif segment.kind == "text":
            assert len(BACKEND.encode(str(metadata.text[segment.index])).ids) == segment.tokens


@given(st.lists(metadata_of_any_kind, max_size=6))
def test_many_samples_are_counted_like_single_samples(samples: list[SampleMetadata]) -> None:
    assert LAYOUT.count_tokens_many(samples) == [LAYOUT.count_tokens(sample) for sample in samples]


@given(metadata_of_any_kind)
def test_a_text_may_be_replaced_by_its_token_count(metadata: SampleMetadata) -> None:
    if isinstance(metadata, SliceMetadata):
        token_counts = tuple(LAYOUT.count_text_tokens([str(text) for text in metadata.text]).tolist())
        counted = replace(metadata, text=token_counts)
    else:
        counted = replace(metadata, text=int(LAYOUT.count_text_tokens([str(metadata.text)])[0]))
    assert LAYOUT.count_tokens(counted) == LAYOUT.count_tokens(metadata)
    assert LAYOUT.count_tokens_many([counted, metadata]) == [LAYOUT.count_tokens(metadata)] * 2


def test_a_slice_has_the_documented_order() -> None:
    metadata = SliceMetadata(
        cameras=(("cam_left", 16, 16), ("cam_front", 16, 16)),
        audio=(("mic", 160, 16_000),),
        numeric=(("action", 1), ("imu", 2)),
        text=("hi", ""),
    )
    names = [segment.token or segment.kind for segment in LAYOUT.sample_segments(metadata)]
    assert names == [
        *("time", "<|cam_front|>", "<|patch|>", "<|cam_left|>", "<|patch|>"),
        *("<|audio_start|>", "audio", "<|audio_end|>"),
        *("<|imu|>", "<|value|>", "<|action|>", "numeric", "<|text_start|>", "text"),
    ]


def test_runs_and_stand_alone_samples_have_start_and_end_tokens() -> None:
    def names(segments: tuple[Segment, ...]) -> list[str]:
        return [segment.token for segment in segments]

    assert names(LAYOUT.document_prefix) == ["<|bos|>", "<|video_start|>"]
    assert names(LAYOUT.document_suffix) == ["<|video_end|>", "<|eos|>"]
    assert LAYOUT.document_overhead == 4
    assert LAYOUT.count_tokens(SliceMetadata()) == TokenCounts(special=1)
    assert LAYOUT.count_tokens(StandAloneMetadata("")) == TokenCounts(special=2)


def test_an_unknown_stream_is_an_error_that_suggests_the_closest_stream_and_the_key() -> None:
    with pytest.raises(ConfigError) as caught:
        LAYOUT.count_tokens(SliceMetadata(cameras=(("cam_frnt", 9, 9),)))
    assert "cam_frnt" in caught.value.message
    assert "cam_front" in caught.value.hint
    assert "layout.cameras" in caught.value.hint
    with pytest.raises(ConfigError, match=r"'imuu'.*'imu'.*layout\.numeric"):
        LAYOUT.count_tokens(SliceMetadata(numeric=(("imuu", 1),)))


@pytest.mark.parametrize(
    "metadata",
    [
        SliceMetadata(cameras=(("cam_front", 0, 9),)),
        SliceMetadata(cameras=(("cam_front", 9, 9), ("cam_front", 9, 9))),
        SliceMetadata(numeric=(("imu", 1), ("imu", 1))),
        SliceMetadata(numeric=(("imu", -1),)),
        SliceMetadata(audio=(("mic", -1, 16_000),)),
        SliceMetadata(text=(-1,)),
        StandAloneMetadata(audio=((10, 0),)),
    ],
)
def test_impossible_metadata_is_an_error(metadata: SampleMetadata) -> None:
    with pytest.raises(DataError):
        LAYOUT.count_tokens(metadata)
