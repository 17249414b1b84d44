"""The vocabulary: ranges, ids, names and modalities."""

from __future__ import annotations

import numpy as np
import pytest

from mmpack.errors import ConfigError, DataError
from mmpack.layout import AudioLayout, Layout, LayoutConfig, Modality, NumericLayout, TimeLayout
from mmpack.layout.special_tokens import FIXED_TOKENS, PLACEHOLDER_TOKENS

CONFIG = LayoutConfig(
    cameras=("cam_front", "cam_back"),
    audio=AudioLayout(codebooks=3, codebook_size=10),
    time=TimeLayout(step="1s", span="3s"),
    numeric=(
        NumericLayout(name="imu", width=6),
        NumericLayout(name="can", width=2, mode="discrete", bins=5, low=0, high=1),
        NumericLayout(name="action", width=3, mode="discrete", bins=7, low=-1, high=1, role="action"),
    ),
)
LAYOUT = Layout(CONFIG)
VOCABULARY = LAYOUT.vocabulary
SPECIAL_TOKENS = (
    *FIXED_TOKENS,
    *("<|cam_front|>", "<|cam_back|>", "<|imu|>", "<|can|>", "<|action|>"),
    *("<|t_0.0s|>", "<|t_1.0s|>", "<|t_2.0s|>", "<|t_3.0s|>"),
)


def test_ranges_are_contiguous_and_in_the_documented_order() -> None:
    assert [r.name for r in VOCABULARY.ranges] == [
        *("text", "special", "patch", "value", "action_value", "audio", "bins:can", "bins:action")
    ]
    sizes = [r.stop - r.start for r in VOCABULARY.ranges]
    assert sizes == [LAYOUT.tokenizer.size, len(SPECIAL_TOKENS), 1, 1, 1, 30, 5, 7]
    assert [r.start for r in VOCABULARY.ranges] == np.cumsum([0, *sizes])[:-1].tolist()
    assert VOCABULARY.ranges[-1].stop == VOCABULARY.size


def test_special_and_placeholder_tokens_have_the_ids_after_the_text() -> None:
    first = LAYOUT.tokenizer.size
    for offset, name in enumerate((*SPECIAL_TOKENS, *PLACEHOLDER_TOKENS)):
        assert VOCABULARY.id(name) == first + offset
        assert VOCABULARY.name(first + offset) == name


def test_every_id_has_a_modality_and_a_unique_name() -> None:
    modalities = VOCABULARY.modality(np.arange(VOCABULARY.size))
    assert modalities.dtype == np.int8
    for span in VOCABULARY.ranges:
        assert (modalities[span.start : span.stop] == span.modality).all()
    names = [VOCABULARY.name(i) for i in range(LAYOUT.tokenizer.size, VOCABULARY.size)]
    assert len(set(names)) == len(names)
    assert VOCABULARY.modality(VOCABULARY.id("<|patch|>")) == Modality.VISION
    assert VOCABULARY.modality(VOCABULARY.id("<|value|>")) == Modality.NUMERIC
    assert VOCABULARY.modality(VOCABULARY.id("<|action_value|>")) == Modality.ACTION


def test_codec_codes_are_in_the_order_of_frames_and_codebooks() -> None:
    start = VOCABULARY.range("audio").start
    ids = VOCABULARY.audio_ids([[1, 2, 3], [9, 0, 9]])
    assert (ids - start).tolist() == [1, 12, 23, 9, 10, 29]
    assert [VOCABULARY.name(int(i)) for i in ids[:3]] == ["<audio 0:1>", "<audio 1:2>", "<audio 2:3>"]
    for bad in ([[1, 2]], [1, 2, 3], [[1, 2, 10]], [[-1, 0, 0]]):
        with pytest.raises(DataError):
            VOCABULARY.audio_ids(bad)


def test_bins_and_times_have_ids_of_their_ranges() -> None:
    ids = VOCABULARY.bin_ids("action", CONFIG.numeric[2].encode([[-1.0, 0.0, 1.0]]))
    assert [VOCABULARY.name(int(i)) for i in ids[0]] == ["<action 0>", "<action 3>", "<action 6>"]
    times = VOCABULARY.time_ids(np.array([0, 1_499_999_999, 1_500_000_000, 10**12]))
    assert [VOCABULARY.name(int(i)) for i in times] == [
        "<|t_0.0s|>",
        "<|t_1.0s|>",
        "<|t_2.0s|>",
        "<|t_3.0s|>",
    ]
    with pytest.raises(DataError, match="can"):
        VOCABULARY.bin_ids("can", [5])
    with pytest.raises(ConfigError, match="bins:imu"):
        VOCABULARY.bin_ids("imu", [0])


def test_an_unknown_name_or_id_is_an_error_and_names_have_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="cam_front"):
        VOCABULARY.id("<|cam_frnt|>")
    with pytest.raises(ConfigError, match="audio"):
        VOCABULARY.range("audoi")
    for bad in (-1, VOCABULARY.size):
        with pytest.raises(DataError):
            VOCABULARY.name(bad)
        with pytest.raises(DataError):
            VOCABULARY.modality([0, bad])


@pytest.mark.parametrize(
    "config",
    [
        LayoutConfig(cameras=("a", "a")),
        LayoutConfig(cameras=("imu",), numeric=(NumericLayout(name="imu", width=1),)),
        LayoutConfig(cameras=("bos",)),
        LayoutConfig(cameras=("patch",)),
        LayoutConfig(cameras=("t_0.1s",)),
        LayoutConfig(cameras=("",)),
        LayoutConfig(cameras=("a|> <|b",)),
        LayoutConfig(audio=AudioLayout(codebooks=2**16, codebook_size=2**16)),
    ],
    ids=["twice", "two kinds", "fixed", "placeholder", "time", "empty", "two tokens", "beyond int32"],
)
def test_invalid_names_and_too_many_ids_are_errors(config: LayoutConfig) -> None:
    with pytest.raises(ConfigError, match="layout"):
        Layout(config)
