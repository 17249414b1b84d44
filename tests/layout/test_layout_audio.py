"""Token counts of audio."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpack.errors import ConfigError, DataError
from mmpack.layout import AudioLayout

RATES = st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])


@given(st.integers(0, 3000), RATES, st.integers(1, 400), st.integers(1, 8))
def test_counts_equal_those_of_resampled_audio(samples: int, rate: int, hop: int, codebooks: int) -> None:
    layout = AudioLayout(hop=hop, codebooks=codebooks)
    resampled = []  # one audio sample at each k / 16000 s before the end of the audio
    while Fraction(len(resampled), 16_000) < Fraction(samples, rate):
        resampled.append(0)
    frames = [resampled[start : start + hop] for start in range(0, len(resampled), hop)]
    assert layout.num_frames(samples, rate) == len(frames)
    assert layout.num_tokens(samples, rate) == len(frames) * codebooks


@given(st.integers(0, 10**15), RATES)
def test_long_audio_is_counted_exactly(samples: int, rate: int) -> None:
    layout = AudioLayout()
    frames = layout.num_frames(samples, rate)
    assert (frames - 1) * 320 * rate < samples * 16_000 or frames == 0
    assert frames * 320 * rate >= samples * 16_000


def test_one_sample_gives_one_frame_and_no_sample_gives_none() -> None:
    assert AudioLayout().num_tokens(0, 48_000) == 0
    assert AudioLayout().num_tokens(1, 48_000) == 1
    assert AudioLayout().num_tokens(48_000, 48_000) == 50
    assert AudioLayout().num_tokens(48_001, 48_000) == 51


@pytest.mark.parametrize(("samples", "rate"), [(-1, 16_000), (5, 0), (5, -8)])
def test_impossible_audio_is_an_error(samples: int, rate: int) -> None:
    with pytest.raises(DataError):
        AudioLayout().num_tokens(samples, rate)


@pytest.mark.parametrize("key", ["sample_rate_hz", "hop", "codebooks", "codebook_size"])
def test_a_number_below_one_is_an_error_that_names_the_key(key: str) -> None:
    with pytest.raises(ConfigError, match=f"layout.audio.{key}"):
        AudioLayout(**{key: 0})  # pyright: ignore[reportArgumentType]


def test_a_codec_without_a_name_is_an_error() -> None:
    with pytest.raises(ConfigError, match="codec"):
        AudioLayout(codec="")
